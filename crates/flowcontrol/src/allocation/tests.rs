use proptest::prelude::*;

use super::*;

fn shares(nominal: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Shares {
    Shares { nominal, lendable_percent, borrowing_percent }
}

fn claim(nominal: u32, min: u32, max: u32, high_watermark: u32, smoothed: f64) -> Claim {
    let demand = DemandStats { high_watermark, smoothed, ..DemandStats::default() };
    Claim { limits: Limits { nominal, min, max }, demand, current: nominal, exempt: false }
}

/// The default configuration with 600 seats, as a real server reports it.
#[test]
fn the_suggested_levels_have_upstreams_limits() {
    for (share, lendable, nominal, min) in [
        (5, 0, 13, 13),
        (20, 50, 49, 24),
        (10, 0, 25, 25),
        (40, 25, 98, 73),
        (30, 33, 74, 50),
        (40, 50, 98, 49),
        (100, 90, 245, 24),
    ] {
        let limits = shares(share, lendable, None).limits(245, 600);
        assert_eq!(limits, Limits { nominal, min, max: nominal + 600 }, "{share}");
    }
    let bounded = shares(100, 90, Some(10)).limits(245, 600);
    assert_eq!(bounded.max, 270);
    assert_eq!(shares(0, 0, Some(50)).limits(245, 600), Limits::default());
    assert_eq!(shares(0, 0, None).limits(0, 600), Limits { nominal: 0, min: 0, max: 600 });
}

#[test]
fn idle_levels_lend_and_busy_levels_borrow() {
    // The second level lends 90 of its 100 seats, and the first may borrow 50.
    let busy = claim(100, 80, 150, 300, 300.0);
    let idle = claim(100, 10, 200, 0, 0.0);
    let allocation = adjust(&[busy, idle]);
    assert_eq!(allocation.limits, [150, 50]);
    // Both are busy: each keeps its nominal limit.
    let allocation = adjust(&[busy, claim(100, 10, 200, 300, 300.0)]);
    assert_eq!(allocation.limits, [100, 100]);
}

#[test]
fn the_exempt_level_takes_what_it_used() {
    let exempt = Claim { exempt: true, ..claim(0, 0, 600, 30, 500.0) };
    let (one, other) = (claim(50, 25, 100, 50, 50.0), claim(50, 25, 100, 50, 50.0));
    // 70 seats remain; both levels get the same part of the way from 25 to 50.
    assert_eq!(adjust(&[exempt, one, other]).limits, [30, 35, 35]);
    let exempt = Claim { exempt: true, ..claim(0, 0, 600, 80, 0.0) };
    assert_eq!(adjust(&[exempt, one, other]).limits, [80, 25, 25]);
}

#[test]
fn the_current_limits_stay_if_no_division_exists() {
    // All levels together may not have as many seats as there are.
    let level = Claim { current: 7, ..claim(10, 0, 4, 0, 0.0) };
    assert_eq!(adjust(&[level]).limits, [7]);
    assert_eq!(adjust(&[]), Allocation::default());
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (0.0..50.0_f64, 0.0..50.0_f64, 0.0..50.0_f64).prop_map(|(lower, more, above)| Item {
        lower: lower.floor(),
        upper: (lower + more).ceil(),
        target: (lower.floor() + above).max(MIN_TARGET),
    });
    proptest::collection::vec(item, 1..12)
}

proptest! {
    /// KEP-1040: the sum is met, and each level is at one of its bounds or at the common fraction of its target.
    #[test]
    fn divides_the_seats_by_the_published_formula(items in items(), part in 0.0..=1.0_f64) {
        let lower: f64 = items.iter().map(|item| item.lower).sum();
        let upper: f64 = items.iter().map(|item| item.upper).sum();
        let sum = (lower + (upper - lower) * part).round();
        let fraction = solve(sum, &items).unwrap();
        let seats: Vec<f64> = items.iter().map(|item| item.at(fraction)).collect();
        prop_assert!((seats.iter().sum::<f64>() - sum).abs() < 1e-3, "{seats:?} for {sum}");
        for (item, seats) in items.iter().zip(seats) {
            let fair = fraction * item.target;
            prop_assert!(
                (seats - fair).abs() < 1e-6
                    || item.lower > fair && (seats - item.lower).abs() < 1e-9
                    || item.upper < fair && (seats - item.upper).abs() < 1e-9
            );
        }
    }

    /// No level gets less than what it never lends or more than it may borrow.
    #[test]
    fn limits_stay_within_the_configuration(
        levels in proptest::collection::vec((0..200_u32, 0..=100_u32, proptest::option::of(0..300_u32), 0..900_u32, 0.0..900.0_f64), 1..10),
        seats in 1..1000_u32,
    ) {
        let sum = levels.iter().map(|level| u64::from(level.0)).sum();
        let claims: Vec<_> = levels.iter().map(|(nominal, lendable, borrowing, high_watermark, smoothed)| {
            let limits = shares(*nominal, *lendable, *borrowing).limits(sum, seats);
            let demand = DemandStats { high_watermark: *high_watermark, smoothed: *smoothed, ..DemandStats::default() };
            Claim { limits, demand, current: limits.nominal, exempt: false }
        }).collect();
        let allocation = adjust(&claims);
        for (claim, limit) in claims.iter().zip(&allocation.limits) {
            prop_assert!((claim.limits.min..=claim.limits.max).contains(limit), "{claim:?}: {limit}");
        }
        let total: u32 = claims.iter().map(|claim| claim.limits.nominal).sum();
        let given: u32 = allocation.limits.iter().sum();
        let rounding = claims.len() as u32;
        prop_assert!(given <= total + rounding && given + rounding >= total, "{given} of {total}");
    }
}
