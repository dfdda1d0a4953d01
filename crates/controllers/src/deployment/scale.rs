//! Surge, unavailability, and the distribution of a new size among replica sets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};

use super::revision::{DESIRED, MAX, number};
use super::template::age_order;
use super::{Resize, Sets, available, replicas, size};
use crate::int_or_percent::scaled;

/// Returns whether the strategy is `RollingUpdate`.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// The number of pods allowed beyond the deployment's size.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// The number of pods that may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).1.min(replicas(deployment)) } else { 0 }
}

/// `maxSurge` and `maxUnavailable` as numbers of pods. If both are 0, `maxUnavailable` becomes 1; otherwise a rollout
/// could never proceed.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let none = RollingUpdateDeployment::default();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref()).unwrap_or(&none);
    let total = replicas(deployment);
    let surge = scaled(rolling.max_surge.as_ref(), total, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The size to which the set of the current template may be scaled now.
pub(super) fn new_set_size(deployment: &Deployment, all: i32, new: i32) -> i32 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let room = wanted.saturating_add(max_surge(deployment)) - all;
    if room <= 0 { new } else { new + room.min(wanted - new) }
}

/// Returns whether the deployment's size has changed since its sets were scaled.
pub(super) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    sets.all().filter(|set| size(set) > 0).any(|set| {
        let desired = number::<i32>(set.metadata.annotations.as_ref(), DESIRED);
        desired.is_some_and(|desired| desired != replicas(deployment))
    })
}

/// Distributes a new size. If only one set has pods, it gets the whole size. During a rolling update, all sets are
/// scaled in proportion to keep the share of new pods.
pub(super) fn scale_proportionally<'a>(deployment: &Deployment, sets: &'a Sets) -> Vec<Resize<'a>> {
    if let Some(only) = active_or_latest(sets) {
        let to = replicas(deployment);
        return if size(only) == to { Vec::new() } else { vec![Resize { set: only, to }] };
    }
    if is_saturated(deployment, sets.new.as_ref()) {
        return sets.old.iter().filter(|set| size(set) > 0).map(|set| Resize { set, to: 0 }).collect();
    }
    if !is_rolling(deployment) {
        return Vec::new();
    }
    let mut active: Vec<&ReplicaSet> = sets.all().filter(|set| size(set) > 0).collect();
    let total: i32 = active.iter().map(|set| size(set)).sum();
    let allowed = match replicas(deployment) {
        0 => 0,
        wanted => wanted + max_surge(deployment),
    };
    let to_add = allowed - total;
    // Sorts by size, largest first. Among equal sizes, the newest set is first when scaling up and the oldest when
    // scaling down.
    active.sort_by(|a, b| {
        let age = age_order(&a.metadata, &b.metadata);
        size(b).cmp(&size(a)).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut resized: Vec<Resize<'_>> = active
        .into_iter()
        .map(|set| {
            let part = proportion(deployment, set, to_add, added);
            added += part;
            Resize { set, to: size(set) + part }
        })
        .collect();
    if let Some(first) = resized.first_mut() {
        first.to = (first.to + to_add - added).max(0);
    }
    resized
}

/// The only set that has pods, or the newest if no set has any; `None` if several have pods.
fn active_or_latest(sets: &Sets) -> Option<&ReplicaSet> {
    let mut active = sets.all().filter(|set| size(set) > 0);
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only),
        (None, _) => {
            sets.new.as_ref().or_else(|| sets.old.iter().max_by(|a, b| age_order(&a.metadata, &b.metadata)))
        }
        _ => None,
    }
}

/// Returns whether the new set has all pods of the deployment and all are available.
fn is_saturated(deployment: &Deployment, new: Option<&ReplicaSet>) -> bool {
    let wanted = replicas(deployment);
    new.is_some_and(|new| {
        let desired = number::<i32>(new.metadata.annotations.as_ref(), DESIRED);
        size(new) == wanted && desired == Some(wanted) && available(new) == wanted
    })
}

