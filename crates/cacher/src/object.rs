//! An object in the cache: its wire form and the values that selectors use.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nave_machinery::packed::Packed;
use nave_store::KeyValue;

use crate::memo::{Encoding, EncodingBudget, Memo};

/// Decodes stored bytes. Implemented by the crate that knows the resource's types.
pub trait Decoder: Send + Sync + 'static {
    /// Decodes one stored version. Called once per version, on the resource's own task, without locks.
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError>;
}

/// The result of a [`Decoder`].
#[derive(Clone, Debug)]
pub struct DecodedObject {
    /// The object's JSON, with `metadata.resourceVersion` set to the version's `mod_revision`.
    pub json: Bytes,
    /// Position in `json` of the digits of `metadata.resourceVersion`. In the last state of a deleted object, the
    /// revision of the deletion replaces them.
    pub version_at: usize,
    /// The values that selectors use.
    pub attributes: SelectableAttributes,
}

/// Error: a stored version cannot be decoded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The values of a resource's selectable fields, in declared order, and the object's labels, sorted by key. They share
/// one allocation, because each memory location makes a scan slower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectableAttributes {
    /// The end position of each part, in [`END`] characters of seven bits each, followed by the parts: the field
    /// values, then the key and value of each label.
    text: Box<str>,
    fields: u32,
    parts: u32,
    marks: LabelMarks,
}

impl SelectableAttributes {
    /// Packs field values and labels. Labels may be in any order.
    pub fn new<'a>(
        fields: impl IntoIterator<Item = &'a str>,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut parts: Vec<_> = fields.into_iter().collect();
        let fields = parts.len();
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        let mark =
            |marks: LabelMarks, (key, value): &(&str, &str)| marks.and(LabelMarks::for_label(key, value));
        let marks = labels.iter().fold(LabelMarks::default(), mark);
        parts.extend(labels.into_iter().flat_map(|(key, value)| [key, value]));
        let length = parts.iter().map(|part| END + part.len()).sum();
        let (mut text, mut end) = (String::with_capacity(length), 0);
        for part in &parts {
            end += part.len();
            text.extend((0..END).rev().map(|at| char::from((end >> (7 * at)) as u8 & 0x7f)));
        }
        text.extend(parts.iter().copied());
        Self { text: text.into(), fields: fields as u32, parts: parts.len() as u32, marks }
    }

    /// Returns the value of the declared field `index`; empty if the field does not exist.
    pub fn field(&self, index: usize) -> &str {
        if index < self.fields as usize { self.part(index) } else { "" }
    }

    /// Returns the labels in key order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        (self.fields as usize..self.parts as usize).step_by(2).map(|at| (self.part(at), self.part(at + 1)))
    }

    /// Returns the value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        // Comparing lengths first excludes most labels without reading them.
        let mut start = (self.fields as usize).checked_sub(1).map_or(0, |last| self.end(last));
        for at in (self.fields as usize..self.parts as usize).step_by(2) {
            if self.end(at) - start == key.len() && self.part(at) == key {
                return Some(self.part(at + 1));
            }
            start = self.end(at + 1);
        }
        None
    }

    /// Returns whether the object may have labels with these marks. Does not read the labels, which are elsewhere in
    /// memory, so most unselected objects are skipped cheaply.
    pub(crate) fn may_have(&self, marks: LabelMarks) -> bool {
        self.marks.0 & marks.0 == marks.0
    }

    fn part(&self, index: usize) -> &str {
        let first = self.parts as usize * END;
        let start = index.checked_sub(1).map_or(0, |before| self.end(before));
        self.text.get(first + start..first + self.end(index)).unwrap_or_default()
    }

    fn end(&self, index: usize) -> usize {
        let digits = self.text.as_bytes().get(index * END..(index + 1) * END).unwrap_or_default();
        digits.iter().fold(0, |end, digit| end << 7 | usize::from(*digit))
    }
}

/// Number of characters for the end of a part. Enough for 256 MiB, far more than any object needs.
const END: usize = 4;

/// Bloom filter of labels in 64 bits: may report false positives, never false negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelMarks(u64);

