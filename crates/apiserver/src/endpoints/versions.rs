//! Custom objects between the version in which they are stored and the version of a request.
//!
//! | step | upstream |
//! | --- | --- |
//! | read: prune and default in the stored version, convert, prune in the version of the request | `crdConversionRESTOptionsGetter`'s decoder |
//! | write: convert, prune in the storage version | its encoder |
//!
//! A webhook converts a page of a list in one call, and each event of a watch in a call of its own, which all watchers
//! share. Its results are kept with the cached object within a budget, for lists and watches; other reads and all
//! writes ask it each time. Built-in objects and custom objects without a webhook are converted in place.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use nave_cacher::CachedObject;
use nave_codec::json;
use nave_machinery::limits::LimitError;
use nave_machinery::{GroupVersion, Reason, Status, Value, managed_fields, meta};

use super::{Endpoint, encode};
use crate::conversion::{BATCH_BYTES, BATCH_OBJECTS, ConversionError, Converter};

/// An object of the watch cache, with its JSON in the version of the endpoint if a webhook made it.
#[derive(Clone, Debug)]
pub struct ServedObject {
    /// The cached object.
    pub cached: Arc<CachedObject>,
    converted: Option<Bytes>,
}

/// A reference to a [`ServedObject`].
#[derive(Clone, Copy)]
pub(super) struct ServedRef<'a> {
    pub(super) cached: &'a CachedObject,
    pub(super) converted: Option<&'a Bytes>,
}

impl ServedObject {
    /// Returns a reference for the encoders.
    pub(super) fn as_served(&self) -> ServedRef<'_> {
        ServedRef { cached: &self.cached, converted: self.converted.as_ref() }
    }
}

impl ServedRef<'_> {
    /// Returns JSON with the object's metadata: as the webhook returned it, otherwise as stored.
    pub(super) fn metadata_json(self) -> Bytes {
        self.converted.cloned().unwrap_or_else(|| self.cached.json())
    }
}

/// An object on the way to the version of a request.
enum Read {
    Done(Value),
    NeedsWebhook(Value),
}

impl Endpoint {
    /// Returns the converter of the resource; `None` if no webhook is needed.
    pub(super) fn converter(&self) -> Option<&Arc<Converter>> {
        self.storage.as_ref()?.converter()
    }

    /// Returns the converter if the stored object has another version than the endpoint.
    fn converter_for(&self, object: &CachedObject) -> Option<&Arc<Converter>> {
        self.converter().filter(|_| !starts_with_type(&object.json(), self))
    }
}

/// Reads a stored object in the version of the endpoint.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(super) async fn read(endpoint: &Endpoint, object: Value) -> Result<Value, Status> {
    let converted = match read_in_place(endpoint, object)? {
        Read::Done(object) => return Ok(object),
        Read::NeedsWebhook(object) => {
            Box::pin(by_webhook(endpoint, vec![object], &endpoint.gvk().group_version())).await?
        }
    };
    converted.into_iter().next().ok_or_else(|| Status::internal("no object was converted"))
}

/// Reads a stored object of a resource whose conversion needs no webhook.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(crate) fn read_without_webhook(endpoint: &Endpoint, object: Value) -> Result<Value, Status> {
    match read_in_place(endpoint, object)? {
        Read::Done(object) => Ok(object),
        Read::NeedsWebhook(_) => Err(Status::internal("the object must be converted by the webhook")),
    }
}

/// Converts an object from the version of the endpoint to the storage version.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(super) async fn write(endpoint: &Endpoint, mut object: Value) -> Result<Value, Status> {
    let Some(storage) = endpoint.def.storage.as_ref().filter(|_| has_versions(endpoint)) else {
        return Ok(object);
    };
    let (from, to) = (endpoint.gvk().group_version(), &storage.version);
    if from != *to && endpoint.converter().is_some() {
        managed_fields::expand(&mut object);
        let converted = Box::pin(by_webhook(endpoint, vec![object], to)).await?;
        return converted.into_iter().next().ok_or_else(|| Status::internal("no object was converted"));
    }
    if from != *to {
        endpoint.def.strategy.convert(&mut object, &from, to).map_err(Status::internal)?;
    }
    if let Some(schema) = endpoint.def.schema(&to.version) {
        schema.coerce(&mut object);
    }
    Ok(object)
}

