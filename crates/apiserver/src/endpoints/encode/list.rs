//! Encodes lists from the encoded objects, while the client reads them.

use bytes::Bytes;
use futures_util::stream;
use nave_codec::negotiate::Format;
use nave_codec::table::ListMeta;
use nave_codec::{json, protobuf};
use nave_machinery::{Status, Value};
use serde_json::json;

use super::{
    Encoded, document_bytes, encodings, in_format, object_json, object_protobuf, parse, table, type_meta,
};
use crate::body::ResponseBody;
use crate::endpoints::Endpoint;
use crate::endpoints::response::List;
use crate::endpoints::versions::ServedObject;
use crate::negotiation::{Negotiation, Offer};

/// Size of the chunks in which a list is passed to the connection, in bytes.
const CHUNK: usize = 128 * 1024;

/// Encodes a list in the accepted form.
pub(super) fn encode(list: List, negotiation: &Negotiation) -> Result<Encoded, Status> {
    let accepted = negotiation.choose(Offer::List, encodings(&list.endpoint))?;
    match (accepted.transform, accepted.format) {
        (None, Format::Json) if !negotiation.pretty() => list_json(list),
        (None, Format::Protobuf) => list_protobuf(&list),
        (None, format) => {
            let bytes = list_value(&list)?;
            document_bytes(&bytes, 0, format, negotiation.pretty())
        }
        (Some(transform), format) => {
            let json = table::list(&list, transform, negotiation.include())?;
            in_format(json, format, negotiation)
        }
    }
}

/// Encodes a list of computed objects in the accepted form.
pub(super) fn computed(
    endpoint: &Endpoint,
    mut objects: Vec<Value>,
    negotiation: &Negotiation,
) -> Result<Encoded, Status> {
    let accepted = negotiation.choose(Offer::List, encodings(endpoint))?;
    if let Some(transform) = accepted.transform {
        let json = table::computed(endpoint, &objects, transform, negotiation.include())?;
        return in_format(json, accepted.format, negotiation);
    }
    for fields in objects.iter_mut().filter_map(Value::as_object_mut) {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    let list = json!({
        "kind": endpoint.def.list_kind,
        "apiVersion": endpoint.gvk().group_version().to_string(),
        "metadata": {},
        "items": objects,
    });
    document_bytes(&list, 0, accepted.format, negotiation.pretty())
}

/// Returns the beginning of the list, before its first item.
fn list_head(list: &List) -> Vec<u8> {
    let revision = list.revision.to_string();
    let mut head = b"{\"kind\":".to_vec();
    json::encode_into(&list.endpoint.def.list_kind, &mut head);
    head.extend_from_slice(b",\"apiVersion\":");
    json::encode_into(&list.endpoint.gvk().group_version().to_string(), &mut head);
    head.extend_from_slice(b",\"metadata\":");
    if list.endpoint.def.is_custom() {
        // As upstream, the metadata of custom lists have a token in any case.
        let (next, remaining) = (&list.continue_token, list.remaining);
        let mut meta = json!({"continue": next, "resourceVersion": revision});
        if let (Value::Object(fields), Some(remaining)) = (&mut meta, remaining) {
            fields.insert("remainingItemCount".to_owned(), json!(remaining));
        }
        json::encode_into(&meta, &mut head);
    } else {
        json::encode_into(&list_meta(list, &revision), &mut head);
    }
    head.extend_from_slice(b",\"items\":[");
    head
}

pub(super) fn list_meta<'a>(list: &'a List, revision: &'a str) -> ListMeta<'a> {
    ListMeta {
        resource_version: revision,
        continue_token: &list.continue_token,
        remaining_item_count: list.remaining.and_then(|remaining| i64::try_from(remaining).ok()),
    }
}

/// Encodes a list as JSON. The items' bytes are copied into chunks while the client reads them.
fn list_json(list: List) -> Result<Encoded, Status> {
    let head = list_head(&list);
    let List { endpoint, objects, .. } = list;
    let type_meta = type_meta(&endpoint);
    let mut first = true;
    let put = move |out: &mut Vec<u8>, item: &[u8]| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        put_item(out, item, type_meta.as_deref());
    };
    let body = if endpoint.is_storage_version() {
        let size = objects.iter().map(|object| object.cached.json_len() + 8).sum();
        chunked(head, objects.into_iter().map(|object| object.cached.json()), size, b"]}\n", put)
    } else {
        // Convert the objects before the response starts, so that a failure can still be reported.
        let items = objects
            .iter()
            .map(|object| object_json(&endpoint, object.as_served()))
            .collect::<Result<Vec<_>, _>>()?;
        let size = items.iter().map(|item| item.len() + 8).sum();
        chunked(head, items.into_iter(), size, b"]}\n", put)
    };
    Ok((Format::Json.media_type().into(), body))
}

