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

    /// All of them. Must be read before the pods: one that the cache sees in between is untracked in both.
    pub(super) fn all(&self) -> HashSet<String> {
        self.0.lock().clone()
    }

    /// Those of these pods.
    pub(super) fn among(&self, pods: &[Pod]) -> HashSet<String> {
        let all = self.0.lock();
        pods.iter().map(uid).filter(|uid| all.contains(*uid)).map(str::to_owned).collect()
    }
}
