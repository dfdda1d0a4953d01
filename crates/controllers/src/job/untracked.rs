//! Pods that have no finalizer any more, though the cache does not know it yet.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::uid;

/// The uids of these pods. One is added before its finalizer is removed, and goes when the cache has seen that.
#[derive(Debug, Default)]
pub(super) struct Untracked(Mutex<HashSet<String>>);

impl Untracked {
    pub(super) fn add(&self, uid: &str) {
        self.0.lock().insert(uid.to_owned());
    }

    /// The cache has seen it, or it did not happen.
    pub(super) fn seen(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// All of them, and pods that are read afterwards. The order matters: a pod that is counted, and that the cache sees
    /// without its finalizer only in between, must not be counted again.
    pub(super) async fn before<P>(&self, read: impl Future<Output = P>) -> (HashSet<String>, P) {
        let all = self.0.lock().clone();
        (all, read.await)
    }

    /// Those of these pods.
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
    async fn a_pod_that_the_cache_sees_untracked_between_two_reads_is_counted_once() {
        let untracked = Untracked::default();
        untracked.add("uid-a");
        // The pods are of the cache's old state; the handler of the new one runs right after.
        let read = async {
            let pods = [pod("a", "Succeeded")];
            untracked.seen("uid-a");
            pods
        };
        let (all, pods) = untracked.before(read).await;
        let mut job = job(&json!({"completions": 5}));
        job.status.as_mut().unwrap().succeeded = Some(1);
        let observed = Observed { job: &job, pods: &pods, untracked: &all, now: now() };
        assert_eq!(Counts::of(&observed).succeeded, 1);
    }
}
