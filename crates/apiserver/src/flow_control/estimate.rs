//! The expected work of a request, from the watch caches and the watches of the server.

use nave_flowcontrol::Flow;
use nave_flowcontrol::estimate::{ListShape, ObjectStats, list, mutating};
use nave_flowcontrol::matching::RequestAttributes;
use nave_flowcontrol::watches::WatchCounts;
use nave_flowcontrol::work::WorkEstimate;
use nave_machinery::RequestedResource;
use nave_machinery::selector::FieldSelector;

use crate::catalog::Catalog;
use crate::request_info::{RequestInfo, ResourceRequest, Verb};

/// Estimates a request of a flow.
pub(super) fn estimate(
    info: &RequestInfo,
    catalog: &Catalog,
    watches: &WatchCounts,
    flow: &Flow,
) -> WorkEstimate {
    let Some(resource) = &info.resource else { return WorkEstimate::seats(1) };
    match info.verb {
        Verb::List | Verb::Watch => estimate_list(info, resource, catalog, flow.max_seats()),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => estimate_write(info, watches, flow),
        _ => WorkEstimate::seats(1),
    }
}

/// Returns the name and the node that a watch or list is restricted to by its field selector.
pub(super) fn watched_name(info: &RequestInfo) -> (Option<String>, Option<String>) {
    let Some(text) = info.query.get("fieldSelector").filter(|text| !text.is_empty()) else {
        return (None, None);
    };
    let Ok(selector) = FieldSelector::parse(text) else { return (None, None) };
    let exact = |field| selector.exact(field).map(str::to_owned);
    (exact("metadata.name"), exact("spec.nodeName"))
}

fn estimate_list(
    info: &RequestInfo,
    resource: &ResourceRequest,
    catalog: &Catalog,
    max_seats: u32,
) -> WorkEstimate {
    let query = |name| info.query.get(name).unwrap_or_default();
    let is_watch = info.verb == Verb::Watch;
    // A watch from a revision has no initial events.
    if is_watch && !info.query.flag("sendInitialEvents") && !matches!(query("resourceVersion"), "" | "0") {
        return WorkEstimate::seats(1);
    }
    // Resources that are unknown or have no objects here cost little.
    let storage = catalog.endpoint(&resource.gvr).and_then(|endpoint| endpoint.storage().ok());
    let Some(storage) = storage else { return WorkEstimate::seats(1) };
    let snapshot = storage.cacher().snapshot();
    let (count, bytes) = (snapshot.len() as u64, snapshot.bytes() as u64);
    let stats = ObjectStats { count, average_size: bytes.div_ceil(count.max(1)) };
    let limit = query("limit").parse().unwrap_or(0);
    let shape = ListShape {
        limit,
        has_selector: !query("labelSelector").is_empty() || !query("fieldSelector").is_empty(),
        from_cache: is_watch || is_from_cache(&query, limit),
        single: !resource.name.is_empty() || watched_name(info).0.is_some(),
    };
    list(stats, shape, max_seats)
}

/// Returns whether upstream serves a list from its watch cache (upstream: `storage/cacher/delegator`).
fn is_from_cache<'q>(query: &impl Fn(&'static str) -> &'q str, limit: u64) -> bool {
    match query("resourceVersionMatch") {
        "NotOlderThan" => true,
        "" => query("continue").is_empty() && (limit == 0 || matches!(query("resourceVersion"), "" | "0")),
        _ => false,
    }
}

/// Estimates a write by the watches that get its event. The token of a service account is not stored.
fn estimate_write(info: &RequestInfo, watches: &WatchCounts, flow: &Flow) -> WorkEstimate {
    let Some(resource) = info.resource() else { return WorkEstimate::seats(1) };
    if matches!(resource, RequestedResource { resource: "serviceaccounts", subresource: "token", .. }) {
        return WorkEstimate::seats(1);
    }
    let count = watches.concerned(&resource);
    flow.observe_watch_count(count);
    mutating(count, flow.max_seats())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn info(query: &str) -> RequestInfo {
        RequestInfo::new(&Method::GET, &format!("/api/v1/pods?{query}").parse().unwrap())
    }

    #[test]
    fn knows_the_lists_that_upstream_serves_from_its_cache() {
        for (query, cached) in [
            ("", true),
            ("limit=500", true),
            ("limit=500&resourceVersion=0", true),
            ("limit=500&resourceVersion=7", false),
            ("resourceVersion=7", true),
            ("resourceVersion=7&resourceVersionMatch=Exact", false),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan", true),
            ("limit=500&continue=x", false),
        ] {
            let info = info(query);
            let get = |name| info.query.get(name).unwrap_or_default();
            let limit = get("limit").parse().unwrap_or(0);
            assert_eq!(is_from_cache(&get, limit), cached, "{query}");
        }
    }

    #[test]
    fn reads_the_name_and_the_node_of_a_field_selector() {
        for (query, name, node) in [
            ("", None, None),
            ("fieldSelector=metadata.name%3Dp", Some("p"), None),
            ("fieldSelector=spec.nodeName%3Dn,metadata.name%3Dp", Some("p"), Some("n")),
            ("fieldSelector=metadata.name!%3Dp", None, None),
            ("fieldSelector=%3D%3D", None, None),
        ] {
            assert_eq!(
                watched_name(&info(query)),
                (name.map(str::to_owned), node.map(str::to_owned)),
                "{query}"
            );
        }
    }
}
