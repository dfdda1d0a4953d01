//! Pods whose finalizer was removed although the cache still shows it.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::uid;

/// The UIDs of untracked pods. A UID is added before the finalizer is removed, and removed when the cache shows the
/// change.
#[derive(Debug, Default)]
pub(super) struct Untracked(Mutex<HashSet<String>>);

impl Untracked {
    pub(super) fn add(&self, uid: &str) {
        self.0.lock().insert(uid.to_owned());
    }

    /// Removes a pod: the cache shows the change, or the write failed.
    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Copies the current UIDs before it reads the pods; returns both. In the reverse order, a pod whose change reaches
    /// the cache in between would be counted twice.
    pub(super) async fn snapshot_before<P>(&self, read: impl Future<Output = P>) -> (HashSet<String>, P) {
        let all = self.0.lock().clone();
        (all, read.await)
    }

    /// The UIDs of the untracked pods among `pods`.
    pub(super) fn among(&self, pods: &[Pod]) -> HashSet<String> {
        let all = self.0.lock();
        pods.iter().map(uid).filter(|uid| all.contains(*uid)).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Observed;
    use super::super::count::Counts;
    use super::super::fixtures::{job, pod};
    use super::*;
    use crate::pods::fixtures::now;

    #[tokio::test]
    async fn counts_pod_once_if_the_cache_updates_between_reads() {
        let untracked = Untracked::default();
        untracked.add("uid-a");
        // The pods come from the old state of the cache; the handler of the new state runs right afterwards.
        let read = async {
            let pods = [pod("a", "Succeeded")];
            untracked.remove("uid-a");
            pods
        };
        let (all, pods) = untracked.snapshot_before(read).await;
        let mut job = job(&json!({"completions": 5}));
        job.status.as_mut().unwrap().succeeded = Some(1);
        let observed = Observed { job: &job, pods: &pods, untracked: &all, now: now() };
        assert_eq!(Counts::from_observed(&observed).succeeded, 1);
    }
}
