//! Encodes documents of `meta.k8s.io` made from objects: `Table`, `PartialObjectMetadata` and its list.
//!
//! Objects are given as JSON bytes and copied unchanged; only the cells are encoded. A document starts with the list's
//! metadata, then rows or items are appended one by one. The caller can drain the writer after each of them, so that a
//! long list is sent without being held in memory.
//!
//! ```
//! use nave_codec::{negotiate::MetaVersion, table::{Column, ListMeta, RowObject, TableWriter}};
//!
//! let columns = [Column { name: "Name", kind: "string", format: "name", description: "", priority: 0 }];
//! let mut table = TableWriter::new(MetaVersion::V1, &ListMeta { resource_version: "7", ..Default::default() }, Some(&columns));
//! table.row(&["web".into()], None, RowObject::Metadata(br#"{"kind":"Pod","metadata":{"name":"web"}}"#));
//! let text = String::from_utf8(table.finish())?;
//! assert!(text.ends_with(r#""rows":[{"cells":["web"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"web"}}}]}"#));
//! # Ok::<(), std::string::FromUtf8Error>(())
//! ```

use nave_machinery::{Value, scan};
use serde::Serialize;

use crate::{json, negotiate::MetaVersion};

/// The `metadata` of a list.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta<'a> {
    /// The revision of the list.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub resource_version: &'a str,
    /// The continue token of the next page.
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    pub continue_token: &'a str,
    /// Number of items after this page, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Column<'a> {
    /// The title.
    pub name: &'a str,
    /// The OpenAPI type of the cells.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The OpenAPI format of the cells; `name` marks the primary column.
    pub format: &'a str,
    /// The description.
    pub description: &'a str,
    /// The priority: 0 for columns that are always shown, higher for columns of the wide output.
    pub priority: i32,
}

/// The object in a row (`includeObject`), made from the object's JSON.
#[derive(Clone, Copy, Debug)]
pub enum RowObject<'a> {
    /// No object.
    None,
    /// The metadata, as a `PartialObjectMetadata`.
    Metadata(&'a [u8]),
    /// The complete object.
    Object(&'a [u8]),
}

/// Encodes a `Table`.
#[derive(Debug)]
pub struct TableWriter {
    out: Vec<u8>,
    version: MetaVersion,
    first: bool,
}

impl TableWriter {
    /// Starts a table. Without `columns`, omits the column definitions, as in later events of a watch.
    pub fn new(version: MetaVersion, meta: &ListMeta<'_>, columns: Option<&[Column<'_>]>) -> Self {
        let mut out = begin("Table", version);
        out.extend_from_slice(b"\"metadata\":");
        json::encode_into(meta, &mut out);
        out.extend_from_slice(b",\"columnDefinitions\":");
        json::encode_into(&columns, &mut out);
        out.extend_from_slice(b",\"rows\":[");
        Self { out, version, first: true }
    }

    /// Appends a row. `conditions` is the list of conditions of the row, for example of a completed pod.
    pub fn row(&mut self, cells: &[Value], conditions: Option<&Value>, object: RowObject<'_>) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(b"{\"cells\":");
        json::encode_into(cells, &mut self.out);
        if let Some(conditions) = conditions {
            self.out.extend_from_slice(b",\"conditions\":");
            json::encode_into(conditions, &mut self.out);
        }
        self.out.extend_from_slice(b",\"object\":");
        match object {
            RowObject::None => self.out.extend_from_slice(b"null"),
            RowObject::Metadata(object) => put_metadata(self.version, object, &mut self.out),
            RowObject::Object(object) => self.out.extend_from_slice(object),
        }
        self.out.push(b'}');
    }

    /// Returns the bytes written since the last call.
    pub fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Ends the table and returns its remaining bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}

/// Encodes a `PartialObjectMetadataList`.
#[derive(Debug)]
pub struct MetadataListWriter {
    out: Vec<u8>,
    version: MetaVersion,
    first: bool,
}

