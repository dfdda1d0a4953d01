//! Encodes watch events as frames, in the accepted format and form.
//!
//! Watchers that accept the same form share one frame per event. Table frames are not shared, because only the first
//! frame includes the columns.

use bytes::{Buf, Bytes};
use futures_util::future::join_all;
use nave_cacher::{CachedObject, Delivery, Encoding, EventType};
use nave_codec::negotiate::{Accepted, Format, MetaVersion, Transform};
use nave_codec::{json, protobuf};
use nave_machinery::Status;
use serde_json::json;

use super::versions::{self, ServedRef};
use super::{Endpoint, encode};
use crate::body::Pieces;
use crate::negotiation::{IncludeObject, Negotiation};

/// Annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Maximum size of the frames encoded in one step, in bytes. The event that exceeds it is the last of the step.
const FRAMES_BYTES: usize = 256 << 10;

/// Number of objects of one watch that a webhook converts at a time.
pub(super) const CONVERSIONS: usize = 8;

/// Size of the length prefix of protobuf frames, in bytes.
pub(super) const LENGTH_PREFIX: usize = 4;

/// Returns the slot of metadata frames, whose numbers follow those of full objects.
fn metadata_slot(version: MetaVersion, format: Format) -> Encoding {
    let beta = usize::from(version == MetaVersion::V1Beta1);
    encode::encoding(encode::METADATA, 2 * usize::from(format == Format::Protobuf) + beta)
}

/// An event whose object has been converted.
enum Converted {
    /// The frame is kept.
    Frame(Bytes),
    /// The object's JSON, if a webhook converted it.
    Object(Option<Bytes>),
}

/// Encodes the frames of a watch.
pub struct Frames {
    endpoint: Endpoint,
    accepted: Accepted,
    include: IncludeObject,
    /// True until the columns of a table are sent.
    first: bool,
}

impl Frames {
    /// Creates the encoder of a watch.
    ///
    /// # Errors
    /// 406 if the client accepts no available form.
    pub fn new(endpoint: Endpoint, negotiation: &Negotiation) -> Result<Self, Status> {
        let accepted = negotiation.choose_frames(encode::encodings(&endpoint))?;
        Ok(Self { endpoint, accepted, include: negotiation.include(), first: true })
    }

