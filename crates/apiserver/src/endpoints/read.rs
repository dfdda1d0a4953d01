//! The verbs get and list: resourceVersion, resourceVersionMatch, limit and continue (upstream: `storage/cacher`,
//! KEP-2340).
//!
//! | request | source |
//! | --- | --- |
//! | no revision | the cache, once it has reached the store's current revision; the store if that takes too long |
//! | `0` | the cache as it is, with any limit |
//! | a revision, or `NotOlderThan` | the cache, once it has reached the revision |
//! | `Exact`, or a revision with a limit | exactly that state: from memory if it is kept, otherwise from the store |
//! | `continue` | the state of the first page, in the same way |

use std::sync::Arc;
use std::time::Instant;

use nave_cacher::{CachedObject, Filter, Snapshot};
use nave_machinery::options::{GetOptions, ListOptions, ResourceVersionMatch};
use nave_machinery::{Reason, Status, Value};
use nave_resources::{list_prefix, storage_key};
use nave_store::{KeyValue, Range};

use super::Endpoint;
use super::continuation::Continuation;
use super::response::{List, ObjectResponse};
use super::selection::Selection;
use super::served_selector::{CHUNK, ServedSelector};
use super::versions::{self, ServedObject};
use super::view::View;
use crate::request_info::ResourceRequest;
use crate::steps::{StepKind, Steps};
use crate::storage::{Latest, ResourceStorage, undecodable};

/// Number of objects per read from the store if the requested state is not in memory.
const STORE_PAGE: usize = 10_000;

/// Reads an object.
///
/// # Errors
/// 404, or 504 if the requested revision is not reached in time.
pub async fn get(
    endpoint: &Endpoint,
    view: &View,
    request: &ResourceRequest,
    query: &[(String, String)],
    steps: &Steps,
) -> Result<ObjectResponse, Status> {
    let storage = endpoint.storage()?;
    let namespace = endpoint.def.namespaced.then_some(request.namespace.as_str());
    let key = storage_key(&endpoint.def, namespace, &request.name)
        .map_err(|_| Status::not_found(&endpoint.resource(), &request.name))?;
    let requested = GetOptions::parse(query)?.resource_version;
    let found = match requested {
        None => {
            let started = Instant::now();
            let found = storage.get_latest(&key).await;
            steps.record(StepKind::Get, started);
            found?
        }
        Some(revision) => {
            storage.wait_until(revision).await?;
            let found = storage.cacher().snapshot().get(&key).cloned();
            if found.is_none() && storage.cacher().is_undecodable(&key) {
                return Err(undecodable(&key));
            }
            found
        }
    };
    let object = found.ok_or_else(|| Status::not_found(&endpoint.resource(), &request.name))?;
    if let View::Scale(paths) = view {
        let object = versions::read(endpoint, storage.codec().parse_cached(&object)?).await?;
        let scale = view.to_served(endpoint, object.clone())?;
        if endpoint.def.is_custom() {
            check_replicas(&object, &paths.spec_replicas)?;
        }
        return Ok(ObjectResponse::object(endpoint, 200, scale));
    }
    let served = if requested.is_some() {
        let page = versions::read_page(endpoint, vec![object]).await?;
        page.into_iter().next().ok_or_else(|| Status::internal("no object was read"))?
    } else {
        // As upstream, the latest state is converted for each request.
        versions::read_live(endpoint, object).await?
    };
    Ok(ObjectResponse::cached(endpoint, served))
}

/// Checks that a custom object has replicas; without them, its scale cannot be read (upstream:
/// `scaleFromCustomResource`).
fn check_replicas(object: &Value, path: &[String]) -> Result<(), Status> {
    let found = path.iter().try_fold(object, |place, part| place.get(part));
    if found.is_some() {
        return Ok(());
    }
    let path = path.join(".");
    Err(Status::internal(format!("the spec replicas field \".{path}\" does not exist")))
}

/// Reads the objects that a request selects.
///
/// # Errors
/// 400 or 422 for invalid options, 410 for a state that is no longer kept, 504 if a revision is not reached in time.
pub async fn list(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    steps: &Steps,
) -> Result<ObjectResponse, Status> {
    page(endpoint, request, options, steps).await.map(ObjectResponse::list)
}

/// Reads a page of the objects that a deletecollection selects. Reads the latest state, ignoring any requested
/// revision. Reads all objects if the request has no limit.
///
/// # Errors
/// See [`list`].
pub async fn select(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    steps: &Steps,
) -> Result<List, Status> {
    let latest = ListOptions { resource_version: None, resource_version_match: None, ..options.clone() };
    page(endpoint, request, &latest, steps).await
}

