//! Units of work: seats, and seats held for a time.

use std::fmt;
use std::time::Duration;

/// The number of units in one seat-second, as in upstream's dumps (`flowcontrol/request/seat_seconds.go`).
const SCALE: f64 = 1e8;

/// Service time that fair queuing assumes before a request has finished.
pub const ESTIMATED_SERVICE_TIME: Duration = Duration::from_millis(3);

/// Work: seats held for a time, in fixed point. The range is large enough for any uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatSeconds(pub(crate) i128);

/// The expected work of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkEstimate {
    /// Seats held while the request runs.
    pub initial_seats: u32,
    /// Seats held after the request, for the additional latency.
    pub final_seats: u32,
    /// Time for which the final seats are held. The client does not wait for it.
    pub additional_latency: Duration,
}

impl SeatSeconds {
    /// Returns the work of holding seats for a time.
    pub fn product(seats: f64, time: Duration) -> Self {
        Self((seats * time.as_nanos() as f64 / (1e9 / SCALE)).round() as i128)
    }

    /// Returns the time in which the seats do this work; zero without seats.
    pub fn time_with(self, seats: f64) -> Duration {
        Duration::try_from_secs_f64(self.as_f64() / seats).unwrap_or_default()
    }

    /// Returns the value in seat-seconds.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / SCALE
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Formats as in upstream's dumps: `1.50000000ss`.
impl fmt::Display for SeatSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, units) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:08}ss", units / 100_000_000, units % 100_000_000)
    }
}

impl WorkEstimate {
    /// Returns the estimate of a request that holds seats only while it runs.
    pub fn seats(seats: u32) -> Self {
        Self { initial_seats: seats, final_seats: 0, additional_latency: Duration::ZERO }
    }

    /// Returns the seats to reserve: the maximum of both phases.
    pub fn max_seats(&self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }

    /// Returns the work of the second phase.
    pub(crate) fn final_work(&self) -> SeatSeconds {
        SeatSeconds::product(self.final_seats.into(), self.additional_latency)
    }

    /// Returns the work of both phases.
    pub(crate) fn total_work(&self) -> SeatSeconds {
        SeatSeconds::product(self.initial_seats.into(), ESTIMATED_SERVICE_TIME).plus(self.final_work())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_divides_work() {
        let work = SeatSeconds::product(3.0, Duration::from_millis(500));
        assert_eq!(work.to_string(), "1.50000000ss");
        assert_eq!(SeatSeconds(-150_000_001).to_string(), "-1.50000001ss");
        assert_eq!(work.time_with(2.0), Duration::from_millis(750));
        assert_eq!(work.time_with(0.0), Duration::ZERO);
    }

    #[test]
    fn adds_the_work_of_both_phases() {
        let estimate =
            WorkEstimate { initial_seats: 1, final_seats: 4, additional_latency: Duration::from_millis(5) };
        assert_eq!(estimate.max_seats(), 4);
        assert_eq!(estimate.total_work().to_string(), "0.02300000ss");
    }
}
