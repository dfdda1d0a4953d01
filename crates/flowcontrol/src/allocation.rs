//! Seats of the priority levels: nominal limits from shares, and limits that follow the demand by lending and borrowing
//! (KEP-1040, upstream: `flowcontrol/conc_alloc.go`, `apf_controller.go`).

use crate::demand::DemandStats;

/// A smaller target counts as this much, so that levels without demand still have a share.
const MIN_TARGET: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// The configured limits of a priority level, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The level's part of the server's seats.
    pub nominal: u32,
    /// The seats that are never lent.
    pub min: u32,
    /// The seats with all that may be borrowed.
    pub max: u32,
}

/// The part of a priority level's specification that determines its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Weight in the division of the server's seats.
    pub nominal: u32,
    /// Percentage of the nominal limit that other levels may borrow.
    pub lendable_percent: u32,
    /// Percentage of the nominal limit that this level may borrow; `None` without a limit.
    pub borrowing_percent: Option<u32>,
}

impl Shares {
    /// Returns the limits of a level with these shares, of `sum` shares in total and `seats` in total. Nominal limits
    /// are rounded up, so their sum may be a little more than the seats.
    pub fn limits(&self, sum: u64, seats: u32) -> Limits {
        if sum == 0 {
            return Limits { max: seats, ..Limits::default() };
        }
        let nominal = (f64::from(seats) * f64::from(self.nominal) / sum as f64).ceil() as u32;
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrowing = self.borrowing_percent.map_or(seats, percent);
        Limits {
            nominal,
            min: nominal.saturating_sub(percent(self.lendable_percent)),
            max: nominal.saturating_add(borrowing),
        }
    }
}

/// The input of an adjustment for one level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// The configured limits.
    pub limits: Limits,
    /// The demand for seats.
    pub demand: DemandStats,
    /// The limit until now, kept if no allocation exists.
    pub current: u32,
    /// True for the exempt level, which takes what it needs.
    pub exempt: bool,
}

/// The result of an adjustment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// The limit of each level, in the order of the claims.
    pub limits: Vec<u32>,
    /// The target of each level.
    pub targets: Vec<f64>,
    /// The fraction of its target that each level gets that is at none of its bounds.
    pub fair_fraction: f64,
}

impl Claim {
    /// The seats that the level keeps in this adjustment: what it used, up to its nominal limit.
    fn minimum(&self) -> u32 {
        let used = self.demand.high_watermark;
        self.limits.min.max(if self.exempt { used } else { used.min(self.limits.nominal) })
    }

    fn target(&self) -> f64 {
        f64::from(self.minimum()).max(if self.exempt { 0.0 } else { self.demand.smoothed })
    }
}

/// Divides the sum of the nominal limits among the levels by their demand.
///
/// Exempt levels take the seats they used. If what remains does not cover the minimums of the other levels, all get the
/// same part of the way to them; otherwise [`solve`] divides it. As upstream, the division is of the whole sum.
pub fn adjust(claims: &[Claim]) -> Allocation {
    let sum: u32 = claims.iter().map(|claim| claim.limits.nominal).sum();
    let exempt: u32 = claims.iter().filter(|claim| claim.exempt).map(Claim::minimum).sum();
    let limited = || claims.iter().filter(|claim| !claim.exempt);
    let remaining = i64::from(sum) - i64::from(exempt);
    let lowest: i64 = limited().map(|claim| i64::from(claim.limits.min)).sum();
    let minimums: i64 = limited().map(|claim| i64::from(claim.minimum())).sum();
    let targets = claims.iter().map(Claim::target).collect();
    let divide = |share: &dyn Fn(&Claim) -> u32| {
        claims.iter().map(|claim| if claim.exempt { claim.minimum() } else { share(claim) }).collect()
    };
    if remaining <= lowest {
        return Allocation { limits: divide(&|claim| claim.limits.min), targets, fair_fraction: 0.0 };
    }
    if remaining <= minimums {
        let part = (remaining - lowest) as f64 / (minimums - lowest) as f64;
        let share = |claim: &Claim| {
            let above = f64::from(claim.minimum() - claim.limits.min) * part;
            claim.limits.min + above.round() as u32
        };
        return Allocation { limits: divide(&share), targets, fair_fraction: 0.0 };
    }
    let items: Vec<_> = limited().map(Item::new).collect();
    let Some(fraction) = solve(f64::from(sum), &items) else {
        return Allocation { limits: divide(&|claim| claim.current), targets, fair_fraction: 0.0 };
    };
    let share = |claim: &Claim| Item::new(claim).at(fraction).round() as u32;
    Allocation { limits: divide(&share), targets, fair_fraction: fraction }
}

/// One level in the division of seats.
#[derive(Clone, Copy, Debug)]
struct Item {
    lower: f64,
    upper: f64,
    target: f64,
}

impl Item {
    fn new(claim: &Claim) -> Self {
        let (lower, upper) = (f64::from(claim.minimum()), f64::from(claim.limits.max));
        Self { lower, upper, target: claim.target().max(MIN_TARGET) }
    }

    /// The seats at a fair fraction: that fraction of the target, within the bounds.
    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target).min(self.upper).max(self.lower)
    }
}

/// Returns the fair fraction at which the seats of all items add up to `sum`; `None` if the bounds do not allow it.
///
/// The seats as a function of the fraction are piecewise linear and never fall. The search finds the last bound at which
/// they do not exceed the sum; the rest of the way is a straight line.
fn solve(sum: f64, items: &[Item]) -> Option<f64> {
    let total = |fraction: f64| items.iter().map(|item| item.at(fraction)).sum::<f64>();
    let lower: f64 = items.iter().map(|item| item.lower).sum();
    let upper: f64 = items.iter().map(|item| item.upper).sum();
    if lower - sum > EPSILON || sum - upper > EPSILON || items.iter().any(|item| item.upper < item.lower) {
        return None;
    }
    let bounds = items.iter().flat_map(|item| [item.lower / item.target, item.upper / item.target]);
    let mut bounds: Vec<f64> = bounds.collect();
    bounds.sort_by(f64::total_cmp);
    let reached = bounds.partition_point(|bound| total(*bound) <= sum);
    let start = reached.checked_sub(1).and_then(|at| bounds.get(at)).or(bounds.first()).copied()?;
    let growing = items.iter().filter(|item| item.lower <= start * item.target + EPSILON);
    let slope: f64 =
        growing.filter(|item| item.upper > start * item.target + EPSILON).map(|item| item.target).sum();
    let rest = (sum - total(start)).max(0.0);
    Some(if slope > 0.0 { start + rest / slope } else { start })
}

#[cfg(test)]
mod tests;
