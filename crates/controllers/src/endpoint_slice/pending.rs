//! Slices that were written and that the cache has yet to see.
//!
//! A sync that does not see what the one before wrote would write it again: endpoints would stand in two slices.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use nave_client::ObjectName;
use parking_lot::Mutex;

/// After so long what was written will not be seen any more: it was changed again before it was ever listed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Between looks whether it has been seen; seeing it brings one at once.
const LOOK: Duration = Duration::from_millis(500);

/// What is pending, by service.
#[derive(Debug, Default)]
pub(super) struct Pending {
    services: Mutex<HashMap<ObjectName, HashMap<String, Written>>>,
}

#[derive(Debug)]
struct Written {
    version: u64,
    at: Instant,
}

impl Pending {
    /// A slice was written; `cached` gives the version that the cache has of it.
    pub(super) fn wrote(
        &self,
        service: &ObjectName,
        slice: &EndpointSlice,
        cached: impl FnOnce(&str) -> Option<String>,
    ) {
        let (Some(name), Some(version)) = (&slice.metadata.name, &slice.metadata.resource_version) else {
            return;
        };
        // A version that is no number cannot be waited for; then a stale sync costs a write or two.
        let Ok(version) = version.parse() else { return };
        // The cache is read under the lock: what it does not have yet it will be told of after this.
        let mut services = self.services.lock();
        if cached(name).is_some_and(|cached| cached.parse().is_ok_and(|seen: u64| seen >= version)) {
            return;
        }
        let written = Written { version, at: Instant::now() };
        services.entry(service.clone()).or_default().insert(name.clone(), written);
    }

    /// The cache has seen a version of a slice, or that it is gone.
    pub(super) fn saw(&self, service: &ObjectName, name: &str, version: &str, is_gone: bool) {
        let mut services = self.services.lock();
        let Some(slices) = services.get_mut(service) else { return };
        let seen =
            |written: &Written| is_gone || version.parse().is_ok_and(|seen: u64| seen >= written.version);
        if slices.get(name).is_some_and(seen) {
            slices.remove(name);
        }
        if slices.is_empty() {
            services.remove(service);
        }
    }

    /// How long to wait for the cache before the next look; nothing once it has seen everything.
    pub(super) fn wait(&self, service: &ObjectName) -> Option<Duration> {
        let mut services = self.services.lock();
        let slices = services.get_mut(service)?;
        slices.retain(|_, written| written.at.elapsed() < TIMEOUT);
        if slices.is_empty() {
            services.remove(service);
            return None;
        }
        Some(LOOK)
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, service: &ObjectName) {
        self.services.lock().remove(service);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_waits_until_all_that_was_written_is_seen() {
        let pending = Pending::default();
        let service = ObjectName::new("ns", "svc");
        let slice = |name: &str, version: &str| {
            serde_json::from_value(
                json!({"metadata": {"name": name, "resourceVersion": version}, "addressType": "IPv4", "endpoints": []}),
            )
            .unwrap()
        };
        assert_eq!(pending.wait(&service), None);
        pending.wrote(&service, &slice("a", "7"), |_| None);
        pending.wrote(&service, &slice("b", "8"), |_| Some("7".to_owned()));
        pending.wrote(&service, &slice("c", "8"), |_| Some("8".to_owned()));
        pending.saw(&service, "a", "6", false);
        pending.saw(&service, "b", "9", false);
        assert!(pending.wait(&service).is_some() && pending.wait(&ObjectName::new("ns", "other")).is_none());
        pending.saw(&service, "a", "7", false);
        assert_eq!(pending.wait(&service), None);
        pending.wrote(&service, &slice("a", "10"), |_| None);
        pending.saw(&service, "a", "5", true);
        assert!(pending.wait(&service).is_none() && pending.services.lock().is_empty());
    }
}
