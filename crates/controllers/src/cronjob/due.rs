//! Scheduled times of cron jobs.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use nave_machinery::schedule::{self, Schedule};

use crate::time_arithmetic::{saturating_add, saturating_sub};

/// The number of missed times above which a warning event is recorded.
const MANY_MISSED: i64 = 100;
/// Added to the wait for the next scheduled time, so that the sync does not run too early.
const MARGIN: Duration = Duration::from_millis(100);

/// An invalid schedule or time zone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSchedule {
    #[error("invalid timeZone: {0:?}: {1}")]
    TimeZone(String, String),
    #[error("unparseable schedule: {0:?} : {1}")]
    Schedule(String, String),
    /// The schedule never comes, such as on February 31. The text is upstream's.
    #[error("invalid schedule: {0} : time difference between two schedules is less than 1 second")]
    Never(String),
}

impl InvalidSchedule {
    /// The reason of the warning event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::TimeZone(..) => "UnknownTimeZone",
            Self::Schedule(..) => "UnparseableSchedule",
            Self::Never(_) => "InvalidSchedule",
        }
    }
}

/// A schedule in its time zone.
pub(super) struct ZonedSchedule {
    schedule: Schedule,
    pub(super) zone: TimeZone,
}

/// A due time of a cron job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The latest scheduled time that has passed without a job.
    pub(super) at: Timestamp,
    /// True if the starting deadline has also passed.
    pub(super) too_late: bool,
    /// True if more than [`MANY_MISSED`] times were missed.
    pub(super) many_missed: bool,
}

impl ZonedSchedule {
    /// Parses the schedule and time zone of a cron job; the default time zone is UTC.
    pub(super) fn from_spec(spec: &CronJobSpec) -> Result<Self, InvalidSchedule> {
        let zone = match &spec.time_zone {
            Some(name) => {
                schedule::time_zone(name).map_err(|why| InvalidSchedule::TimeZone(name.clone(), why))?
            }
            None => TimeZone::UTC,
        };
        let schedule = Schedule::parse(&spec.schedule)
            .map_err(|why| InvalidSchedule::Schedule(spec.schedule.clone(), why))?;
        if schedule.next(Timestamp::UNIX_EPOCH, &zone).is_none() {
            return Err(InvalidSchedule::Never(spec.schedule.clone()));
        }
        Ok(Self { schedule, zone })
    }

    /// The latest scheduled time since the last job, if it has passed.
    pub(super) fn due(&self, job: &CronJob, now: Timestamp) -> Option<Due> {
        let deadline = job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let earliest = earliest(job)?;
        // Bounds the work: skips times whose starting deadline has passed.
        let from = deadline.map_or(earliest, |deadline| earliest.max(saturating_sub(now, deadline)));
        let at = self.schedule.last(from, now, &self.zone)?;
        let too_late = deadline.is_some_and(|deadline| saturating_add(at, deadline) < now);
        Some(Due { at, too_late, many_missed: self.misses(from, at) > MANY_MISSED })
    }

    /// The time until the next scheduled time.
    pub(super) fn next_in(&self, job: &CronJob, now: Timestamp) -> Option<Duration> {
        let earliest = earliest(job)?;
        let last = self.schedule.last(earliest, now, &self.zone).unwrap_or(earliest);
        let next = self.schedule.next(last, &self.zone)?;
        Some(Duration::try_from(now.duration_until(next)).unwrap_or(Duration::ZERO) + MARGIN)
    }

    /// The approximate number of scheduled times between two points in time.
    fn misses(&self, from: Timestamp, to: Timestamp) -> i64 {
        let first = self.schedule.next(from, &self.zone);
        let second = first.and_then(|first| self.schedule.next(first, &self.zone));
        let (Some(first), Some(second)) = (first, second) else { return 0 };
        first.duration_until(to).as_secs() / first.duration_until(second).as_secs().max(1)
    }
}