impl LabelMarks {
    pub(crate) fn for_label(key: &str, value: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        Self(1 << (hasher.finish() % 64))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A version of an object.
#[derive(Debug)]
pub struct CachedObject {
    key: Arc<str>,
    /// Position of the namespace in the key; the name follows the namespace.
    namespace_at: u32,
    name_at: u32,
    version_at: u32,
    resource_version: u64,
    json: Json,
    attributes: SelectableAttributes,
    encodings: Memo<Encoding>,
}

/// The JSON of an object, as the cache keeps it.
#[derive(Debug)]
enum Json {
    Plain(Bytes),
    /// Shared with other users of the JSON.
    Packed(Arc<Packed>),
}

impl Json {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(json) => json.clone(),
            Self::Packed(json) => json.unpack().into(),
        }
    }
}

impl CachedObject {
    /// Creates the object of a decoded stored version. Also used to read states that are only in the store.
    pub fn new(
        kv: &KeyValue,
        namespaced: bool,
        decoded: DecodedObject,
        budget: &Arc<EncodingBudget>,
    ) -> Result<Self, DecodeError> {
        let (namespace, name) = name_in_key(&kv.key, namespaced);
        let object = Self {
            key: Arc::clone(&kv.key),
            namespace_at: namespace.start as u32,
            name_at: name.start as u32,
            version_at: decoded.version_at as u32,
            resource_version: kv.mod_revision,
            json: Json::Plain(decoded.json),
            attributes: decoded.attributes,
            encodings: Memo::new(Arc::clone(budget)),
        };
        let json = object.json.bytes();
        if json.get(object.version_range()) == Some(kv.mod_revision.to_string().as_bytes()) {
            Ok(object)
        } else {
            Err(DecodeError(format!("no resourceVersion {} at byte {}", kv.mod_revision, decoded.version_at)))
        }
    }

    /// Compresses the JSON, for objects that are large and rarely read.
    #[must_use]
    pub fn packed(self) -> Self {
        let json = match self.json {
            Json::Plain(json) => Json::Packed(Arc::new(Packed::new(&json))),
            packed @ Json::Packed(_) => packed,
        };
        Self { json, ..self }
    }

    /// Returns a copy with a different `resourceVersion`, for the last state of a deleted object.
    pub(crate) fn with_resource_version(&self, revision: u64) -> Self {
        let digits = self.version_range();
        let stamp = revision.to_string();
        let json = self.json.bytes();
        let json = [&json[..digits.start], stamp.as_bytes(), &json[digits.end..]].concat();
        let copy = Self {
            key: Arc::clone(&self.key),
            namespace_at: self.namespace_at,
            name_at: self.name_at,
            version_at: self.version_at,
            resource_version: revision,
            json: Json::Plain(json.into()),
            attributes: self.attributes.clone(),
            encodings: Memo::new(self.encodings.budget()),
        };
        if self.is_packed() { copy.packed() } else { copy }
    }

    /// Returns the key in the store.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Returns the namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        let end = (self.name_at as usize).saturating_sub(1);
        self.key.get(self.namespace_at as usize..end).unwrap_or_default()
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.key[self.name_at as usize..]
    }

    /// Returns the revision of the transaction that wrote this version.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// Returns the JSON wire form. Copies a pointer, unless the object [is packed](Self::is_packed).
    pub fn json(&self) -> Bytes {
        self.json.bytes()
    }

    /// Returns the length of the JSON.
    pub fn json_len(&self) -> usize {
        match &self.json {
            Json::Plain(json) => json.len(),
            Json::Packed(json) => json.len(),
        }
    }

    /// Returns whether the JSON is kept compressed, so that each call of [`json`](Self::json) decompresses it.
    pub fn is_packed(&self) -> bool {
        matches!(self.json, Json::Packed(_))
    }

    /// Returns the compressed JSON, if the object [is packed](Self::is_packed).
    pub fn packed_json(&self) -> Option<&Arc<Packed>> {
        match &self.json {
            Json::Plain(_) => None,
            Json::Packed(json) => Some(json),
        }
    }

    /// Returns the values that selectors use.
    pub fn attributes(&self) -> &SelectableAttributes {
        &self.attributes
    }

    /// Returns the object in another encoding. `encode` makes the encoding on first use; the object keeps it within the
    /// budget.
    pub fn encoding<E>(
        &self,
        encoding: Encoding,
        encode: impl FnOnce(&Self) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if encoding == Encoding::JSON {
            return Ok(self.json());
        }
        self.encodings.get_or_make(encoding, || encode(self))
    }

    /// Drops the encodings made on demand.
    pub(crate) fn drop_encodings(&self) {
        self.encodings.clear();
    }

    /// Returns the size of this version in bytes, without encodings and allocator overhead.
    pub fn size(&self) -> usize {
        let json = match &self.json {
            Json::Plain(json) => json.len(),
            Json::Packed(json) => json.packed_len(),
        };
        size_of::<Self>() + self.key.len() + json + self.attributes.text.len()
    }

    fn version_range(&self) -> Range<usize> {
        let start = self.version_at as usize;
        let digits = self.resource_version.checked_ilog10().unwrap_or(0) as usize + 1;
        start..start.saturating_add(digits)
    }
}

