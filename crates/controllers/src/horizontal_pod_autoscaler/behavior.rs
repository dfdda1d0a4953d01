//! Limits on scaling: stabilization of recommendations, and the policies of `spec.behavior`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Without policies, a target may grow to the larger of this size and twice its current size.
const UP_LIMIT: i32 = 4;
/// The maximum number of stored recommendations and changes; no window needs more.
const HISTORY_MAX: usize = 4096;

/// The reason and message of a condition.
pub(super) type ConditionText = (&'static str, &'static str);

const IN_RANGE: ConditionText = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: ConditionText =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: ConditionText =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_TOO_FAST: ConditionText =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_TOO_FAST: ConditionText =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const READY: ConditionText = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: ConditionText = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: ConditionText = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

/// The recommendations for an autoscaler and the changes of its target, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    recommendations: Vec<(Timestamp, i32)>,
    /// The numbers of replicas added.
    ups: Vec<(Timestamp, i32)>,
    /// The numbers of replicas removed.
    downs: Vec<(Timestamp, i32)>,
}

/// The bounds of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    /// The default stabilization window for scaling down, if `behavior` does not set one.
    pub(super) downscale_stabilization: Duration,
    pub(super) now: Timestamp,
}

impl Bounds<'_> {
    /// Returns the bound that the target violates regardless of metrics, and the reason shown to users.
    pub(super) fn violated(&self) -> Option<(i32, &'static str)> {
        if self.current > self.max {
            Some((self.max, "Current number of replicas above Spec.MaxReplicas"))
        } else if self.current < self.min {
            Some((self.min, "Current number of replicas below Spec.MinReplicas"))
        } else {
            None
        }
    }
}

/// A number of replicas within the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) replicas: i32,
    /// The condition `AbleToScale`.
    pub(super) able: ConditionText,
    /// The condition `ScalingLimited`: whether the step was limited, and why.
    pub(super) limited: (bool, ConditionText),
}

impl History {
    /// Records the initial number of replicas as the first recommendation.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Records that the target was scaled.
    pub(super) fn scaled(&mut self, from: i32, to: i32, bounds: &Bounds<'_>) {
        let Some(behavior) = bounds.behavior else { return };
        let (changes, rules) = if to > from {
            (&mut self.ups, &behavior.scale_up)
        } else {
            (&mut self.downs, &behavior.scale_down)
        };
        let policies = rules.iter().filter_map(|rules| rules.policies.as_ref()).flatten();
        let longest = policies.map(|policy| policy.period_seconds).max().unwrap_or_default();
        remove_older(changes, before(bounds.now, seconds(longest)));
        changes.push((bounds.now, to.abs_diff(from).try_into().unwrap_or(i32::MAX)));
    }

    /// Limits a recommendation by stabilization, scaling policies, and bounds.
    pub(super) fn step(&mut self, recommended: i32, bounds: &Bounds<'_>) -> Step {
        let (stabilized, why) = match bounds.behavior {
            None => (self.stabilize_down(recommended, bounds), DOWN_STABILIZED),
            Some(behavior) => {
                let why = if recommended >= bounds.current { UP_STABILIZED } else { DOWN_STABILIZED };
                (self.stabilize(recommended, behavior, bounds), why)
            }
        };
        let (replicas, limit) = match bounds.behavior {
            None => limited(stabilized, bounds),
            Some(behavior) => self.limited_by(behavior, stabilized, bounds),
        };
        Step {
            replicas,
            able: if stabilized == recommended { READY } else { why },
            limited: (replicas != stabilized, limit),
        }
    }

    fn stabilize_down(&mut self, recommended: i32, bounds: &Bounds<'_>) -> i32 {
        remove_older(&mut self.recommendations, before(bounds.now, bounds.downscale_stabilization));
        let highest = self.recommendations.iter().map(|(_, replicas)| *replicas).max();
        self.recommendations.push((bounds.now, recommended));
        highest.map_or(recommended, |highest| highest.max(recommended))
    }