/// Creates a body from a head, items of about `size` bytes together, and a tail: at once if it is small, otherwise in
/// chunks while the client reads them.
fn chunked(
    head: Vec<u8>,
    mut items: impl Iterator<Item = Bytes> + Send + 'static,
    size: usize,
    tail: &'static [u8],
    mut put: impl FnMut(&mut Vec<u8>, &[u8]) + Send + 'static,
) -> ResponseBody {
    let (mut next, mut left) = (Some(head), size);
    let mut chunks = std::iter::from_fn(move || {
        let mut out = next.take()?;
        out.reserve(left.min(CHUNK) + 4096);
        while out.len() < CHUNK {
            let Some(item) = items.next() else {
                out.extend_from_slice(tail);
                return Some(Bytes::from(out));
            };
            left = left.saturating_sub(item.len());
            put(&mut out, &item);
        }
        next = Some(Vec::new());
        Some(Bytes::from(out))
    });
    let first = chunks.next().unwrap_or_default();
    if first.len() < CHUNK {
        return first.into();
    }
    ResponseBody::stream(stream::iter(std::iter::once(first).chain(chunks)))
}

fn put_item(out: &mut Vec<u8>, item: &[u8], type_meta: Option<&[u8]>) {
    match type_meta.and_then(|head| item.strip_prefix(head)) {
        Some(rest) => {
            out.push(b'{');
            out.extend_from_slice(rest);
        }
        None => out.extend_from_slice(item),
    }
}

fn list_value(list: &List) -> Result<Value, Status> {
    let type_meta = type_meta(&list.endpoint);
    let item = |object: &ServedObject| {
        let mut bytes = Vec::new();
        put_item(&mut bytes, &object_json(&list.endpoint, object.as_served())?, type_meta.as_deref());
        parse(&bytes)
    };
    let items = list.objects.iter().map(item).collect::<Result<_, _>>()?;
    let mut head = list_head(list);
    head.extend_from_slice(b"]}");
    let mut value = parse(&head)?;
    value["items"] = Value::Array(items);
    Ok(value)
}

fn list_protobuf(list: &List) -> Result<Encoded, Status> {
    let items = list
        .objects
        .iter()
        .map(|object| object_protobuf(&list.endpoint, object.as_served()))
        .collect::<Result<Vec<_>, _>>()?;
    let remaining = list.remaining.and_then(|remaining| i64::try_from(remaining).ok());
    let meta = protobuf::envelope::list_meta(&list.revision.to_string(), &list.continue_token, remaining);
    let version = list.endpoint.gvk().group_version().to_string();
    let kind = &list.endpoint.def.list_kind;
    let head = protobuf::envelope::list_head(&version, kind, &meta, items.iter().map(Bytes::len));
    let size = items.iter().map(|item| item.len() + 8).sum();
    let body = chunked(head, items.into_iter(), size, protobuf::envelope::LIST_TAIL, |out, item| {
        protobuf::envelope::put_list_item(item, out);
    });
    Ok((Format::Protobuf.media_type().into(), body))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn written(items: usize, len: usize) -> (bool, Vec<u8>) {
        let items = vec![Bytes::from(vec![b'x'; len]); items];
        let mut first = true;
        let size = items.iter().map(|item| item.len() + 8).sum();
        let body = chunked(b"[".to_vec(), items.into_iter(), size, b"]", move |out, item| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(item);
        });
        let whole = matches!(body, ResponseBody::Full(_));
        (whole, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn large_lists_are_chunked() {
        for (items, len) in [(0, 0), (1, 10), (100, 10), (3, CHUNK), (1000, 1000)] {
            let (whole, bytes) = written(items, len).await;
            let expected = format!("[{}]", vec!["x".repeat(len); items].join(","));
            assert_eq!(bytes, expected.as_bytes(), "{items} of {len}");
            assert_eq!(whole, expected.len() < CHUNK, "{items} of {len}");
        }
    }

    #[test]
    fn items_of_built_in_kinds_omit_their_kind() {
        let head = br#"{"kind":"Pod","apiVersion":"v1","#;
        for (item, wanted) in [
            (r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#, r#"{"metadata":{}}"#),
            (r#"{"kind":"Other","metadata":{}}"#, r#"{"kind":"Other","metadata":{}}"#),
        ] {
            let mut out = Vec::new();
            put_item(&mut out, item.as_bytes(), Some(head));
            assert_eq!(out, wanted.as_bytes());
        }
    }
}
