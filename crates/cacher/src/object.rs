//! One object as the cache holds it: wire-ready bytes and what selectors look at.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nave_store::KeyValue;

use crate::memo::{Encoding, EncodingBudget, Memo};

/// Turns stored bytes into what the cache holds; supplied by whoever knows the resource's types.
pub trait Decoder: Send + Sync + 'static {
    /// Decodes one stored version. Called once for each version, on the resource's own task, without locks.
    fn decode(&self, kv: &KeyValue) -> Result<Decoded, DecodeError>;
}

/// What a [`Decoder`] makes of a stored version.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The object's JSON, with `metadata.resourceVersion` set to the version's `mod_revision`.
    pub json: Bytes,
    /// Where in `json` the digits of `metadata.resourceVersion` start. A deleted object's last state is sent
    /// with the deletion's revision in that place.
    pub version_at: usize,
    /// What selectors look at.
    pub attributes: Attributes,
}

/// A stored version that cannot be decoded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The values of a resource's selectable fields, in the order the resource declares them, and an object's
/// labels, sorted by key: one allocation whatever their number, for a scan pays for each place it looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Where each part ends among the parts, in [`END`] characters of seven bits; then the parts: field values,
    /// and each label's key and value.
    text: Box<str>,
    fields: u32,
    parts: u32,
    marks: LabelMarks,
}

impl Attributes {
    /// Packs field values and labels. Labels may come in any order.
    pub fn new<'a>(
        fields: impl IntoIterator<Item = &'a str>,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut parts: Vec<_> = fields.into_iter().collect();
        let fields = parts.len();
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        let mark = |marks: LabelMarks, (key, value): &(&str, &str)| marks.and(LabelMarks::of(key, value));
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

    /// The value of the `index`th declared field; empty where there is no such field.
    pub fn field(&self, index: usize) -> &str {
        if index < self.fields as usize { self.part(index) } else { "" }
    }

