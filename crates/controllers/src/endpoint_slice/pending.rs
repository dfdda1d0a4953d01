//! Written slices that the cache does not show yet.
//!
//! A sync with a stale cache would write the same endpoints again into other slices.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use nave_client::ObjectName;
use parking_lot::Mutex;

/// The time after which a pending write is dropped: its event was lost, or the slice was deleted before a list returned
/// it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The interval of checks while waiting; an event of a slice causes an earlier sync.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The pending writes by service.
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
    /// Records a written slice. `cached` returns the version in the cache.
    pub(super) fn record_write(
        &self,
        service: &ObjectName,
        slice: &EndpointSlice,
        cached: impl FnOnce(&str) -> Option<String>,
    ) {
        let (Some(name), Some(version)) = (&slice.metadata.name, &slice.metadata.resource_version) else {
            return;
        };
        // Versions that are not numbers cannot be compared. The next sync does not wait for them, at the cost of a
        // redundant write.
        let Ok(version) = version.parse() else { return };
        // Reads the cache while holding the lock, so that no event is missed: a later event calls `record_seen`.
        let mut services = self.services.lock();
        if cached(name).is_some_and(|cached| cached.parse().is_ok_and(|seen: u64| seen >= version)) {
            return;
        }
        let written = Written { version, at: Instant::now() };
        services.entry(service.clone()).or_default().insert(name.clone(), written);
    }

    /// Records that the cache shows a version of a slice, or its deletion.
    pub(super) fn record_seen(&self, service: &ObjectName, name: &str, version: &str, is_gone: bool) {
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

    /// The time to wait before the next check; `None` if the cache is up to date.
    pub(super) fn wait(&self, service: &ObjectName) -> Option<Duration> {
        let mut services = self.services.lock();
        let slices = services.get_mut(service)?;
        slices.retain(|_, written| written.at.elapsed() < TIMEOUT);
        if slices.is_empty() {
            services.remove(service);
            return None;
        }
        Some(CHECK_INTERVAL)
    }

    /// Removes a deleted service.
    pub(super) fn forget(&self, service: &ObjectName) {
        self.services.lock().remove(service);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_until_all_writes_are_seen() {
        let pending = Pending::default();
        let service = ObjectName::new("ns", "svc");
        let slice = |name: &str, version: &str| {
            serde_json::from_value(
                json!({"metadata": {"name": name, "resourceVersion": version}, "addressType": "IPv4", "endpoints": []}),
            )
            .unwrap()
        };
        assert_eq!(pending.wait(&service), None);
        pending.record_write(&service, &slice("a", "7"), |_| None);
        pending.record_write(&service, &slice("b", "8"), |_| Some("7".to_owned()));
        pending.record_write(&service, &slice("c", "8"), |_| Some("8".to_owned()));
        pending.record_seen(&service, "a", "6", false);
        pending.record_seen(&service, "b", "9", false);
        assert!(pending.wait(&service).is_some() && pending.wait(&ObjectName::new("ns", "other")).is_none());
        pending.record_seen(&service, "a", "7", false);
        assert_eq!(pending.wait(&service), None);
        pending.record_write(&service, &slice("a", "10"), |_| None);
        pending.record_seen(&service, "a", "5", true);
        assert!(pending.wait(&service).is_none() && pending.services.lock().is_empty());
    }
}