/// The end of the time range that needs no job: the last scheduled time, or the creation of the cron job.
fn earliest(job: &CronJob) -> Option<Timestamp> {
    let last = job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    last.or(job.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_schedule_that_never_comes_is_invalid() {
        for (schedule, reason) in [
            ("59 23 31 2 *", Some("InvalidSchedule")),
            ("59 23 29 2 *", None),
            ("59 23 31 2", Some("UnparseableSchedule")),
        ] {
            let found = ZonedSchedule::from_spec(&cron_job(&json!({"schedule": schedule}), None).spec);
            assert_eq!(found.err().map(|error| error.reason()), reason, "{schedule}");
        }
    }

    fn cron_job(spec: &Value, last: Option<&str>) -> CronJob {
        let mut job = json!({
            "metadata": {"name": "tick", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "*/10 * * * *", "jobTemplate": {}}, "status": {}
        });
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        if let Some(last) = last {
            job["status"]["lastScheduleTime"] = json!(last);
        }
        serde_json::from_value(job).unwrap()
    }

    fn due(spec: &Value, last: Option<&str>, now: &str) -> Option<(String, bool, bool)> {
        let job = cron_job(spec, last);
        let calendar = ZonedSchedule::from_spec(&job.spec).unwrap();
        let due = calendar.due(&job, now.parse().unwrap())?;
        Some((due.at.to_string(), due.too_late, due.many_missed))
    }

    #[test]
    fn latest_passed_time_is_due_once() {
        let none = json!({});
        assert_eq!(due(&none, None, "2026-01-01T00:09:59Z"), None);
        let at = |text: &str| Some((text.to_owned(), false, false));
        assert_eq!(due(&none, None, "2026-01-01T00:35:00Z"), at("2026-01-01T00:30:00Z"));
        assert_eq!(due(&none, Some("2026-01-01T00:30:00Z"), "2026-01-01T00:35:00Z"), None);
        let many = Some(("2026-01-03T00:00:00Z".to_owned(), false, true));
        assert_eq!(due(&none, None, "2026-01-03T00:05:00Z"), many);
    }

    #[test]
    fn deadline_excludes_older_times() {
        let deadline = json!({"startingDeadlineSeconds": 60});
        let at = Some(("2026-01-03T00:00:00Z".to_owned(), false, false));
        assert_eq!(due(&deadline, None, "2026-01-03T00:00:30Z"), at);
        assert_eq!(due(&deadline, None, "2026-01-03T00:05:00Z"), None);
    }

    #[test]
    fn extreme_deadlines_and_times_do_not_overflow() {
        let now = "2026-01-03T00:05:00Z";
        for schedule in ["*/10 * * * *", "@every 2562047h", "0 0 31 12 *"] {
            for deadline in [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX] {
                for last in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                    let spec = json!({"schedule": schedule, "startingDeadlineSeconds": deadline});
                    let found = due(&spec, Some(&last.to_string()), now);
                    assert!(found.is_none() || last != Timestamp::MAX, "{spec} {last}");
                    let job = cron_job(&spec, Some(&last.to_string()));
                    ZonedSchedule::from_spec(&job.spec).unwrap().next_in(&job, now.parse().unwrap());
                }
            }
        }
        let unbounded = json!({"startingDeadlineSeconds": i64::MAX});
        let at = Some(("2026-01-03T00:00:00Z".to_owned(), false, true));
        assert_eq!(due(&unbounded, None, now), at);
    }

    #[test]
    fn waits_for_the_next_time() {
        let job = cron_job(&json!({"timeZone": "Asia/Kolkata", "schedule": "0 6 * * *"}), None);
        let calendar = ZonedSchedule::from_spec(&job.spec).unwrap();
        // 06:00 in Kolkata is 00:30 in UTC.
        let wait = calendar.next_in(&job, "2026-01-01T00:29:00Z".parse().unwrap());
        assert_eq!(wait, Some(Duration::from_millis(60_100)));
        let wait = calendar.next_in(&job, "2026-01-05T00:29:00Z".parse().unwrap());
        assert_eq!(wait, Some(Duration::from_millis(60_100)));
    }

    #[test]
    fn reports_invalid_schedules_and_time_zones() {
        let error = |spec: &Value| match ZonedSchedule::from_spec(&cron_job(spec, None).spec) {
            Ok(_) => panic!("readable"),
            Err(why) => (why.reason(), why.to_string()),
        };
        let zone = error(&json!({"timeZone": "Mars/Base"}));
        assert_eq!(
            zone,
            ("UnknownTimeZone", "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base".to_owned())
        );
        assert_eq!(error(&json!({"schedule": "often"})).0, "UnparseableSchedule");
    }
}