async fn page(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    steps: &Steps,
) -> Result<List, Status> {
    let Selection { cached: filter, served } = Selection::new(endpoint, request, options)?;
    let storage = endpoint.storage()?;
    let prefix = prefix(endpoint, request)?;
    let continuation = Continuation::decode(&options.continue_token, &prefix)?;
    // The number of remaining objects is reported only for lists without selectors.
    let selective = !options.label_selector.is_empty() || !options.field_selector.is_empty();
    let before = continuation.as_ref().and_then(|continuation| continuation.remaining);
    let scan = Scan {
        filter: &filter,
        counts_rest: !selective && before.is_none(),
        namespace: namespace(request),
        start_after: continuation.as_ref().map(|continuation| continuation.start_after.as_str()),
        limit: match limit(options) {
            limit if limit > 0 && !served.is_empty() => limit.max(CHUNK),
            limit => limit,
        },
    };
    let wanted = wanted(options, continuation.as_ref())?;
    let started = Instant::now();
    let found = scan.read(storage, wanted, &prefix).await;
    steps.record(StepKind::List, started);
    let (mut page, mut snapshot) =
        found.map_err(|status| with_fresh_token(status, continuation.as_ref(), &prefix))?;
    let mut narrowed = None;
    if !served.is_empty() {
        let chunk = (page, snapshot);
        let objects;
        (objects, page, snapshot) = scan.narrow(endpoint, &served, limit(options), chunk, &prefix).await?;
        narrowed = Some(objects);
    }
    let remaining = page.remaining.or(before.map(|rest| rest.saturating_sub(page.objects.len() as u64)));
    let remaining = remaining.filter(|_| page.next.is_some() && !selective);
    if let (Some(snapshot), Some(_)) = (&snapshot, &page.next) {
        storage.cacher().keep(snapshot);
    }
    let continue_token = page.next.as_ref().map(|last| {
        let place = Continuation { revision: Some(page.revision), start_after: last.to_string(), remaining };
        place.encode(&prefix)
    });
    let objects = match narrowed {
        Some(objects) => objects,
        None => versions::read_page(endpoint, page.objects).await?,
    };
    Ok(List {
        endpoint: endpoint.clone(),
        objects,
        revision: page.revision,
        continue_token: continue_token.unwrap_or_default(),
        remaining,
    })
}

/// Estimates the cost of a list before encoding, in bytes of input: the size of its query, or a byte per requirement
/// and examined object, whichever is larger. Checking a requirement takes about ten nanoseconds.
pub(super) fn size_of_list(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    query: &[(String, String)],
) -> usize {
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
    let of_all = endpoint.storage.as_ref().map_or(0, |it| it.cacher().snapshot().count(namespace(request)));
    let selectors = [value("labelSelector"), value("fieldSelector")];
    let selects = selectors.iter().any(|selector| !selector.is_empty());
    let objects = match value("limit").parse::<usize>() {
        Ok(limit) if limit > 0 && !selects && value("resourceVersion") != "0" => limit.min(of_all),
        _ => of_all,
    };
    let requirements = 1 + selectors.iter().map(|selector| selector.matches(',').count()).sum::<usize>();
    super::size_of_query(query).max(objects.saturating_mul(requirements))
}

/// Returns the namespace of a request; `None` for all namespaces.
fn namespace(request: &ResourceRequest) -> Option<&str> {
    Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty())
}

/// Returns the storage prefix of the requested objects.
fn prefix(endpoint: &Endpoint, request: &ResourceRequest) -> Result<String, Status> {
    list_prefix(&endpoint.def, namespace(request)).map_err(|error| Status::bad_request(error.to_string()))
}

/// Returns the page size; 0 for unlimited. As in upstream's watch cache, lists with `resourceVersion=0` are never
/// paged; clients rely on this.
fn limit(options: &ListOptions) -> usize {
    let any = options.resource_version == Some(0) && options.continue_token.is_empty();
    if any { 0 } else { options.limit }
}

/// The state that a list requests.
enum Wanted {
    Latest,
    NotOlderThan(u64),
    Exact(u64),
}

