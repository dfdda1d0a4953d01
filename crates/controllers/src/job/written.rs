//! The latest job statuses that this controller has written and the cache may not show yet.
//!
//! Once the finalizer of a counted pod is removed, only the status counts it. A sync with the new pod and the old
//! status would not count the pod and would create another.

use std::collections::HashMap;

use nave_client::ObjectName;
use parking_lot::Mutex;

/// The latest written resource version of each job that the cache does not show yet.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<HashMap<ObjectName, u64>>);

impl Written {
    /// Records a written version. Ignores versions that are not numbers, which cannot be compared.
    pub(super) fn add(&self, job: ObjectName, version: &str) {
        if let Ok(version) = version.parse() {
            self.0.lock().insert(job, version);
        }
    }

    /// Returns whether the last write of a job is newer than the cached `version` (`None` if the job is not cached).
    /// The event of that write will enqueue the job.
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
    fn cache_is_stale_until_it_shows_the_last_write() {
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