impl MetadataListWriter {
    /// Starts a list.
    pub fn new(version: MetaVersion, meta: &ListMeta<'_>) -> Self {
        let mut out = begin("PartialObjectMetadataList", version);
        out.extend_from_slice(b"\"metadata\":");
        json::encode_into(meta, &mut out);
        out.extend_from_slice(b",\"items\":[");
        Self { out, version, first: true }
    }

    /// Appends the metadata of an object given as JSON.
    pub fn item(&mut self, object: &[u8]) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        put_metadata(self.version, object, &mut self.out);
    }

    /// Returns the bytes written since the last call.
    pub fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Ends the list and returns its remaining bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}

/// Returns the `PartialObjectMetadata` of an object given as JSON.
pub fn partial_object_metadata(version: MetaVersion, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    put_metadata(version, object, &mut out);
    out
}

fn begin(kind: &str, version: MetaVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    put_type(kind, version, &mut out);
    out
}

fn put_type(kind: &str, version: MetaVersion, out: &mut Vec<u8>) {
    for part in ["{\"kind\":\"", kind, "\",\"apiVersion\":\"", version.api_version(), "\","] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_metadata(version: MetaVersion, object: &[u8], out: &mut Vec<u8>) {
    put_type("PartialObjectMetadata", version, out);
    out.extend_from_slice(b"\"metadata\":");
    let metadata = scan::member(object, "metadata").and_then(|place| object.get(place));
    out.extend_from_slice(metadata.unwrap_or(b"{}"));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        json::decode(bytes).unwrap().value
    }

    #[test]
    fn encodes_a_table() {
        let columns =
            [Column { name: "Name", kind: "string", format: "name", description: "d", priority: 1 }];
        let meta = ListMeta { resource_version: "5", continue_token: "t", remaining_item_count: Some(2) };
        let mut table = TableWriter::new(MetaVersion::V1, &meta, Some(&columns));
        let object = br#"{"metadata":{"name":"a"},"x":1}"#;
        table.row(&[json!("a"), json!(1)], None, RowObject::None);
        let mut text = table.drain();
        table.row(&[], Some(&json!([{"type": "Completed"}])), RowObject::Object(object));
        table.row(&[], None, RowObject::Metadata(object));
        text.extend(table.finish());
        let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}});
        assert_eq!(
            parsed(&text),
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "5", "continue": "t", "remainingItemCount": 2},
                "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "d", "priority": 1}],
                "rows": [
                    {"cells": ["a", 1], "object": null},
                    {"cells": [], "conditions": [{"type": "Completed"}], "object": {"metadata": {"name": "a"}, "x": 1}},
                    {"cells": [], "object": partial},
                ],
            })
        );
    }

    #[test]
    fn encodes_a_metadata_list() {
        let mut list = MetadataListWriter::new(MetaVersion::V1Beta1, &ListMeta::default());
        list.item(br#"{"kind":"Pod","metadata":{"name":"a"}}"#);
        list.item(b"{}");
        let item = |metadata| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1beta1", "metadata": metadata});
        assert_eq!(
            parsed(&list.finish()),
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1beta1", "metadata": {},
                "items": [item(json!({"name": "a"})), item(json!({}))],
            })
        );
    }

    proptest! {
        #[test]
        fn members_are_found(value in json::tests::any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let Some(fields) = value.as_object() else {
                prop_assert_eq!(scan::member(&text, "a"), None);
                return Ok(());
            };
            for (name, value) in fields {
                // Names that need escapes are never searched for.
                if serde_json::to_string(name).unwrap().len() == name.len() + 2 {
                    let found = scan::member(&text, name).unwrap();
                    prop_assert_eq!(&serde_json::from_slice::<Value>(&text[found]).unwrap(), value);
                }
            }
        }

        #[test]
        fn encoding_never_panics(text in "[{}\\[\\]\"a:, \\\\]{0,40}") {
            put_metadata(MetaVersion::V1, text.as_bytes(), &mut Vec::new());
        }
    }
}
