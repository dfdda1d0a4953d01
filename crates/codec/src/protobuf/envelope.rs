//! What Kubernetes puts around messages: the `k8s\0` envelope, watch frames, lists of ready messages.

use super::{
    ProtobufError,
    wire::{Raw, Reader, put_bytes, put_message, put_varint},
};

/// The four bytes before every protobuf object that is stored or sent.
pub const PREFIX: &[u8; 4] = b"k8s\0";

/// `runtime.Unknown`: an object's message with what it lacks, its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// Such as `apps/v1`.
    pub api_version: &'a str,
    /// Such as `Deployment`.
    pub kind: &'a str,
    /// The object's message, or other bytes if `content_type` is not empty.
    pub raw: &'a [u8],
    /// Empty for bytes as they are.
    pub content_encoding: &'a str,
    /// Empty for protobuf.
    pub content_type: &'a str,
}

/// Whether `bytes` begin as an envelope does.
pub fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFIX)
}

/// Puts an object's message into an envelope.
pub fn wrap(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + api_version.len() + kind.len() + 32);
    wrap_into(api_version, kind, message, &mut out);
    out
}

/// Appends an object's message in an envelope to `out`.
pub fn wrap_into(api_version: &str, kind: &str, message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX);
    put_type(api_version, kind, out);
    put_bytes(out, 2, message);
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
}

/// Takes an envelope off.
pub fn unwrap(bytes: &[u8]) -> Result<Unknown<'_>, ProtobufError> {
    let message = bytes.strip_prefix(PREFIX).ok_or(ProtobufError::NoEnvelope)?;
    let mut unknown = Unknown::default();
    each_field(message, |number, bytes| {
        match number {
            1 => each_field(bytes, |number, bytes| {
                match number {
                    1 => unknown.api_version = text("apiVersion", bytes)?,
                    2 => unknown.kind = text("kind", bytes)?,
                    _ => {}
                }
                Ok(())
            })?,
            2 => unknown.raw = bytes,
            3 => unknown.content_encoding = text("contentEncoding", bytes)?,
            4 => unknown.content_type = text("contentType", bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(unknown)
}

/// A frame of a watch's stream: the length in four bytes, then a `WatchEvent` with an object in its envelope.
pub fn watch_frame(event_type: &str, wrapped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(wrapped.len() + event_type.len() + 24);
    out.extend_from_slice(&[0; 4]);
    put_bytes(&mut out, 1, event_type.as_bytes());
    let object = put_message(&mut out, 2, |out| {
        put_bytes(out, 1, wrapped);
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(()) = object;
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// The beginning of a list in its envelope, up to its first item: each item follows by [`put_list_item`], then
/// [`LIST_TAIL`]. `items` are the lengths of the items' messages, which come before them on the wire, so that a list
/// can be sent without being held.
pub fn list_head(
    api_version: &str,
    kind: &str,
    list_meta: &[u8],
    items: impl IntoIterator<Item = usize>,
) -> Vec<u8> {
    let mut meta = Vec::with_capacity(list_meta.len() + 4);
    put_bytes(&mut meta, 1, list_meta);
    let message_len = meta.len() + items.into_iter().map(|len| 1 + varint_len(len) + len).sum::<usize>();
    let mut out = Vec::with_capacity(meta.len() + api_version.len() + kind.len() + 32);
    out.extend_from_slice(PREFIX);
    put_type(api_version, kind, &mut out);
    put_varint(&mut out, 2 << 3 | 2);
    put_varint(&mut out, message_len as u64);
    out.extend_from_slice(&meta);
    out
}

/// What ends a list that [`list_head`] began: no content encoding, no content type.
pub const LIST_TAIL: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// Appends one item to a list.
pub fn put_list_item(item: &[u8], out: &mut Vec<u8>) {
    put_bytes(out, 2, item);
}

fn varint_len(value: usize) -> usize {
    (value.checked_ilog2().unwrap_or(0) as usize / 7) + 1
}

/// The message of a `ListMeta`.
pub fn list_meta(resource_version: &str, continue_token: &str, remaining: Option<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"");
    put_bytes(&mut out, 2, resource_version.as_bytes());
    put_bytes(&mut out, 3, continue_token.as_bytes());
    if let Some(remaining) = remaining {
        super::wire::put_int(&mut out, 4, remaining as u64);
    }
    out
}

/// The message of an object's `metadata`, which every object has as its first field.
pub fn metadata(message: &[u8]) -> Result<&[u8], ProtobufError> {
    let mut found: &[u8] = &[];
    each_field(message, |number, bytes| {
        if number == 1 {
            found = bytes;
        }
        Ok(())
    })?;
    Ok(found)
}

/// The message of a `PartialObjectMetadata` with this `metadata`.
pub fn partial_object_metadata(metadata: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(metadata.len() + 6);
    put_bytes(&mut out, 1, metadata);
    out
}

fn put_type(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    let written = put_message(out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(()) = written;
}

fn each_field<'a>(
    message: &'a [u8],
    mut take: impl FnMut(u32, &'a [u8]) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(message);
    while let Some((number, raw)) = reader.next()? {
        if let Raw::Bytes(bytes) = raw {
            take(number, bytes)?;
        }
    }
    Ok(())
}

fn text<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::NotUtf8(field.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_byte_for_byte_kubernetes_own() {
        let wrapped = wrap("v1", "Pod", &[1, 2]);
        assert_eq!(wrapped, b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x01\x02\x1a\x00\x22\x00");
        let unknown = Unknown { api_version: "v1", kind: "Pod", raw: &[1, 2], ..Unknown::default() };
        assert_eq!(unwrap(&wrapped), Ok(unknown));
        assert_eq!(unwrap(b"{}"), Err(ProtobufError::NoEnvelope));
        assert_eq!(unwrap(b"k8s\0\x0a\x09"), Err(ProtobufError::Truncated));
    }

    #[test]
    fn a_watch_frame_has_its_length_in_front() {
        assert_eq!(watch_frame("ADDED", b"xyz"), b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03xyz");
        let long = watch_frame("MODIFIED", &[7; 1000]);
        assert_eq!(u32::from_be_bytes(long[..4].try_into().unwrap()) as usize, long.len() - 4);
    }

    #[test]
    fn lists_are_made_of_ready_items() {
        let meta = list_meta("5", "", None);
        for items in [vec![], vec![b"ab".to_vec(), vec![]], vec![vec![7; 127], vec![7; 128], vec![7; 20_000]]]
        {
            let mut list = list_head("v1", "PodList", &meta, items.iter().map(Vec::len));
            for item in &items {
                put_list_item(item, &mut list);
            }
            list.extend_from_slice(LIST_TAIL);
            let mut message = Vec::new();
            put_bytes(&mut message, 1, &meta);
            for item in &items {
                put_bytes(&mut message, 2, item);
            }
            assert_eq!(list, wrap("v1", "PodList", &message));
            assert_eq!(metadata(unwrap(&list).unwrap().raw), Ok(&meta[..]));
        }
    }
}
