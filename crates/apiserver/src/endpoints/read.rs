//! get and list: resourceVersion, resourceVersionMatch, limit and continue (upstream: `storage/cacher`, KEP-2340).
//!
//! | asked | answered from |
//! | --- | --- |
//! | nothing | the cache, once it has reached the store's present revision |
//! | `0` | the cache as it is |
//! | a revision, or `NotOlderThan` | the cache, once it has reached the revision |
//! | `Exact`, or a revision with a limit | that state: from memory while it is kept, else from the store |
//! | `continue` | the state the first page came from, the same way |

use std::sync::Arc;

use nave_cacher::{CachedObject, Filter, Snapshot};
use nave_machinery::options::{ListOptions, ResourceVersionMatch};
use nave_machinery::{Reason, Status};
use nave_resources::{list_prefix, storage_key};
use nave_store::{KeyValue, Range};

use super::answer::{Answer, List};
use super::continuation::Continuation;
use super::view::View;
use super::{Endpoint, selection};
use crate::request_info::ResourceRequest;
use crate::storage::ResourceStorage;

/// Objects read from the store at once when memory does not hold the state asked for.
const STORE_PAGE: usize = 10_000;

/// Reads one object.
///
/// # Errors
/// 404, or 504 where the revision asked for does not come.
pub async fn get(
    endpoint: &Endpoint,
    view: &View,
    request: &ResourceRequest,
    query: &[(String, String)],
) -> Result<Answer, Status> {
    let storage = endpoint.storage()?;
    let namespace = endpoint.def.namespaced.then_some(request.namespace.as_str());
    let key = storage_key(&endpoint.def, namespace, &request.name)
        .map_err(|_| Status::not_found(&endpoint.resource(), &request.name))?;
    wait_for(storage, ListOptions::parse(query)?.resource_version).await?;
    let found = storage.cacher().snapshot().get(&key).cloned();
    let object = found.ok_or_else(|| Status::not_found(&endpoint.resource(), &request.name))?;
    if let View::Scale(_) = view {
        let object = storage.codec().parse_cached(&object)?;
        return Ok(Answer::document(200, view.present(endpoint, object)?));
    }
    Ok(Answer::cached(endpoint, object))
}

/// Reads the objects that a request selects.
///
/// # Errors
/// 400 and 422 for what cannot be asked, 410 for a state that is no longer kept, 504 for one that does not come.
pub async fn list(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
) -> Result<Answer, Status> {
    let filter = selection::filter(&endpoint.def, request, options)?;
    let storage = endpoint.storage()?;
    let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let prefix =
        list_prefix(&endpoint.def, namespace).map_err(|error| Status::bad_request(error.to_string()))?;
    let continuation = Continuation::decode(&options.continue_token, &prefix)?;
    let scan = Scan {
        filter: &filter,
        start_after: continuation.as_ref().map(|continuation| continuation.start_after.as_str()),
        limit: options.limit,
    };
    let (page, snapshot) = match wanted(options, continuation.as_ref())? {
        Wanted::Latest => {
            storage.wait_until(storage.current_revision().await?).await?;
            scan.of_memory(storage.cacher().snapshot())
        }
        Wanted::NotOlderThan(revision) => {
            storage.wait_until(revision).await?;
            scan.of_memory(storage.cacher().snapshot())
        }
        Wanted::Exact(revision) => exact(storage, revision, &scan, &prefix)
            .await
            .map_err(|status| with_fresh_token(status, continuation.as_ref(), &prefix))?,
    };
    // How many remain is told only where nothing but the place in the list decides it.
    let selective = !options.label_selector.is_empty() || !options.field_selector.is_empty();
    let remaining = match (&page.next, &continuation, &snapshot) {
        (None, ..) => None,
        _ if selective => None,
        (_, Some(continuation), _) => {
            continuation.remaining.map(|rest| rest.saturating_sub(page.objects.len() as u64))
        }
        (_, None, Some(snapshot)) => Some((snapshot.count(namespace) - page.objects.len()) as u64),
        (_, None, None) => None,
    };
    if let (Some(snapshot), Some(_)) = (&snapshot, &page.next) {
        storage.cacher().keep(snapshot);
    }
    let continue_token = page.next.as_ref().map(|last| {
        let place = Continuation { revision: Some(page.revision), start_after: last.to_string(), remaining };
        place.encode(&prefix)
    });
    Ok(Answer::list(List {
        endpoint: endpoint.clone(),
        objects: page.objects,
        revision: page.revision,
        continue_token: continue_token.unwrap_or_default(),
        remaining,
    }))
}