/// A set's share of the pods to add, or to remove if negative.
fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (fraction(deployment, set), to_add - added);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    if replicas(deployment) == 0 {
        return -size(set);
    }
    let before = number::<i32>(set.metadata.annotations.as_ref(), MAX).filter(|max| *max != 0);
    let status = deployment.status.as_ref().and_then(|status| status.replicas);
    let Some(before) = before.or(status).filter(|before| *before != 0) else {
        return 0;
    };
    let most = replicas(deployment) + max_surge(deployment);
    let share = f64::from(size(set)) * f64::from(most) / f64::from(before);
    share.round() as i32 - size(set)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{deployment, rolling, set};
    use super::*;

    #[test]
    fn rounds_surge_up_and_unavailability_down() {
        for (replicas, surge, unavailable, expected) in [
            (10, "25%", "25%", (3, 2)),
            (1, "25%", "25%", (1, 0)),
            (3, "0", "10%", (0, 1)),
            (4, "2", "100%", (2, 4)),
            (2, "0", "5", (0, 2)),
        ] {
            let deployment = rolling(replicas, surge, unavailable);
            assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), expected);
        }
    }

    fn annotated(name: &str, size: i32, desired: i32, max: i32) -> ReplicaSet {
        let mut set = set(name, size, size);
        let pairs = [(DESIRED, desired), (MAX, max)].map(|(key, n)| (key.to_owned(), n.to_string()));
        set.metadata.annotations = Some(pairs.into());
        set
    }

    fn distributed(deployment: &Deployment, sets: &Sets) -> Vec<(String, i32)> {
        let resized = scale_proportionally(deployment, sets).into_iter();
        resized.map(|resize| (resize.set.metadata.name.clone().unwrap(), resize.to)).collect()
    }

    #[test]
    fn only_active_set_gets_the_whole_size() {
        let sets = Sets { new: Some(annotated("new", 3, 3, 4)), old: vec![annotated("old", 0, 3, 4)] };
        assert!(!is_scaling(&deployment(3), &sets));
        assert!(is_scaling(&deployment(5), &sets));
        assert_eq!(distributed(&deployment(5), &sets), [("new".to_owned(), 5)]);
        assert_eq!(distributed(&deployment(3), &sets), []);
    }

    #[test]
    fn scales_sets_in_proportion_during_a_rollout() {
        // 10 pods with surge 3: 8 old and 5 new are 13. Scaled to 20 with surge 5: 25 pods in the same proportion.
        let sets = Sets { new: Some(annotated("new", 5, 10, 13)), old: vec![annotated("old", 8, 10, 13)] };
        let expected = [("old".to_owned(), 15), ("new".to_owned(), 10)];
        assert_eq!(distributed(&rolling(20, "25%", "25%"), &sets), expected);
        // Scaling to 0 removes all pods.
        let expected = [("old".to_owned(), 0), ("new".to_owned(), 0)];
        assert_eq!(distributed(&rolling(0, "25%", "25%"), &sets), expected);
    }

    /// Larger than any set in the test cases, so that no set is saturated.
    const NEVER: i32 = 1000;

    proptest::proptest! {
        #[test]
        fn proportional_scaling_respects_the_bounds(
            sizes in proptest::collection::vec(1..50, 2..5), wanted in 0..100_i32, surge in 0..30_i32,
        ) {
            let total: i32 = sizes.iter().sum();
            let old = sizes[1..].iter().enumerate();
            let old = old.map(|(n, size)| annotated(&format!("old-{n}"), *size, NEVER, total)).collect();
            let sets = Sets { new: Some(annotated("new", sizes[0], NEVER, total)), old };
            let deployment = rolling(wanted, &surge.to_string(), "1");
            let resized = scale_proportionally(&deployment, &sets);
            let sum: i32 = resized.iter().map(|resize| resize.to).sum();
            let allowed = if wanted == 0 { 0 } else { wanted + surge };
            proptest::prop_assert!(resized.iter().all(|resize| resize.to >= 0));
            proptest::prop_assert_eq!(sum, allowed);
        }
    }
}
