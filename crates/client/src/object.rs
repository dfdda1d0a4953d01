//! [`Object`]: one version of an object, as stored in a cache.

mod head;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nave_machinery::Value;
use nave_machinery::selector::LabelSelector;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::head::Head;
use crate::{DecodeError, ObjectName};
use nave_machinery::scan;

/// The metadata of an object of any kind.
pub type PartialObjectMetadata = kube::core::PartialObjectMeta<kube::core::DynamicObject>;

/// One version of an object: its JSON, and frequently read metadata, which is parsed once. Clones share both.
///
/// `K` is the type that [`decode`](Self::decode) returns: a type of `k8s-openapi`, [`PartialObjectMetadata`], or a
/// [`Value`]. The other methods do not depend on `K`, and [`cast`](Self::cast) is free. In addition to its JSON, an
/// object costs about 130 bytes, plus 16 bytes per label and 36 per owner. In the server's process, the JSON is
/// shared with the watch cache.
pub struct Object<K = Value> {
    inner: Arc<Inner>,
    kind: PhantomData<fn() -> K>,
}

struct Inner {
    json: Bytes,
    head: Head,
}

/// The reasons why a text or value is not a valid API object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The text is not a JSON object or has no metadata.
    #[error("no metadata")]
    NoMetadata,
    /// The metadata cannot be parsed.
    #[error("metadata: {0}")]
    Metadata(#[source] DecodeError),
    /// A value cannot be serialized to JSON.
    #[error("encode: {0}")]
    Encode(#[source] DecodeError),
    /// The object is larger than 4 GiB.
    #[error("an object of {0} bytes is too large")]
    TooLarge(usize),
}

/// An owner reference of an object (`metadata.ownerReferences`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRef<'a> {
    /// The group and version of the owner's kind.
    pub api_version: &'a str,
    /// The owner's kind.
    pub kind: &'a str,
    /// The owner's name. The owner is in the same namespace as the object, or cluster-scoped.
    pub name: &'a str,
    /// The owner's UID.
    pub uid: &'a str,
    /// True if the owner is the managing controller.
    pub controller: bool,
    /// True if foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

impl<K> Object<K> {
    /// Creates an object from JSON. Parses the metadata only; [`decode`](Self::decode) parses the rest.
    pub fn from_json(json: Bytes) -> Result<Self, ObjectError> {
        let head = Head::read(&json)?;
        Ok(Self { inner: Arc::new(Inner { json, head }), kind: PhantomData })
    }

    /// Creates an object from a value, for transforms and tests.
    pub fn from_value(value: &impl Serialize) -> Result<Self, ObjectError> {
        Self::from_json(serde_json::to_vec(value).map_err(|error| ObjectError::Encode(error.into()))?.into())
    }

    /// Converts to another object type. Free of cost.
    pub fn cast<L>(self) -> Object<L> {
        Object { inner: self.inner, kind: PhantomData }
    }

    /// Deserializes the object.
    pub fn decode(&self) -> Result<K, serde_json::Error>
    where
        K: DeserializeOwned,
    {
        serde_json::from_slice(&self.inner.json)
    }

    /// Deserializes the whole metadata, including annotations.
    pub fn metadata(&self) -> Result<ObjectMeta, serde_json::Error> {
        let metadata = scan::member(&self.inner.json, "metadata").unwrap_or_default();
        serde_json::from_slice(&self.inner.json[metadata])
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<String> {
        // Annotation keys contain no characters that JSON escapes.
        serde_json::from_slice(self.json_at(&["metadata", "annotations", key])?).ok()
    }

    /// Returns the raw JSON at a path of member names, if it exists.
    pub fn json_at(&self, path: &[&str]) -> Option<&[u8]> {
        // Most objects lack most optional fields, and a search for the name is much faster than the walk.
        memchr::memmem::find(&self.inner.json, path.last()?.as_bytes())?;
        path.iter().try_fold(&self.inner.json[..], |json, key| Some(&json[scan::member(json, key)?]))
    }

    /// Returns the JSON of the whole object.
    pub fn json(&self) -> &Bytes {
        &self.inner.json
    }

    /// Returns the key: namespace and name.
    pub fn key(&self) -> ObjectName {
        ObjectName::new(self.namespace(), self.name())
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.text(self.inner.head.name)
    }

    /// Returns the namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text(self.inner.head.namespace)
    }

    /// Returns the UID.
    pub fn uid(&self) -> &str {
        self.text(self.inner.head.uid)
    }

    /// Returns the resource version. Only compare it for equality.
    pub fn resource_version(&self) -> &str {
        self.text(self.inner.head.resource_version)
    }

    /// Returns the deletion timestamp, if the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<Timestamp> {
        self.text(self.inner.head.deletion_timestamp).parse().ok()
    }

    /// Returns whether the object has a deletion timestamp.
    pub fn is_being_deleted(&self) -> bool {
        !self.text(self.inner.head.deletion_timestamp).is_empty()
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Returns the labels.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.head.labels.iter().map(|&(key, value)| (self.text(key), self.text(value)))
    }

    /// Returns whether `selector` matches the labels.
    pub fn is_selected_by(&self, selector: &LabelSelector) -> bool {
        selector.matches(|key| self.label(key))
    }

    /// Returns the finalizers.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.inner.head.finalizers.iter().map(|&finalizer| self.text(finalizer))
    }

    /// Returns the owner references.
    pub fn owner_references(&self) -> impl Iterator<Item = OwnerRef<'_>> {
        self.inner.head.owners.iter().map(|owner| OwnerRef {
            api_version: self.text(owner.api_version),
            kind: self.text(owner.kind),
            name: self.text(owner.name),
            uid: self.text(owner.uid),
            controller: owner.controller,
            block_owner_deletion: owner.block_owner_deletion,
        })
    }

    /// Returns the managing controller (`metav1.GetControllerOf`).
    pub fn controller_of(&self) -> Option<OwnerRef<'_>> {
        self.owner_references().find(|owner| owner.controller)
    }

    /// Returns whether both objects have the same UID and resource version.
    pub fn is_same_version<L>(&self, other: &Object<L>) -> bool {
        self.uid() == other.uid() && self.resource_version() == other.resource_version()
    }

    fn text(&self, span: head::Span) -> &str {
        self.inner.head.text(&self.inner.json, span)
    }
}