/// Converts a custom object to another version, as admission sees it. Returns other objects unchanged.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(crate) async fn convert_custom(
    endpoint: &Endpoint,
    mut object: Value,
    to: &GroupVersion,
) -> Result<Value, Status> {
    let from = GroupVersion::parse(meta::api_version(&object)).unwrap_or_default();
    if !endpoint.def.is_custom() || from == *to {
        return Ok(object);
    }
    let Some(converter) = endpoint.converter() else {
        endpoint.def.strategy.convert(&mut object, &from, to).map_err(Status::internal)?;
        return Ok(object);
    };
    managed_fields::expand(&mut object);
    let converted =
        Box::pin(converter.convert(vec![object], to)).await.map_err(ConversionError::into_status)?;
    converted.into_iter().next().ok_or_else(|| Status::internal("no object was converted"))
}

/// Reads objects of the watch cache in the version of the endpoint, from what is kept or with one call.
///
/// # Errors
/// 500 if an object cannot be converted.
pub(super) async fn read_page(
    endpoint: &Endpoint,
    objects: Vec<Arc<CachedObject>>,
) -> Result<Vec<ServedObject>, Status> {
    let mut page: Vec<ServedObject> = objects
        .into_iter()
        .map(|cached| ServedObject { converted: kept_json(endpoint, &cached), cached })
        .collect();
    if endpoint.converter().is_none() {
        return Ok(page);
    }
    let lacks = |served: &&mut ServedObject| {
        served.converted.is_none() && endpoint.converter_for(&served.cached).is_some()
    };
    let mut lacking: Vec<&mut ServedObject> = page.iter_mut().filter(lacks).collect();
    let cached: Vec<_> = lacking.iter().map(|served| Arc::clone(&served.cached)).collect();
    for (served, bytes) in lacking.iter_mut().zip(Box::pin(convert_cached(endpoint, &cached)).await?) {
        served.converted = Some(bytes);
    }
    Ok(page)
}

/// Reads one object of the watch cache, always with a call.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(super) async fn read_live(
    endpoint: &Endpoint,
    cached: Arc<CachedObject>,
) -> Result<ServedObject, Status> {
    let mut converted = None;
    if endpoint.converter_for(&cached).is_some() {
        converted =
            Some(json::encode(&Box::pin(read(endpoint, encode::parse(&cached.json())?)).await?).into());
    }
    Ok(ServedObject { cached, converted })
}

/// Returns whether a webhook must convert an object for the endpoint.
pub(super) fn needs_webhook(endpoint: &Endpoint, object: &CachedObject) -> bool {
    endpoint.converter_for(object).is_some()
}

/// Returns the JSON of the object of an event that a webhook must convert; `None` if no webhook is needed. Concurrent
/// callers share one call.
///
/// # Errors
/// 500 if the object cannot be converted.
pub(super) async fn event_json(
    endpoint: &Endpoint,
    object: &Arc<CachedObject>,
) -> Result<Option<Bytes>, Status> {
    let Some(converter) = endpoint.converter_for(object) else { return Ok(None) };
    if let Some(kept) = kept_json(endpoint, object) {
        return Ok(Some(kept));
    }
    let key = (Arc::clone(object.key()), object.resource_version(), endpoint.version);
    let call = || {
        let (endpoint, object) = (endpoint.clone(), Arc::clone(object));
        async move {
            let converted = convert_cached(&endpoint, &[object]).await?;
            converted.into_iter().next().ok_or_else(|| Status::internal("no object was converted"))
        }
        .boxed()
    };
    Box::pin(converter.share(key, call)).await.map(Some)
}

/// Returns what is kept of a conversion by the webhook.
fn kept_json(endpoint: &Endpoint, object: &CachedObject) -> Option<Bytes> {
    endpoint.converter_for(object)?;
    object.encoding(encode::json_frame_slot(endpoint), |_| Err(())).ok()
}