    fn stabilize(
        &mut self,
        recommended: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: &Bounds<'_>,
    ) -> i32 {
        let window = |rules: &Option<HPAScalingRules>, default| {
            let written = rules.as_ref().and_then(|rules| rules.stabilization_window_seconds);
            before(bounds.now, written.map_or(default, seconds))
        };
        let up = window(&behavior.scale_up, Duration::ZERO);
        let down = window(&behavior.scale_down, bounds.downscale_stabilization);
        let (mut lowest, mut highest) = (recommended, recommended);
        for (at, replicas) in &self.recommendations {
            if *at > up {
                lowest = lowest.min(*replicas);
            }
            if *at > down {
                highest = highest.max(*replicas);
            }
        }
        remove_older(&mut self.recommendations, up.min(down));
        self.recommendations.push((bounds.now, recommended));
        bounds.current.max(lowest).min(highest)
    }

    fn limited_by(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        desired: i32,
        bounds: &Bounds<'_>,
    ) -> (i32, ConditionText) {
        let current = bounds.current;
        if desired > current {
            let pace = self.limit(behavior.scale_up.as_ref(), Direction::Up, bounds).max(current);
            let (most, why) = if bounds.max > pace { (pace, UP_TOO_FAST) } else { (bounds.max, TOO_MANY) };
            if desired > most {
                return (most, why);
            }
        } else if desired < current {
            let pace = self.limit(behavior.scale_down.as_ref(), Direction::Down, bounds).min(current);
            let (least, why) = if bounds.min < pace { (pace, DOWN_TOO_FAST) } else { (bounds.min, TOO_FEW) };
            if desired < least {
                return (least, why);
            }
        }
        (desired, IN_RANGE)
    }

    /// The number of replicas that the policies allow in one direction.
    fn limit(&self, rules: Option<&HPAScalingRules>, direction: Direction, bounds: &Bounds<'_>) -> i32 {
        let Some(rules) = rules else {
            return if direction == Direction::Up { i32::MAX } else { 0 };
        };
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return bounds.current;
        }
        let limits = rules.policies.iter().flatten().map(|policy| {
            let since = before(bounds.now, seconds(policy.period_seconds));
            let sum = |changes: &[(Timestamp, i32)]| -> i32 {
                let recent = changes.iter().filter(|(at, _)| *at > since);
                recent.fold(0, |sum, (_, change)| sum.saturating_add(*change))
            };
            let first = bounds.current.saturating_sub(sum(&self.ups)).saturating_add(sum(&self.downs));
            direction.limit(first, &policy.type_, policy.value)
        });
        // The maximum change is the largest number when scaling up and the smallest when scaling down.
        let limit =
            if (select == "Min") == (direction == Direction::Up) { limits.min() } else { limits.max() };
        limit.unwrap_or(bounds.current)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    /// The number of replicas that one policy allows, starting from `first`.
    fn limit(self, first: i32, policy: &str, value: i32) -> i32 {
        let part = f64::from(value) / 100.0;
        match (self, policy) {
            (Self::Up, "Percent") => (f64::from(first) * (1.0 + part)).ceil() as i32,
            (Self::Up, _) => first.saturating_add(value),
            (Self::Down, "Percent") => (f64::from(first) * (1.0 - part)) as i32,
            (Self::Down, _) => first.saturating_sub(value),
        }
    }
}

/// Limits the desired number without policies.
fn limited(desired: i32, bounds: &Bounds<'_>) -> (i32, ConditionText) {
    let pace = bounds.current.saturating_mul(2).max(UP_LIMIT);
    let (most, why) = if bounds.max > pace { (pace, UP_TOO_FAST) } else { (bounds.max, TOO_MANY) };
    if desired < bounds.min {
        (bounds.min, TOO_FEW)
    } else if desired > most {
        (most, why)
    } else {
        (desired, IN_RANGE)
    }
}

fn remove_older(entries: &mut Vec<(Timestamp, i32)>, before: Timestamp) {
    let surplus = entries.len().saturating_sub(HISTORY_MAX);
    entries.drain(..surplus);
    entries.retain(|(at, _)| *at >= before);
}

fn before(now: Timestamp, window: Duration) -> Timestamp {
    let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    now.saturating_sub(window).unwrap_or(Timestamp::MIN)
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or_default())
}
