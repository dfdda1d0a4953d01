//! Which versions of jobs' statuses this controller has written, of which the cache may not know yet.
//!
//! Of a pod that was counted only the status tells, once its finalizer is gone. A sync that sees the pod as it is now
//! and the status as it was would miss it, and make another one in its place.

use std::collections::HashMap;

use nave_client::ObjectName;
use parking_lot::Mutex;

/// The latest version written of each job that is not in the cache yet.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<HashMap<ObjectName, u64>>);

impl Written {
    /// This version was written. Versions that are no numbers cannot be told apart, and are not waited for.
    pub(super) fn add(&self, job: ObjectName, version: &str) {
        if let Ok(version) = version.parse() {
            self.0.lock().insert(job, version);
        }
    }

    /// Returns whether the cache, which has `version` or nothing of the job, does not know yet what was written. Its event will
    /// tell.
    pub(super) fn is_ahead_of(&self, job: &ObjectName, version: Option<&str>) -> bool {
        let mut all = self.0.lock();
        let Some(written) = all.get(job) else { return false };
        let is_ahead = version.and_then(|it| it.parse::<u64>().ok()).is_some_and(|cached| cached < *written);
        if !is_ahead {
            all.remove(job);
        }
        is_ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_behind_until_it_has_what_was_written() {
        let (written, job) = (Written::default(), ObjectName::new("n", "j"));
        assert!(!written.is_ahead_of(&job, Some("7")));
        written.add(job.clone(), "9");
        assert!(written.is_ahead_of(&job, Some("7")) && written.is_ahead_of(&job, Some("8")));
        assert!(!written.is_ahead_of(&job, Some("9")));
        written.add(job.clone(), "12");
        assert!(!written.is_ahead_of(&job, None), "a job that is gone has nothing to wait for");
        assert!(written.0.lock().is_empty());
    }
}
