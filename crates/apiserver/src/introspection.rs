//! `/debug/api_cache`: the state of each watch cache, for administrators.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use nave_cacher::{EncodingBudget, FieldRef, Introspection, Route, WindowIntrospection};
use nave_resources::ResourceDef;
use serde::Serialize;

use crate::storage::{SharedParts, Storages};

/// The state of all watch caches.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiCache {
    /// The store's revision; `None` if the store does not respond.
    store_revision: Option<u64>,
    /// Budget of encodings made on demand.
    encodings: Budget,
    /// Budget of frames of recent events.
    frames: Budget,
    resources: Vec<ResourceCache>,
}

/// The used and the maximum number of bytes.
#[derive(Debug, Serialize)]
struct Budget {
    used: usize,
    limit: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceCache {
    resource: String,
    revision: u64,
    /// The number of revisions by which the cache lags behind the store.
    lag: Option<u64>,
    objects: usize,
    bytes: usize,
    window: Window,
    kept_snapshots: Vec<u64>,
    watchers: Vec<Bucket>,
    undecodable: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Window {
    oldest_revision: u64,
    newest_revision: u64,
    events: usize,
    capacity: usize,
    bytes: usize,
}

/// The watchers for one value of an indexed field; without a field, the watchers of all events.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Bucket {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    count: usize,
}

impl ApiCache {
    /// Collects the state of all caches.
    pub async fn collect(storages: &Storages) -> Self {
        // Reads the caches first, so that the store's revision is not older than theirs.
        let seen: Vec<_> = storages.all().map(|it| (it.def().as_ref(), it.cacher().introspect())).collect();
        let store_revision = storages.store().current_revision().await.ok();
        let resource = |(def, now)| ResourceCache::new(def, now, store_revision);
        let mut resources: Vec<_> = seen.into_iter().map(resource).collect();
        resources.sort_by(|one, other| one.resource.cmp(&other.resource));
        let SharedParts { encodings, frames, .. } = storages.shared();
        Self { store_revision, encodings: Budget::new(encodings), frames: Budget::new(frames), resources }
    }
}

impl Budget {
    fn new(budget: &EncodingBudget) -> Self {
        Self { used: budget.used(), limit: budget.limit() }
    }
}

impl ResourceCache {
    fn new(def: &ResourceDef, now: Introspection, store_revision: Option<u64>) -> Self {
        let bucket = |(route, count): &(Route, usize)| Bucket::new(def, route, *count);
        let mut watchers: Vec<_> = now.watchers.iter().map(bucket).collect();
        watchers.sort();
        Self {
            resource: now.resource.to_string(),
            revision: now.revision,
            lag: store_revision.map(|store| store.saturating_sub(now.revision)),
            objects: now.objects,
            bytes: now.bytes,
            window: Window::from(now.window),
            kept_snapshots: now.kept_snapshots,
            watchers,
            undecodable: now.undecodable.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<WindowIntrospection> for Window {
    fn from(window: WindowIntrospection) -> Self {
        Self {
            oldest_revision: window.oldest,
            newest_revision: window.newest,
            events: window.events,
            capacity: window.capacity,
            bytes: window.bytes,
        }
    }
}

impl Bucket {
    fn new(def: &ResourceDef, route: &Route, count: usize) -> Self {
        let field = path(def, route);
        let value = field.map(|_| route.value.to_string());
        Self { field: field.map(str::to_owned), value, count }
    }
}

/// Returns the path of the field of a bucket; `None` for the watchers of all events.
fn path<'d>(def: &'d ResourceDef, route: &Route) -> Option<&'d str> {
    Some(match route.field? {
        FieldRef::Name => "metadata.name",
        FieldRef::Namespace => "metadata.namespace",
        FieldRef::Declared(at) => def.fields.get(at).map_or("", |field| field.path.as_str()),
    })
}

/// The watchers for all values of an indexed field. The values are names of objects, which are no part of the state of
/// the server.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct FieldWatchers {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    count: usize,
}

impl FieldWatchers {
    /// Returns the fields with most watchers, at most `max`.
    pub(crate) fn largest(def: &ResourceDef, watchers: &[(Route, usize)], max: usize) -> Vec<Self> {
        let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for (route, count) in watchers {
            *counts.entry(path(def, route)).or_default() += count;
        }
        let counts = counts.into_iter().map(|(field, count)| Self { field: field.map(str::to_owned), count });
        let mut fields: Vec<Self> = counts.collect();
        fields.sort_by_key(|it| Reverse(it.count));
        fields.truncate(max);
        fields
    }
}
