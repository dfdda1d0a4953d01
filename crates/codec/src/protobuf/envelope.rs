//! Containers of messages: the `k8s\0` envelope, watch frames, lists of encoded items.

use super::{
    ProtobufError,
    wire::{Raw, Reader, put_bytes, put_message, put_varint},
};

/// Magic bytes before every stored or transmitted protobuf object.
pub const PREFIX: &[u8; 4] = b"k8s\0";

/// `runtime.Unknown`: an object's message with its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The group and version, for example `apps/v1`.
    pub api_version: &'a str,
    /// The kind, for example `Deployment`.
    pub kind: &'a str,
    /// The message of the object, or other bytes if `content_type` is not empty.
    pub raw: &'a [u8],
    /// The encoding of `raw`; empty for unencoded bytes.
    pub content_encoding: &'a str,
    /// The media type of `raw`; empty for protobuf.
    pub content_type: &'a str,
}

/// Returns whether `bytes` start with an envelope.
pub fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFIX)
}

/// Wraps an object's message in an envelope.
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

/// Unwraps an envelope.
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

/// Returns a frame of a watch stream: the length in four bytes, then a `WatchEvent` with an enveloped object.
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

/// Returns the start of an enveloped list, up to the first item. The caller appends each item with [`put_list_item`],
/// then [`LIST_TAIL`]. `items` are the lengths of the items' messages. The encoding starts with the total length, so
/// knowing them allows sending a list without holding it in memory.
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

/// The end of a list started by [`list_head`]: no content encoding, no content type.
pub const LIST_TAIL: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// Appends an item to a list.
pub fn put_list_item(item: &[u8], out: &mut Vec<u8>) {
    put_bytes(out, 2, item);
}

fn varint_len(value: usize) -> usize {
    (value.checked_ilog2().unwrap_or(0) as usize / 7) + 1
}

/// Returns the message of a `ListMeta`.
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

/// Returns the message of an object's `metadata`, the first field of every object.
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

/// Returns the message of a `PartialObjectMetadata` with this `metadata`.
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
    fn envelope_equals_kubernetes_bytes() {
        let wrapped = wrap("v1", "Pod", &[1, 2]);
        assert_eq!(wrapped, b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x01\x02\x1a\x00\x22\x00");
        let unknown = Unknown { api_version: "v1", kind: "Pod", raw: &[1, 2], ..Unknown::default() };
        assert_eq!(unwrap(&wrapped), Ok(unknown));
        assert_eq!(unwrap(b"{}"), Err(ProtobufError::NoEnvelope));
        assert_eq!(unwrap(b"k8s\0\x0a\x09"), Err(ProtobufError::Truncated));
    }

    #[test]
    fn watch_frame_starts_with_its_length() {
        assert_eq!(watch_frame("ADDED", b"xyz"), b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03xyz");
        let long = watch_frame("MODIFIED", &[7; 1000]);
        assert_eq!(u32::from_be_bytes(long[..4].try_into().unwrap()) as usize, long.len() - 4);
    }

    #[test]
    fn builds_lists_of_encoded_items() {
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