impl<K> Clone for Object<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), kind: PhantomData }
    }
}

/// Formats the key and the version only, as the content may be secret.
impl<K> fmt::Debug for Object<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key(), self.resource_version())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object<Pod> {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn parses_metadata() {
        let pod = object(
            &json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": []}, "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "77",
                "labels": {"app": "web", "tier": "front"}, "annotations": {"note": "a \"b\""},
                "finalizers": ["example.com/hold"], "deletionTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u-2"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-3", "controller": true,
                     "blockOwnerDeletion": true},
                ],
            }}),
        );
        assert_eq!(
            (pod.namespace(), pod.name(), pod.uid(), pod.resource_version()),
            ("shop", "web-1", "u-1", "77")
        );
        assert_eq!(pod.key().to_string(), "shop/web-1");
        assert_eq!((pod.label("tier"), pod.label("ti")), (Some("front"), None));
        assert_eq!(pod.finalizers().collect::<Vec<_>>(), ["example.com/hold"]);
        assert_eq!(pod.deletion_timestamp().unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(pod.owner_references().count(), 2);
        let controller = pod.controller_of().unwrap();
        assert_eq!(
            (controller.kind, controller.uid, controller.block_owner_deletion),
            ("ReplicaSet", "u-3", true)
        );
        assert_eq!(pod.annotation("note").as_deref(), Some("a \"b\""));
        assert_eq!(
            (pod.json_at(&["spec", "containers"]), pod.json_at(&["spec", "nodeName"])),
            (Some(&b"[]"[..]), None)
        );
        assert_eq!(pod.metadata().unwrap().annotations.unwrap().len(), 1);
        assert!(pod.decode().unwrap().spec.is_some());
        assert!(pod.is_selected_by(&LabelSelector::parse("app=web,tier!=back").unwrap()));
    }

    #[test]
    fn absent_and_null_fields_are_empty() {
        let bare = object(&json!({"metadata": {"name": "a", "labels": null, "ownerReferences": null}}));
        assert_eq!((bare.namespace(), bare.uid(), bare.is_being_deleted()), ("", "", false));
        assert_eq!((bare.labels().count(), bare.owner_references().count()), (0, 0));
        assert_eq!(bare.deletion_timestamp(), None);
    }

    #[test]
    fn unescapes_json_strings() {
        let owner = json!({"apiVersion": "v1", "kind": "K", "name": "a\"b\u{1}é", "uid": "x"});
        let odd = object(&json!({"metadata": {"name": "n", "ownerReferences": [owner]}}));
        assert_eq!(odd.owner_references().next().unwrap().name, "a\"b\u{1}é");
        let json = r#"{"metadata":{"name":"\u006e","namespace":"s\/t","labels":{"\u0061":"b"}}}"#;
        let escaped = Object::<Value>::from_json(json.as_bytes().into()).unwrap();
        assert_eq!((escaped.name(), escaped.namespace(), escaped.label("a")), ("n", "s/t", Some("b")));
    }

    #[test]
    fn rejects_text_that_is_not_an_object() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"metadata":7}"#,
            r#"{"metadata":{"name":7}}"#,
            r#"{"metadata":{"labels":[]}}"#,
        ] {
            assert!(Object::<Value>::from_json(json.as_bytes().into()).is_err(), "{json}");
        }
    }

    #[test]
    fn debug_shows_no_content() {
        let secret =
            object(&json!({"metadata": {"name": "a", "resourceVersion": "5"}, "data": {"password": "x"}}));
        assert_eq!(format!("{secret:?}"), "a@5");
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(json: Vec<u8>, head in r#"[\[\]{}",:\\a0 ]{0,30}"#) {
            let _ = Object::<Value>::from_json(json.into());
            let _ = Object::<Value>::from_json(format!(r#"{{"metadata":{{{head}}}}}"#).into());
        }
    }
}