    /// The labels in the order of their keys.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        (self.fields as usize..self.parts as usize).step_by(2).map(|at| (self.part(at), self.part(at + 1)))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        // Lengths rule most labels out before a byte of theirs is looked at.
        let mut start = (self.fields as usize).checked_sub(1).map_or(0, |last| self.end(last));
        for at in (self.fields as usize..self.parts as usize).step_by(2) {
            if self.end(at) - start == key.len() && self.part(at) == key {
                return Some(self.part(at + 1));
            }
            start = self.end(at + 1);
        }
        None
    }

    /// Whether the object may bear labels with these marks. Does not look at the labels themselves, which lie
    /// elsewhere in memory: most objects that are not selected are passed over so.
    pub(crate) fn may_bear(&self, marks: LabelMarks) -> bool {
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

/// Characters that say where a part ends: enough for 256 MiB, far more than any object has.
const END: usize = 4;

/// A set of labels, each as one bit of 64: what is not in it is not borne, what is may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelMarks(u64);

impl LabelMarks {
    pub(crate) fn of(key: &str, value: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        Self(1 << (hasher.finish() % 64))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One version of an object.
#[derive(Debug)]
pub struct CachedObject {
    key: Arc<str>,
    /// Where the key's namespace starts; the key's name follows the namespace.
    namespace_at: u32,
    name_at: u32,
    version_at: u32,
    resource_version: u64,
    json: Bytes,
    attributes: Attributes,
    encodings: Memo<Encoding>,
}

impl CachedObject {
    /// The object that `decoded` says was stored as `kv`: what the cache holds, and what a reader of the store
    /// itself makes for states that memory does not reach.
    pub fn new(
        kv: &KeyValue,
        namespaced: bool,
        decoded: Decoded,
        budget: &Arc<EncodingBudget>,
    ) -> Result<Self, DecodeError> {
        let (namespace, name) = name_in_key(&kv.key, namespaced);
        let object = Self {
            key: Arc::clone(&kv.key),
            namespace_at: namespace.start as u32,
            name_at: name.start as u32,
            version_at: decoded.version_at as u32,
            resource_version: kv.mod_revision,
            json: decoded.json,
            attributes: decoded.attributes,
            encodings: Memo::new(Arc::clone(budget)),
        };
        let stamped = object.json.get(object.version_range());
        if stamped == Some(kv.mod_revision.to_string().as_bytes()) {
            Ok(object)
        } else {
            Err(DecodeError(format!("no resourceVersion {} at byte {}", kv.mod_revision, decoded.version_at)))
        }
    }

    /// The same content as of `revision`: how a watcher is told what it no longer sees.
    pub(crate) fn restamped(&self, revision: u64) -> Self {
        let digits = self.version_range();
        let stamp = revision.to_string();
        let json = [&self.json[..digits.start], stamp.as_bytes(), &self.json[digits.end..]].concat();
        Self {
            key: Arc::clone(&self.key),
            namespace_at: self.namespace_at,
            name_at: self.name_at,
            version_at: self.version_at,
            resource_version: revision,
            json: json.into(),
            attributes: self.attributes.clone(),
            encodings: Memo::new(self.encodings.budget()),
        }
    }

    /// The key in the store.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        let end = (self.name_at as usize).saturating_sub(1);
        self.key.get(self.namespace_at as usize..end).unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.key[self.name_at as usize..]
    }

    /// The revision of the transaction that wrote this version.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The object's JSON as it goes over the wire.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// What selectors look at.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The object in another encoding, made by `encode` on first demand and kept while there is room.
    pub fn encoding<E>(
        &self,
        encoding: Encoding,
        encode: impl FnOnce(&Self) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if encoding == Encoding::JSON {
            return Ok(self.json.clone());
        }
        self.encodings.get_or_make(encoding, || encode(self))
    }

    /// Forgets the encodings made on demand.
    pub(crate) fn shed(&self) {
        self.encodings.clear();
    }

    /// Bytes this version occupies, without encodings made on demand and the allocator's overhead.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.json.len() + self.attributes.text.len()
    }

    fn version_range(&self) -> Range<usize> {
        let start = self.version_at as usize;
        let digits = self.resource_version.checked_ilog10().unwrap_or(0) as usize + 1;
        start..start.saturating_add(digits)
    }
}

/// Where namespace and name lie in a storage key: they are its last two segments.
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
        let attributes = Attributes::new(["node-1", ""], [("b", "2"), ("a", "1")]);
        let decoded = Decoded { json: Bytes::copy_from_slice(json.as_bytes()), version_at, attributes };
        CachedObject::new(&kv, namespaced, decoded, &EncodingBudget::new(1 << 20))
    }

    #[test]
    fn attributes_keep_fields_by_position_and_labels_by_key() {
        let attributes = Attributes::new(["node-1", "", "Running"], [("tier", "web"), ("app", "x")]);
        assert_eq!([0, 1, 2, 3].map(|i| attributes.field(i)), ["node-1", "", "Running", ""]);
        assert_eq!(attributes.labels().collect::<Vec<_>>(), [("app", "x"), ("tier", "web")]);
        assert_eq!(attributes.label("tier"), Some("web"));
        assert_eq!(attributes.label("node-1"), None);
        assert_eq!(Attributes::default().label(""), None);
    }

    #[test]
    fn attributes_of_any_length_come_back() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 3 << 20] {
            let long = "\u{e9}".repeat(length / 2) + &"x".repeat(length % 2);
            let attributes = Attributes::new([&*long, "end"], [(&*long, "value")]);
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
    fn restamping_replaces_the_resource_version_alone() {
        let pod = object("/r/ns/a", true, r#"{"v":"99","x":"99"}"#, 6).unwrap();
        let later = pod.restamped(100);
        assert_eq!(later.json(), r#"{"v":"100","x":"99"}"#.as_bytes());
        assert_eq!(later.resource_version(), 100);
        assert_eq!(later.restamped(7).json(), r#"{"v":"7","x":"99"}"#.as_bytes());
        assert_eq!(later.attributes(), pod.attributes());
    }

    #[test]
    fn a_resource_version_that_is_not_where_it_should_be_is_an_error() {
        for version_at in [0, 5, 7, 10, usize::MAX] {
            assert!(object("/r/ns/a", true, r#"{"v":"99"}"#, version_at).is_err(), "{version_at}");
        }
    }
}