fn wanted(options: &ListOptions, continuation: Option<&Continuation>) -> Result<Wanted, Status> {
    if let Some(continuation) = continuation {
        if options.resource_version.is_some_and(|version| version != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return Ok(continuation.revision.map_or(Wanted::Latest, Wanted::Exact));
    }
    let Some(revision) = options.resource_version else { return Ok(Wanted::Latest) };
    Ok(match options.resource_version_match {
        Some(ResourceVersionMatch::Exact) => Wanted::Exact(revision),
        // As upstream, the first page of a limited list has exactly the requested revision by default.
        None if options.limit > 0 && revision > 0 => Wanted::Exact(revision),
        _ => Wanted::NotOlderThan(revision),
    })
}

/// A page of a list.
struct Page {
    objects: Vec<Arc<CachedObject>>,
    revision: u64,
    /// The key of the last object, if another page follows.
    next: Option<Arc<str>>,
    /// The number of objects after this page, selected or not, if known.
    remaining: Option<u64>,
}

/// Selects the objects of a page from a state.
struct Scan<'a> {
    filter: &'a Filter,
    namespace: Option<&'a str>,
    start_after: Option<&'a str>,
    /// The page size; 0 means unlimited.
    limit: usize,
    /// True if the number of objects after the page is needed and the continue token does not have it.
    counts_rest: bool,
}

impl Scan<'_> {
    /// Reads the wanted state.
    async fn read(
        &self,
        storage: &ResourceStorage,
        wanted: Wanted,
        prefix: &str,
    ) -> Result<(Page, Option<Snapshot>), Status> {
        match wanted {
            Wanted::Latest => self.latest(storage, prefix).await,
            Wanted::NotOlderThan(revision) => {
                storage.wait_until(revision).await?;
                Ok(self.memory(storage, storage.cacher().snapshot()))
            }
            Wanted::Exact(revision) => self.exact(storage, revision, prefix).await,
        }
    }

    /// Selects converted objects, from `chunk` and those that follow in the same state, until the page is full.
    async fn narrow(
        &self,
        endpoint: &Endpoint,
        served: &ServedSelector,
        limit: usize,
        chunk: (Page, Option<Snapshot>),
        prefix: &str,
    ) -> Result<(Vec<ServedObject>, Page, Option<Snapshot>), Status> {
        let storage = endpoint.storage()?;
        let (mut page, mut snapshot) = chunk;
        let mut selected: Vec<ServedObject> = Vec::new();
        loop {
            let next = page.next.take();
            for object in versions::read_page(endpoint, std::mem::take(&mut page.objects)).await? {
                if !served.matches(endpoint, object.as_served())? {
                    continue;
                }
                if limit > 0 && selected.len() == limit {
                    page.next = selected.last().map(|last| Arc::clone(last.cached.key()));
                    return Ok((selected, page, snapshot));
                }
                selected.push(object);
            }
            let Some(last) = next else { return Ok((selected, page, snapshot)) };
            if let Some(snapshot) = &snapshot {
                storage.cacher().keep(snapshot);
            }
            let rest = Scan { start_after: Some(&last), ..*self };
            (page, snapshot) = rest.exact(storage, page.revision, prefix).await?;
        }
    }

    /// Reads the latest state.
    async fn latest(
        &self,
        storage: &ResourceStorage,
        prefix: &str,
    ) -> Result<(Page, Option<Snapshot>), Status> {
        let consistent = storage.reads().consistent();
        match storage.latest().await? {
            Latest::Memory(snapshot) => {
                consistent.in_memory.add(1);
                Ok(self.memory(storage, snapshot))
            }
            Latest::Store(revision) => {
                let page = self.store(storage, revision, prefix).await;
                if page.is_ok() { &consistent.fallbacks } else { &consistent.failures }.add(1);
                Ok((page?, None))
            }
        }
    }

    /// Reads the state at exactly one revision: from memory if it is kept, otherwise from the store.
    async fn exact(
        &self,
        storage: &ResourceStorage,
        revision: u64,
        prefix: &str,
    ) -> Result<(Page, Option<Snapshot>), Status> {
        storage.wait_until(revision).await?;
        match storage.cacher().snapshot_at(revision) {
            Some(snapshot) => Ok(self.memory(storage, snapshot)),
            None => Ok((self.store(storage, revision, prefix).await?, None)),
        }
    }

    fn memory(&self, storage: &ResourceStorage, snapshot: Snapshot) -> (Page, Option<Snapshot>) {
        let revision = snapshot.revision();
        let mut selected = snapshot.select(self.filter, self.start_after);
        let objects: Vec<_> = match self.limit {
            0 => selected.by_ref().cloned().collect(),
            limit => selected.by_ref().take(limit).cloned().collect(),
        };
        let next = selected.next().and_then(|_| objects.last()).map(|last| Arc::clone(last.key()));
        storage.reads().cache(selected.index()).count(selected.examined(), objects.len());
        let is_first = self.start_after.is_none();
        // After the end of a token's state the rest is counted once; the next token has the number.
        let counts_rest = !is_first && self.counts_rest && next.is_some();
        let rest = counts_rest.then(|| 1 + selected.by_ref().count());
        drop(selected);
        let count = || snapshot.count(self.namespace).saturating_sub(objects.len());
        let remaining = if is_first { Some(count()) } else { rest };
        let remaining = remaining.map(|remaining| remaining as u64);
        (Page { objects, revision, next, remaining }, Some(snapshot))
    }

    async fn store(&self, storage: &ResourceStorage, revision: u64, prefix: &str) -> Result<Page, Status> {
        let mut page = Page { objects: Vec::new(), revision, next: None, remaining: None };
        let start_after = self.start_after.map(Arc::from);
        // Read one more object to find out whether another page follows.
        let limit = if self.limit > 0 { self.limit.saturating_add(1).min(STORE_PAGE) } else { STORE_PAGE };
        let mut range = Range { prefix: Arc::from(prefix), start_after, limit, revision: Some(revision) };
        let mut fetched = 0;
        loop {
            let found = storage.range(range.clone()).await?;
            fetched += found.items.len();
            if !self.add(&mut page, storage, &found.items)? || !found.more {
                let over = fetched.saturating_sub(page.objects.len()) as u64;
                page.remaining = found.remaining.map(|after| after + over);
                storage.reads().store().count(fetched, page.objects.len());
                return Ok(page);
            }
            range.start_after = found.items.last().map(|kv| Arc::clone(&kv.key));
            // Only some objects are selected, so read more per step.
            range.limit = (range.limit * 2).min(STORE_PAGE);
        }
    }

    /// Adds the selected `items` to `page`. Returns false if the page is full and more objects follow.
    fn add(&self, page: &mut Page, storage: &ResourceStorage, items: &[KeyValue]) -> Result<bool, Status> {
        for kv in items {
            let object = storage.cached(kv)?;
            if !self.filter.matches(&object) {
                continue;
            }
            if self.limit > 0 && page.objects.len() == self.limit {
                page.next = page.objects.last().map(|last| Arc::clone(last.key()));
                return Ok(false);
            }
            page.objects.push(Arc::new(object));
        }
        Ok(true)
    }
}

