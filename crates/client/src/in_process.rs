//! [`CacherListerWatcher`]: lists and watches in the server's process, directly from a watch cache.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nave_cacher::{
    CachedObject, Cacher, Delivery, End, EventType, FieldRef, FieldTerm, Filter, WatchError, WatchItem,
    WatchRequest, WatchStart as Start, Watcher,
};
use nave_machinery::scan;
use nave_machinery::selector::{FieldSelector, LabelSelector};

use crate::list_watch::Scope;
use crate::{
    ListOptions, ListWatchError, ListerWatcher, Object, Page, WatchEvent, WatchOptions, WatchStart,
    WatchStream,
};

/// Lists and watches a resource of the server in this process. Objects share their bytes with the watch cache. They
/// are complete and in their storage version, but objects that the cache keeps compressed have only their metadata.
pub struct CacherListerWatcher {
    find: Box<dyn Fn() -> Option<Arc<Cacher>> + Send + Sync>,
    /// The filter, or the error that each list and watch returns if a selector is not supported.
    filter: Result<Filter, String>,
}

impl CacherListerWatcher {
    /// Lists and watches the objects of `cacher` that `filter` selects.
    pub fn new(cacher: Arc<Cacher>, filter: Filter) -> Self {
        Self { find: Box::new(move || Some(Arc::clone(&cacher))), filter: Ok(filter) }
    }

    /// Lists and watches the cache that `find` returns. Calls `find` for each request. Field selectors support
    /// `metadata.name` and `metadata.namespace`.
    pub fn finding(find: impl Fn() -> Option<Arc<Cacher>> + Send + Sync + 'static, scope: &Scope) -> Self {
        Self { find: Box::new(find), filter: filter(scope) }
    }

    /// Waits until the cache is ready and has reached the given version, if any, and returns the cache.
    async fn cache_at(&self, version: &str) -> Result<(Arc<Cacher>, Filter), ListWatchError> {
        let filter = self.filter.clone().map_err(ListWatchError::Invalid)?;
        let cacher = (self.find)().ok_or_else(|| ListWatchError::Status {
            code: 404,
            reason: "NotFound".to_owned(),
            message: "the server could not find the requested resource".to_owned(),
        })?;
        let wanted = if version.is_empty() { 0 } else { revision(version)? };
        cacher.wait_ready().await;
        let reached = cacher.wait_until(wanted, PATIENCE).await;
        reached.map_err(|error| ListWatchError::TooLargeResourceVersion(error.to_string()))?;
        Ok((cacher, filter))
    }
}

#[async_trait]
impl ListerWatcher for CacherListerWatcher {
    /// Returns all objects in one page, as paging would cost more than it saves.
    async fn list(&self, options: &ListOptions) -> Result<Page, ListWatchError> {
        let (cacher, filter) = self.cache_at(&options.resource_version).await?;
        let snapshot = cacher.snapshot();
        let items = snapshot.select(&filter, None).map(|object| object_of(object));
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            resource_version: snapshot.revision().to_string(),
            continue_token: String::new(),
        })
    }

    async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, ListWatchError> {
        let (cacher, filter, start) = match &options.start {
            WatchStart::After(version) => {
                let (cacher, filter) = self.cache_at("").await?;
                (cacher, filter, Start::After(revision(version)?))
            }
            WatchStart::InitialEvents(version) => {
                let (cacher, filter) = self.cache_at(version).await?;
                let start = Start::State(cacher.snapshot());
                (cacher, filter, start)
            }
        };
        let deadline = Some(tokio::time::Instant::now() + options.timeout);
        let request = WatchRequest { start, filter, bookmarks: true, deadline };
        let expired = |error: WatchError| ListWatchError::Expired(error.to_string());
        let watcher = cacher.watch(request).map_err(expired)?;
        Ok(stream::unfold(watcher, watch_events).flat_map(stream::iter).boxed())
    }

    fn streams_lists(&self) -> bool {
        false
    }
}

type WatchEvents = Vec<Result<WatchEvent, ListWatchError>>;

async fn watch_events(mut watcher: Watcher) -> Option<(WatchEvents, Watcher)> {
    let bookmark = |revision: u64, initial_events_end| {
        vec![Ok(WatchEvent::Bookmark { resource_version: revision.to_string(), initial_events_end })]
    };
    let events = match watcher.next().await {
        WatchItem::Events(deliveries) => deliveries.iter().map(event).collect(),
        WatchItem::InitialEventsEnd(revision) => bookmark(revision, true),
        WatchItem::Bookmark(revision) => bookmark(revision, false),
        WatchItem::End(End::TimedOut | End::Closed) => return None,
        WatchItem::End(End::Expired) => vec![Err(ListWatchError::Expired("the watch fell behind".into()))],
    };
    Some((events, watcher))
}

fn event(delivery: &Delivery) -> Result<WatchEvent, ListWatchError> {
    let object = object_of(&delivery.object())?;
    Ok(match delivery.kind {
        EventType::Added => WatchEvent::Added(object),
        EventType::Modified => WatchEvent::Modified(object),
        EventType::Deleted => WatchEvent::Deleted(object),
    })
}

fn object_of(object: &CachedObject) -> Result<Object, ListWatchError> {
    let json = object.json();
    // The objects of such a resource are too large for an informer to hold. All controllers need is the metadata.
    let json = if object.is_packed() { identity_of(&json) } else { json };
    Ok(Object::from_json(json)?)
}

/// Returns an object with only `kind`, `apiVersion` and `metadata`.
fn identity_of(json: &[u8]) -> Bytes {
    let mut identity = Vec::with_capacity(1024);
    for name in ["kind", "apiVersion", "metadata"] {
        let Some(value) = scan::member(json, name).and_then(|value| json.get(value)) else { continue };
        identity.extend_from_slice(if identity.is_empty() { b"{\"" } else { b",\"" });
        identity.extend_from_slice(name.as_bytes());
        identity.extend_from_slice(b"\":");
        identity.extend_from_slice(value);
    }
    identity.push(b'}');
    identity.into()
}

fn filter(scope: &Scope) -> Result<Filter, String> {
    let mut filter = Filter::all();
    if !scope.namespace.is_empty() {
        filter = filter.in_namespace(&scope.namespace);
    }
    let labels = LabelSelector::parse(&scope.labels).map_err(|error| error.to_string())?;
    if !labels.is_empty() {
        filter = filter.with_labels(labels);
    }
    let fields = FieldSelector::parse(&scope.fields).map_err(|error| error.to_string())?;
    for requirement in fields.requirements() {
        let field = match &*requirement.path {
            "metadata.name" => FieldRef::Name,
            "metadata.namespace" => FieldRef::Namespace,
            other => return Err(format!("field {other:?} is not supported by in-process field selectors")),
        };
        let value = requirement.value.as_str().into();
        filter = filter.with_term(FieldTerm { field, negated: requirement.negated, value });
    }
    Ok(filter)
}

fn revision(version: &str) -> Result<u64, ListWatchError> {
    version.parse().map_err(|_| ListWatchError::Invalid(format!("resourceVersion {version:?}")))
}

/// The time for which a list waits for its minimum version, as in the server's own lists.
const PATIENCE: Duration = Duration::from_secs(3);