/// Converts cached objects by the webhook and keeps the results. Objects of many megabytes are converted in several
/// calls, so that few are in memory as trees at a time.
async fn convert_cached(endpoint: &Endpoint, cached: &[Arc<CachedObject>]) -> Result<Vec<Bytes>, Status> {
    let (mut rest, mut converted) = (cached, Vec::with_capacity(cached.len()));
    let slot = encode::json_frame_slot(endpoint);
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_length(rest));
        rest = after;
        let mut objects = Vec::with_capacity(batch.len());
        for object in batch {
            match read_in_place(endpoint, encode::parse(&object.json())?)? {
                Read::NeedsWebhook(object) | Read::Done(object) => objects.push(object),
            }
        }
        let values = Box::pin(by_webhook(endpoint, objects, &endpoint.gvk().group_version())).await?;
        for (object, value) in batch.iter().zip(values) {
            let bytes = Bytes::from(json::encode(&value));
            object.encoding(slot, |_| Ok::<_, Status>(bytes.clone()))?;
            converted.push(bytes);
        }
    }
    Ok(converted)
}

/// Returns the number of objects that are converted in one call.
fn batch_length(objects: &[Arc<CachedObject>]) -> usize {
    let mut bytes = 0;
    let fits = |object: &&Arc<CachedObject>| {
        let has_room = bytes < BATCH_BYTES;
        bytes += object.json_len();
        has_room
    };
    objects.iter().take(BATCH_OBJECTS).take_while(fits).count()
}

/// Converts objects by the webhook and prunes them in the new version.
async fn by_webhook(
    endpoint: &Endpoint,
    objects: Vec<Value>,
    to: &GroupVersion,
) -> Result<Vec<Value>, Status> {
    if objects.is_empty() {
        return Ok(objects);
    }
    let converter = endpoint.converter().ok_or_else(|| Status::internal("the resource has no webhook"))?;
    let mut converted = converter.convert(objects, to).await.map_err(ConversionError::into_status)?;
    if let Some(schema) = endpoint.def.schema(&to.version) {
        for object in &mut converted {
            // As upstream, malformed metadata of embedded resources is an error here.
            schema
                .decode(object)
                .map_err(|error| Status::failure(500, Reason::Unknown, error.to_string()))?;
        }
    }
    Ok(converted)
}

/// Reads an object as far as possible without a webhook.
fn read_in_place(endpoint: &Endpoint, mut object: Value) -> Result<Read, Status> {
    if !has_versions(endpoint) {
        return Ok(Read::Done(object));
    }
    let def = &endpoint.def;
    let from = GroupVersion::parse(meta::api_version(&object)).unwrap_or_default();
    let stored_schema = def.schema(&from.version);
    if let Some(schema) = stored_schema {
        schema.read(&mut object).map_err(LimitError::into_status)?;
    }
    let to = endpoint.gvk().group_version();
    if from == to {
        return Ok(Read::Done(object));
    }
    if endpoint.converter().is_some() {
        if stored_schema.is_none() {
            let why = format!("request to convert CR from an invalid group/version: {from}");
            return Err(Status::failure(500, Reason::Unknown, why));
        }
        return Ok(Read::NeedsWebhook(object));
    }
    def.strategy.convert(&mut object, &from, &to).map_err(Status::internal)?;
    if let Some(schema) = endpoint.version().custom() {
        schema.coerce(&mut object);
    }
    Ok(Read::Done(object))
}

/// Returns whether the objects of the endpoint may be stored in several versions.
fn has_versions(endpoint: &Endpoint) -> bool {
    endpoint.def.is_custom() && !endpoint.is_storage_version()
}

/// Returns whether the JSON of a cached object has the version and kind of the endpoint, which are its first fields.
fn starts_with_type(json: &[u8], endpoint: &Endpoint) -> bool {
    let def = &endpoint.def;
    let rest = json.strip_prefix(b"{\"kind\":\"");
    let rest = rest.and_then(|rest| rest.strip_prefix(def.kind.as_bytes()));
    let rest = rest.and_then(|rest| rest.strip_prefix(b"\",\"apiVersion\":\""));
    let rest = rest.and_then(|rest| rest.strip_prefix(def.group.as_bytes()));
    let rest = rest.and_then(|rest| rest.strip_prefix(b"/"));
    let rest = rest.and_then(|rest| rest.strip_prefix(endpoint.version().name.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}