/// Returns the positions of the namespace and the name, which are the last two segments of a storage key.
fn name_in_key(key: &str, namespaced: bool) -> (Range<usize>, Range<usize>) {
    let name_at = key.rfind('/').map_or(0, |slash| slash + 1);
    let namespace_end = name_at.saturating_sub(1);
    let folder = key[..namespace_end].rfind('/').filter(|_| namespaced);
    let namespace_at = folder.map_or(namespace_end, |slash| slash + 1);
    (namespace_at..namespace_end, name_at..key.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(
        key: &str,
        namespaced: bool,
        json: &str,
        version_at: usize,
    ) -> Result<CachedObject, DecodeError> {
        let kv = KeyValue { key: key.into(), value: Bytes::new(), mod_revision: 99 };
        let attributes = SelectableAttributes::new(["node-1", ""], [("b", "2"), ("a", "1")]);
        let decoded = DecodedObject { json: Bytes::copy_from_slice(json.as_bytes()), version_at, attributes };
        CachedObject::new(&kv, namespaced, decoded, &EncodingBudget::new(1 << 20))
    }

    #[test]
    fn attributes_return_fields_and_labels() {
        let attributes =
            SelectableAttributes::new(["node-1", "", "Running"], [("tier", "web"), ("app", "x")]);
        assert_eq!([0, 1, 2, 3].map(|i| attributes.field(i)), ["node-1", "", "Running", ""]);
        assert_eq!(attributes.labels().collect::<Vec<_>>(), [("app", "x"), ("tier", "web")]);
        assert_eq!(attributes.label("tier"), Some("web"));
        assert_eq!(attributes.label("node-1"), None);
        assert_eq!(SelectableAttributes::default().label(""), None);
    }

    #[test]
    fn attributes_of_any_length_round_trip() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 3 << 20] {
            let long = "\u{e9}".repeat(length / 2) + &"x".repeat(length % 2);
            let attributes = SelectableAttributes::new([&*long, "end"], [(&*long, "value")]);
            assert_eq!((attributes.field(0), attributes.field(1)), (&*long, "end"));
            assert_eq!(attributes.label(&long), Some("value"));
        }
    }

    #[test]
    fn namespace_and_name_come_from_the_key() {
        let pod = object("/registry/pods/default/web", true, r#"{"v":"99"}"#, 6).unwrap();
        assert_eq!((pod.namespace(), pod.name()), ("default", "web"));
        let node = object("/registry/minions/n1", false, r#"{"v":"99"}"#, 6).unwrap();
        assert_eq!((node.namespace(), node.name()), ("", "n1"));
        let odd = object("odd", true, r#"{"v":"99"}"#, 6).unwrap();
        assert_eq!((odd.namespace(), odd.name()), ("", "odd"));
    }

    #[test]
    fn with_resource_version_changes_nothing_else() {
        let pod = object("/r/ns/a", true, r#"{"v":"99","x":"99"}"#, 6).unwrap();
        let later = pod.with_resource_version(100);
        assert_eq!(later.json(), r#"{"v":"100","x":"99"}"#.as_bytes());
        assert_eq!(later.resource_version(), 100);
        assert_eq!(later.with_resource_version(7).json(), r#"{"v":"7","x":"99"}"#.as_bytes());
        assert_eq!(later.attributes(), pod.attributes());
        let packed = pod.packed();
        let later = packed.with_resource_version(100);
        assert!(later.is_packed() && later.json_len() == later.json().len());
        assert_eq!(later.json(), r#"{"v":"100","x":"99"}"#.as_bytes());
    }

    #[test]
    fn rejects_wrong_positions_of_the_resource_version() {
        for version_at in [0, 5, 7, 10, usize::MAX] {
            assert!(object("/r/ns/a", true, r#"{"v":"99"}"#, version_at).is_err(), "{version_at}");
        }
    }
}