    /// Returns the content type of the stream.
    pub fn content_type(&self) -> &'static str {
        self.accepted.format.stream_media_type()
    }

    /// Returns the format of the frames.
    pub fn format(&self) -> Format {
        self.accepted.format
    }

    /// Returns the frames of the next events, up to the size limit of a step. Watchers of the same form share each
    /// frame.
    ///
    /// # Errors
    /// 500 if an object cannot be encoded.
    pub fn events(&mut self, deliveries: &mut impl Iterator<Item = Delivery>) -> Result<Pieces, Status> {
        let mut frames = Pieces::default();
        while frames.remaining() < FRAMES_BYTES
            && let Some(delivery) = deliveries.next()
        {
            frames.extend([self.event(&delivery, None)?]);
        }
        Ok(frames)
    }

    /// Returns whether a webhook may have to convert the objects of the events.
    pub fn need_webhook(&self) -> bool {
        self.endpoint.converter().is_some()
    }

    /// As [`events`](Self::events), for objects that a webhook converts: the initial state in one call, events each in a
    /// call of its own, a few at a time. The frames end before the first event that cannot be converted, which is the
    /// error of the next step.
    ///
    /// # Errors
    /// 500 if the first object cannot be converted or encoded.
    pub async fn converted_events(
        &mut self,
        deliveries: &mut std::vec::IntoIter<Delivery>,
    ) -> Result<Pieces, Status> {
        let needs = |delivery: &Delivery| versions::needs_webhook(&self.endpoint, &delivery.object());
        if !deliveries.as_slice().iter().any(needs) {
            return self.events(deliveries);
        }
        let initial = deliveries.as_slice().iter().take_while(|delivery| delivery.is_initial());
        let initial: Vec<_> = initial.map(Delivery::object).collect();
        if !initial.is_empty() {
            let page = versions::read_page(&self.endpoint, initial).await?;
            let mut frames = Pieces::default();
            for object in page {
                let Some(delivery) = deliveries.next() else { break };
                frames.extend([self.event(&delivery, object.as_served().converted)?]);
            }
            return Ok(frames);
        }
        let ready = deliveries.as_slice().iter().take(CONVERSIONS).map(|delivery| self.convert(delivery));
        let ready = join_all(ready).await;
        let mut frames = Pieces::default();
        for converted in ready {
            let converted = match converted {
                Ok(converted) => converted,
                Err(_) if frames.remaining() > 0 => break,
                Err(status) => return Err(status),
            };
            let Some(delivery) = deliveries.next() else { break };
            frames.extend([match converted {
                Converted::Frame(frame) => frame,
                Converted::Object(object) => self.event(&delivery, object.as_ref())?,
            }]);
        }
        Ok(frames)
    }

    /// Converts the object of an event, unless its frame is kept.
    async fn convert(&self, delivery: &Delivery) -> Result<Converted, Status> {
        if let Some(frame) = self.slot().and_then(|slot| delivery.kept_frame(slot)) {
            return Ok(Converted::Frame(frame));
        }
        let object = versions::event_json(&self.endpoint, &delivery.object()).await?;
        Ok(Converted::Object(object))
    }

    /// Returns the frame of a bookmark: an object with only its kind and revision, and the annotation if the bookmark
    /// ends the initial events.
    ///
    /// # Errors
    /// 500 if the bookmark cannot be encoded.
    pub fn bookmark(&mut self, revision: u64, initial_events_end: bool) -> Result<Bytes, Status> {
        let gvk = self.endpoint.gvk();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({
            "kind": gvk.kind, "apiVersion": gvk.group_version().to_string(), "metadata": metadata
        });
        let first = std::mem::take(&mut self.first);
        let bytes = encode::bookmark_object(&self.endpoint, &object, self.accepted, first, self.include)?;
        Ok(self.frame("BOOKMARK", &bytes))
    }

    /// Returns the frame of an error, the last frame of the watch.
    pub fn error(&self, status: &Status) -> Bytes {
        let document = status.to_value();
        let object = match self.accepted.format {
            Format::Protobuf => encode::wrapped(&document).unwrap_or_default(),
            _ => json::encode(&encode::ordered(&document)),
        };
        self.frame("ERROR", &object)
    }

    /// Returns the frame of an event. `converted` is the object's JSON if a webhook converted it.
    fn event(&mut self, delivery: &Delivery, converted: Option<&Bytes>) -> Result<Bytes, Status> {
        let first = std::mem::take(&mut self.first);
        let Self { endpoint, accepted, include, .. } = &*self;
        let make = |kind: EventType, cached: &CachedObject| {
            let object = ServedRef { cached, converted };
            let bytes = match accepted.format {
                Format::Protobuf if accepted.transform.is_none() => {
                    let gvk = endpoint.gvk();
                    let message = encode::object_protobuf(endpoint, object)?;
                    protobuf::envelope::wrap(&gvk.group_version().to_string(), &gvk.kind, &message)
                }
                _ => encode::event_object(endpoint, object, *accepted, first, *include)?,
            };
            Ok::<_, Status>(self.frame(kind.as_str(), &bytes))
        };
        let frame = match self.slot() {
            Some(slot) => delivery.frame(slot, make)?,
            None => make(delivery.kind, &delivery.object())?,
        };
        self.endpoint.watched.event_sizes.observe(frame.len() as f64);
        Ok(frame)
    }

    /// Returns the slot in which the frame is shared; `None` for tables, which are not shared.
    fn slot(&self) -> Option<Encoding> {
        match (self.accepted.transform, self.accepted.format) {
            (None, Format::Protobuf) => Some(encode::protobuf_slot(&self.endpoint)),
            (None, _) => Some(encode::json_frame_slot(&self.endpoint)),
            (
                Some(
                    Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version),
                ),
                format,
            ) => Some(metadata_slot(version, format)),
            _ => None,
        }
    }

    fn frame(&self, event_type: &str, object: &[u8]) -> Bytes {
        if self.accepted.format == Format::Protobuf {
            return protobuf::envelope::watch_frame(event_type, object).into();
        }
        let mut frame = Vec::with_capacity(object.len() + event_type.len() + 24);
        frame.extend_from_slice(b"{\"type\":\"");
        frame.extend_from_slice(event_type.as_bytes());
        frame.extend_from_slice(b"\",\"object\":");
        frame.extend_from_slice(object);
        frame.extend_from_slice(b"}\n");
        frame.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, header};
    use nave_machinery::{GroupVersionResource, Value};
    use nave_resources::Registry;

    use super::*;
    use crate::request_info::Query;

    fn frames(accept: &'static str) -> Result<Frames, Status> {
        let registry = Registry::builtin(nave_schema::builtin());
        let def = Arc::clone(registry.lookup(&GroupVersionResource::new("", "v1", "pods")).unwrap());
        let endpoint = Endpoint { def, version: 0, storage: None, watched: Arc::default(), allocator: None };
        let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        Frames::new(endpoint, &Negotiation::new(&headers, &Query::default()))
    }

    fn object(frame: &Bytes) -> Value {
        let frame: Value = serde_json::from_slice(frame).unwrap();
        assert_eq!(frame["type"], "BOOKMARK");
        frame["object"].clone()
    }

    #[test]
    fn bookmarks_have_the_form_of_the_events() {
        let pod = object(&frames("application/json").unwrap().bookmark(7, true).unwrap());
        let annotations = json!({INITIAL_EVENTS_END: "true"});
        let metadata = json!({"resourceVersion": "7", "annotations": annotations});
        assert_eq!(pod, json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}));
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let partial = object(&frames(accept).unwrap().bookmark(7, false).unwrap());
        assert_eq!(partial["kind"], "PartialObjectMetadata");
        let mut tables = frames("application/json;as=Table;g=meta.k8s.io;v=v1").unwrap();
        let [first, second] = [7, 8].map(|revision| object(&tables.bookmark(revision, false).unwrap()));
        assert!(first["columnDefinitions"].is_array(), "the first table has the columns");
        assert!(!second["columnDefinitions"].is_array());
    }

    #[test]
    fn errors_are_frames_and_watches_have_no_yaml() {
        let frame = frames("application/json").unwrap().error(&Status::expired("gone"));
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!((&frame["type"], &frame["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert_eq!(frames("application/yaml").err().map(|status| status.code), Some(406));
    }
}