/// Adds a continue token to a 410 status. The list then continues in the latest state.
fn with_fresh_token(mut status: Status, continuation: Option<&Continuation>, prefix: &str) -> Status {
    if status.reason == Some(Reason::Expired)
        && let Some(continuation) = continuation
    {
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
            .clone_into(&mut status.message);
        let place = Continuation { revision: None, remaining: None, ..continuation.clone() };
        status.continue_token = place.encode(prefix);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pairs: &[(&str, &str)], continuation: Option<&Continuation>) -> Result<String, u16> {
        let query: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = wanted(&ListOptions::parse(&query).unwrap(), continuation);
        found.map_err(|status| status.code).map(|found| match found {
            Wanted::Latest => "latest".to_owned(),
            Wanted::NotOlderThan(revision) => format!("not older than {revision}"),
            Wanted::Exact(revision) => format!("exactly {revision}"),
        })
    }

    #[test]
    fn the_state_of_a_list_depends_on_its_options() {
        let seven = ("resourceVersion", "7");
        let latest = Continuation { revision: None, start_after: "a".to_owned(), remaining: None };
        let exact = Continuation { revision: Some(9), ..latest.clone() };
        for (query, continuation, expected) in [
            (&[][..], None, Ok("latest")),
            (&[("resourceVersion", "0")], None, Ok("not older than 0")),
            (&[("resourceVersion", "0"), ("limit", "5")], None, Ok("not older than 0")),
            (&[seven], None, Ok("not older than 7")),
            (&[seven, ("limit", "5")], None, Ok("exactly 7")),
            (
                &[seven, ("limit", "5"), ("resourceVersionMatch", "NotOlderThan")],
                None,
                Ok("not older than 7"),
            ),
            (&[seven, ("resourceVersionMatch", "Exact")], None, Ok("exactly 7")),
            (&[("limit", "5")], Some(&exact), Ok("exactly 9")),
            (&[("limit", "5")], Some(&latest), Ok("latest")),
            (&[("resourceVersion", "0")], Some(&exact), Ok("exactly 9")),
            (&[seven], Some(&exact), Err(400)),
        ] {
            assert_eq!(state(query, continuation), expected.map(str::to_owned), "{query:?}");
        }
    }
}