/// The objects that a deletecollection selects, all of them, and the revision they are of: the latest.
///
/// # Errors
/// Those of [`list`].
pub async fn select(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
) -> Result<(Vec<Arc<CachedObject>>, u64), Status> {
    let filter = selection::filter(&endpoint.def, request, options)?;
    let storage = endpoint.storage()?;
    storage.wait_until(storage.current_revision().await?).await?;
    let snapshot = storage.cacher().snapshot();
    Ok((snapshot.select(&filter, None).cloned().collect(), snapshot.revision()))
}

/// Waits for what a read of the latest, any or a given state needs.
async fn wait_for(storage: &ResourceStorage, version: Option<u64>) -> Result<(), Status> {
    let revision = match version {
        None => storage.current_revision().await?,
        Some(revision) => revision,
    };
    storage.wait_until(revision).await
}

/// The state a list is to show.
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
        // A first page at a revision is exactly that revision, unless the client says otherwise.
        None if options.limit > 0 && revision > 0 => Wanted::Exact(revision),
        _ => Wanted::NotOlderThan(revision),
    })
}

/// One page of a list.
struct Page {
    objects: Vec<Arc<CachedObject>>,
    revision: u64,
    /// The key the next page starts after, where there is one.
    next: Option<Arc<str>>,
}

/// What of a state a page shows.
struct Scan<'a> {
    filter: &'a Filter,
    start_after: Option<&'a str>,
    /// 0 for no limit.
    limit: usize,
}

impl Scan<'_> {
    fn of_memory(&self, snapshot: Snapshot) -> (Page, Option<Snapshot>) {
        let revision = snapshot.revision();
        let mut selected = snapshot.select(self.filter, self.start_after);
        let objects: Vec<_> = match self.limit {
            0 => selected.by_ref().cloned().collect(),
            limit => selected.by_ref().take(limit).cloned().collect(),
        };
        let next = selected.next().and_then(|_| objects.last()).map(|last| Arc::clone(last.key()));
        drop(selected);
        (Page { objects, revision, next }, Some(snapshot))
    }

    /// Adds the selected ones of `items` to `page`; `false` once the page is full and there is more.
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

/// The state at exactly one revision: from memory if it is kept, else from the store.
async fn exact(
    storage: &ResourceStorage,
    revision: u64,
    scan: &Scan<'_>,
    prefix: &str,
) -> Result<(Page, Option<Snapshot>), Status> {
    storage.wait_until(revision).await?;
    if let Some(snapshot) = storage.cacher().snapshot_at(revision) {
        return Ok(scan.of_memory(snapshot));
    }
    let mut page = Page { objects: Vec::new(), revision, next: None };
    let start_after = scan.start_after.map(Arc::from);
    let mut range =
        Range { prefix: Arc::from(prefix), start_after, limit: STORE_PAGE, revision: Some(revision) };
    loop {
        let found = storage.range(range.clone()).await?;
        range.start_after = found.items.last().map(|kv| Arc::clone(&kv.key));
        if !scan.add(&mut page, storage, &found.items)? || !found.more {
            return Ok((page, None));
        }
    }
}

/// A page whose state is gone is refused with a token that goes on from there in the latest state.
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
