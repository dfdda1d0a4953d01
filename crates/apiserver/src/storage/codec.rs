//! Encodes the objects of one resource for the store, and decodes them.
//!
//! Built-in kinds are stored as Kubernetes protobuf in the `k8s\0` envelope or as JSON, custom kinds as JSON. The resourceVersion
//! is not stored, because it is the revision of the write. kube-apiserver writes the same bytes to etcd.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use nave_cacher::{CachedObject, DecodeError, DecodedObject, Decoder, SelectableAttributes};
use nave_codec::json::{self, JsonError};
use nave_codec::protobuf::project::{self, Projection};
use nave_codec::protobuf::{self, ProtobufError};
use nave_machinery::limits::{self, LimitError, MAX_DEPTH};
use nave_machinery::{GroupVersion, Map, Reason, Status, Value, meta};
use nave_resources::{ConversionError, ResourceDef};
use nave_schema::TypeId;
use nave_store::KeyValue;

use super::written_versions::{Taken, Unversioned, WriteGuard, WrittenVersions};

/// The start of the metadata in transcoded JSON.
const VERSION_HEAD: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";

/// The only metadata field that storage adds.
const RESOURCE_VERSION: &str = "resourceVersion";

/// Extra capacity of a JSON buffer beyond the expected size, in bytes.
const GROWTH_MARGIN: usize = 32;

/// Maximum expected growth, in bytes of JSON per 1,024 bytes of protobuf.
const GROWTH_MAX: usize = 16 * 1024;

/// The form of built-in kinds in the store (`--storage-media-type`). Custom kinds are JSON. Both forms are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageMediaType {
    /// `application/vnd.kubernetes.protobuf`.
    #[default]
    Protobuf,
    /// `application/json`.
    Json,
}

/// The codec of one resource.
pub struct ObjectCodec {
    def: Arc<ResourceDef>,
    api_version: String,
    /// The type in protobuf; `None` for custom kinds.
    type_id: Option<TypeId>,
    /// Built-in kinds are written as JSON too.
    writes_json: bool,
    /// All paths of the selectable fields.
    fields: Projection,
    /// Position of the resourceVersion's digits in transcoded JSON, which depends on the length of the kind's name.
    version_at: usize,
    growth: Growth,
    written: Arc<WrittenVersions>,
}

impl ObjectCodec {
    /// Creates the codec of a resource; `None` if the resource stores nothing.
    pub fn new(def: Arc<ResourceDef>, media_type: StorageMediaType) -> Option<Self> {
        let storage = def.storage.as_ref()?;
        let (api_version, type_id) = (storage.version.to_string(), storage.type_id);
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",", def.kind);
        let version_at = head.len() + VERSION_HEAD.len();
        let paths = def.fields.iter().flat_map(|field| &field.at).map(Vec::as_slice);
        let fields = type_id.map(|id| Projection::new(nave_schema::builtin(), id, paths));
        Some(Self {
            fields: fields.unwrap_or_default(),
            def,
            api_version,
            type_id,
            writes_json: type_id.is_none() || media_type == StorageMediaType::Json,
            version_at,
            growth: Growth::default(),
            written: Arc::default(),
        })
    }

    /// Encodes an object for the store.
    ///
    /// # Errors
    /// 400 if the object is nested too deeply, 500 if it cannot be encoded.
    pub fn encode(&self, object: &Value) -> Result<Bytes, Status> {
        let Some(type_id) = self.type_id.filter(|_| !self.writes_json) else {
            if !limits::is_within_depth(object, MAX_DEPTH) {
                return Err(LimitError::TooDeep.into_status());
            }
            return Ok(json::encode(object).into());
        };
        let mut raw = Vec::with_capacity(1024);
        protobuf::encode(nave_schema::builtin(), type_id, object, &mut raw).map_err(|error| match error {
            ProtobufError::Limit(limit) => limit.into_status(),
            other => Status::internal(other),
        })?;
        Ok(protobuf::envelope::wrap(&self.api_version, &self.def.kind, &raw).into())
    }

    /// Returns whether managed fields may be encoded from text (see
    /// [`managed_fields`](nave_machinery::managed_fields)). Objects stored as JSON need trees.
    pub fn takes_field_texts(&self) -> bool {
        !self.writes_json
    }

    /// Decodes a stored object and sets its resourceVersion.
    ///
    /// # Errors
    /// 500 with the reason `StorageReadError` if the bytes are not an object of the resource.
    pub fn decode(&self, kv: &KeyValue) -> Result<Value, Status> {
        let mut object = self.decode_value(kv).map_err(|_| undecodable(&kv.key))?;
        meta::set(&mut object, RESOURCE_VERSION, Value::String(kv.mod_revision.to_string()));
        Ok(object)
    }

    /// Parses an object of the watch cache.
    ///
    /// # Errors
    /// 500 if the cached bytes are not JSON.
    pub fn parse_cached(&self, cached: &CachedObject) -> Result<Value, Status> {
        json::parse_own(&cached.json()).map_err(Status::internal)
    }

    fn decode_value(&self, kv: &KeyValue) -> Result<Value, DecodeError> {
        let Some(type_id) = self.type_id.filter(|_| protobuf::envelope::is_wrapped(&kv.value)) else {
            let mut object = json::parse_own(&kv.value).map_err(|error| failed(kv, &error))?;
            if self.def.is_custom() {
                self.read_custom(&mut object).map_err(|error| failed(kv, &error))?;
            } else {
                self.convert_stored(&mut object).map_err(|error| failed(kv, &error))?;
                self.default_on_read(&mut object);
            }
            return Ok(object);
        };
        let unknown = protobuf::envelope::unwrap(&kv.value).map_err(|error| failed(kv, &error))?;
        let other = self.other_version(&unknown);
        let type_id = other.map_or(type_id, |(_, type_id)| type_id);
        let mut object = protobuf::decode_stored(nave_schema::builtin(), type_id, unknown.raw)
            .map_err(|error| failed(kv, &error))?;
        let api_version = if other.is_some() { unknown.api_version } else { &self.api_version };
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), Value::String(api_version.to_owned()));
            fields.insert("kind".to_owned(), Value::String(self.def.kind.clone()));
        }
        if let Some((version, _)) = other {
            self.def.strategy.default(&mut object, version);
            self.convert_stored(&mut object).map_err(|error| failed(kv, &error))?;
        }
        self.default_on_read(&mut object);
        Ok(object)
    }

    /// Returns the version and the type of an object that another server has stored in another version.
    fn other_version(&self, stored: &protobuf::envelope::Unknown<'_>) -> Option<(&str, TypeId)> {
        if stored.api_version == self.api_version {
            return None;
        }
        let of_group = |version: &GroupVersion| version.group == self.def.group;
        let version = GroupVersion::parse(stored.api_version).filter(of_group)?.version;
        let known = self.def.versions.iter().chain(&self.def.unserved).find(|known| known.name == version)?;
        Some((&known.name, known.type_id()?))
    }

    fn default_on_read(&self, object: &mut Value) {
        let strategy = &self.def.strategy;
        if let Some(storage) = self.def.storage.as_ref().filter(|_| strategy.is_defaulted_on_read()) {
            strategy.default(object, &storage.version.version);
        }
    }

    /// Converts a built-in object that is stored as JSON of another version, as kube-apiserver stores the definitions of
    /// custom resources.
    fn convert_stored(&self, object: &mut Value) -> Result<(), ConversionError> {
        let Some(storage) = &self.def.storage else { return Ok(()) };
        let from = GroupVersion::parse(meta::api_version(object)).unwrap_or_default();
        nave_resources::convert(&self.def, object, &from, &storage.version)
    }

    /// Coerces a stored custom object to its schema and sets the defaults, if the resource has only one version. With
    /// several versions an object is kept as it is stored: readers coerce, default and convert it, and a write that
    /// would store something else is not a no-op.
    fn read_custom(&self, object: &mut Value) -> Result<(), String> {
        let (Some(storage), Some(schema)) = (&self.def.storage, self.def.stored_schema()) else {
            return Ok(());
        };
        let from = GroupVersion::parse(meta::api_version(object)).unwrap_or_default();
        schema.read(object).map_err(|error| error.to_string())?;
        if from != storage.version {
            self.def.strategy.convert(object, &from, &storage.version).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Returns the UID in bytes that do not decode to an object of the resource, if the UID is readable.
    pub fn uid_of_undecodable(&self, kv: &KeyValue) -> Option<String> {
        let path = ["metadata".to_owned(), "uid".to_owned()];
        let message = protobuf::envelope::unwrap(&kv.value).ok()?.raw;
        let found = project::text_at(nave_schema::builtin(), self.type_id?, message, &path).ok()?;
        found.map(Cow::into_owned)
    }

    /// Decodes a stored version for the watch cache.
    ///
    /// # Errors
    /// The stored bytes are not an object of the resource.
    pub fn decode_cached(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        if let Some(type_id) = self.type_id.filter(|_| protobuf::envelope::is_wrapped(&kv.value))
            && !self.def.strategy.is_defaulted_on_read()
            && let Some(decoded) = self.transcode(type_id, kv).map_err(|error| failed(kv, &error))?
        {
            return Ok(decoded);
        }
        let object = self.decode_value(kv)?;
        let attributes = self.custom_attributes(&object).unwrap_or_else(|| self.attributes(&object));
        let (json, version_at) =
            encode_with_version(&object, kv.mod_revision).map_err(|error| failed(kv, &error))?;
        Ok(DecodedObject { json, version_at, attributes })
    }

    /// Registers a write of this server: the JSON of `object` is used for the watch cache and the response if the store
    /// returns `value`, its stored form.
    pub(super) fn begin_write(&self, key: &Arc<str>, value: &Bytes, object: &Value) -> WriteGuard {
        // Objects stored as JSON get defaults when they are read, so their stored form must be decoded.
        let is_prepared = !self.writes_json && value.len() <= MAX_PREPARED_BYTES;
        let prepared = is_prepared.then(|| self.prepare(object, value.len())).flatten();
        self.written.begin(key, value, prepared)
    }

    /// Makes the JSON of an object that is being written.
    fn prepare(&self, object: &Value, stored: usize) -> Option<Unversioned> {
        let mut json = Vec::with_capacity(self.growth.capacity(stored));
        let version_at = write_unversioned(object, &mut json).ok()?;
        Some(Unversioned { json, version_at, attributes: self.attributes(object) })
    }

    /// Like [`decode_cached`](Self::decode_cached), for the two readers of a version that this server writes: the
    /// second one gets the result of the first one.
    ///
    /// # Errors
    /// The stored bytes are not an object of the resource.
    pub(super) fn decode_written(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        let decoded = match self.written.take(kv) {
            Taken::Decoded(decoded) => return Ok(decoded),
            Taken::Prepared(prepared) => {
                let decoded = prepared.at_revision(kv.mod_revision);
                debug_assert!(self.is_decoded_form(&decoded, kv), "{} differs from its stored form", kv.key);
                decoded
            }
            Taken::Nothing => self.decode_cached(kv)?,
        };
        self.written.leave(kv, &decoded);
        Ok(decoded)
    }

    /// Returns whether prepared JSON is what decoding the stored form results in.
    fn is_decoded_form(&self, prepared: &DecodedObject, kv: &KeyValue) -> bool {
        let Ok(decoded) = self.decode_cached(kv) else { return false };
        let parsed = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
        let is_same =
            parsed(&prepared.json) == parsed(&decoded.json) && prepared.attributes == decoded.attributes;
        if !is_same {
            tracing::error!(prepared = ?prepared.json, decoded = ?decoded.json, "a written version differs from its stored form");
        }
        is_same
    }

    /// Transcodes protobuf to JSON without a tree; `None` if the object is stored in another version, or the metadata is
    /// not the first field of the message, as it is in all Kubernetes kinds.
    fn transcode(
        &self,
        type_id: TypeId,
        kv: &KeyValue,
    ) -> Result<Option<DecodedObject>, protobuf::ProtobufError> {
        let stored = protobuf::envelope::unwrap(&kv.value)?;
        if self.other_version(&stored).is_some() {
            return Ok(None);
        }
        let message = stored.raw;
        let set = nave_schema::builtin();
        let mut digits = itoa::Buffer::new();
        let root = protobuf::Root {
            api_version: &self.api_version,
            kind: &self.def.kind,
            resource_version: Some(digits.format(kv.mod_revision)),
            embedded_types: true,
        };
        let mut json = Vec::with_capacity(self.growth.capacity(kv.value.len()));
        protobuf::transcode_json(set, type_id, message, root, &mut json)?;
        let Some(version_at) = Some(self.version_at)
            .filter(|at| json.get(..*at).is_some_and(|head| head.ends_with(VERSION_HEAD)))
        else {
            return Ok(None);
        };
        let mut texts = self.fields.texts(message)?.into_iter();
        let fields = self.def.fields.iter().map(|field| {
            // A field has the first value of its paths that is not empty.
            let found = texts.by_ref().take(field.at.len()).flatten();
            found
                .fold(None, |first, text| first.or((!text.is_empty()).then_some(text)))
                .unwrap_or(Cow::Borrowed(field.missing))
        });
        let fields: Vec<_> = fields.collect();
        let mut labels = Vec::new();
        let path = ["metadata", "labels"];
        project::strings_at(set, type_id, message, &path, &mut |key, value| labels.push((key, value)))?;
        let attributes = SelectableAttributes::new(fields.iter().map(AsRef::as_ref), labels);
        self.growth.observe(kv.value.len(), json.len());
        json.shrink_to_fit();
        Ok(Some(DecodedObject { json: json.into(), version_at, attributes }))
    }

    /// Returns the attributes of a custom object with several versions; its selectable fields may have defaults.
    fn custom_attributes(&self, object: &Value) -> Option<SelectableAttributes> {
        if self.def.fields.is_empty() || !self.def.is_custom() || self.def.stored_schema().is_some() {
            return None;
        }
        let stored = GroupVersion::parse(meta::api_version(object))?;
        let mut object = object.clone();
        self.def.schema(&stored.version)?.read(&mut object).ok()?;
        Some(self.attributes(&object))
    }

    fn attributes(&self, object: &Value) -> SelectableAttributes {
        let fields: Vec<_> = self.def.fields.iter().map(|field| field.value(object)).collect();
        let labels = meta::labels(object).into_iter().flatten();
        let labels = labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
        SelectableAttributes::new(fields.iter().map(AsRef::as_ref), labels)
    }
}

/// The recent growth of objects from protobuf to JSON. Objects of one resource have similar ratios, so a buffer of the
/// expected size rarely grows.
#[derive(Debug)]
struct Growth {
    /// Bytes of JSON per 1,024 bytes of protobuf.
    ratio: AtomicUsize,
}

impl Growth {
    fn capacity(&self, stored: usize) -> usize {
        stored.saturating_mul(self.ratio.load(Ordering::Relaxed)) / 1024 + GROWTH_MARGIN
    }

    /// Adopts a larger ratio immediately and a smaller one gradually, within bounds.
    fn observe(&self, stored: usize, json: usize) {
        let observed = (json.saturating_mul(1024) / stored.max(1)).saturating_add(1);
        let slowly = self.ratio.load(Ordering::Relaxed) * 15 / 16;
        self.ratio.store(observed.max(slowly).min(GROWTH_MAX), Ordering::Relaxed);
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self { ratio: AtomicUsize::new(2048) }
    }
}

impl Decoder for ObjectCodec {
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        self.decode_written(kv)
    }
}

/// Returns 500: the object at `key` cannot be decoded. The watch cache has logged the reason.
pub(crate) fn undecodable(key: &str) -> Status {
    let text = format!("the stored object cannot be decoded: {key}; it can be deleted");
    Status::failure(500, Reason::StoreReadError, text)
}

fn failed(kv: &KeyValue, error: &dyn std::fmt::Display) -> DecodeError {
    DecodeError(format!("{}: {error}", kv.key))
}

/// Maximum length of stored bytes for which JSON is made in advance: it is held in memory during the commit.
const MAX_PREPARED_BYTES: usize = 256 * 1024;

/// Encodes an object with its resourceVersion as the first metadata field. Also returns the position of the version's
/// digits.
fn encode_with_version(object: &Value, revision: u64) -> Result<(Bytes, usize), JsonError> {
    let mut json = Vec::with_capacity(2048);
    let version_at = write_unversioned(object, &mut json)?;
    let attributes = SelectableAttributes::default();
    let decoded = Unversioned { json, version_at, attributes }.at_revision(revision);
    Ok((decoded.json, version_at))
}

/// Writes an object with an empty resourceVersion as the first metadata field. Returns the position in the empty text.
/// Writes `fieldsV1` texts as the trees that they contain.
///
/// # Errors
/// A `fieldsV1` text is not JSON.
fn write_unversioned(object: &Value, out: &mut Vec<u8>) -> Result<usize, JsonError> {
    let none = Map::new();
    let fields = object.as_object().unwrap_or(&none);
    for name in ["kind", "apiVersion"] {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_field(out, name, fields.get(name).unwrap_or(&Value::Null));
    }
    out.extend_from_slice(b",\"metadata\":{\"resourceVersion\":\"");
    let version_at = out.len();
    out.push(b'"');
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&none);
    for (name, value) in metadata.iter().filter(|(name, _)| *name != RESOURCE_VERSION) {
        out.push(b',');
        match value {
            Value::Array(entries) if name == "managedFields" => {
                out.extend_from_slice(b"\"managedFields\":");
                json::encode_managed_fields_into(entries, out)?;
            }
            _ => write_field(out, name, value),
        }
    }
    out.push(b'}');
    for (name, value) in
        fields.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion" | "metadata"))
    {
        out.push(b',');
        write_field(out, name, value);
    }
    out.push(b'}');
    Ok(version_at)
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    json::encode_text_into(name, out);
    out.push(b':');
    json::encode_value_into(value, out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_the_position_of_the_version() {
        let object = json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "old"}, "kind": "K", "apiVersion": "v1"});
        let (json, at) = encode_with_version(&object, 123).unwrap();
        assert_eq!(&json[at..at + 4], b"123\"");
        let wanted = json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "123"}, "kind": "K", "apiVersion": "v1"});
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), wanted);
    }

    #[test]
    fn claims_that_kube_apiserver_stored_have_a_phase() {
        let registry = nave_resources::Registry::builtin(nave_schema::builtin());
        let claims = nave_machinery::GroupVersionResource::new("", "v1", "persistentvolumeclaims");
        let def = registry.lookup(&claims).unwrap();
        for media_type in [StorageMediaType::Protobuf, StorageMediaType::Json] {
            let codec = ObjectCodec::new(Arc::clone(def), media_type).unwrap();
            let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
                "spec": {}, "status": {}});
            let value = codec.encode(&claim).unwrap();
            let kv = KeyValue { key: "/registry/persistentvolumeclaims/a/c".into(), value, mod_revision: 1 };
            let cached: Value = serde_json::from_slice(&codec.decode_cached(&kv).unwrap().json).unwrap();
            assert_eq!(cached["status"], json!({"phase": "Pending"}));
            assert_eq!(codec.decode(&kv).unwrap()["status"], cached["status"]);
        }
    }

    #[test]
    fn objects_in_other_versions_are_converted() {
        let registry = nave_resources::Registry::builtin(nave_schema::builtin());
        let claims = nave_machinery::GroupVersionResource::new("resource.k8s.io", "v1", "resourceclaims");
        let codec =
            ObjectCodec::new(Arc::clone(registry.lookup(&claims).unwrap()), StorageMediaType::Protobuf);
        let codec = codec.unwrap();
        let claim = json!({"metadata": {"name": "c"},
            "spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "gpu", "count": 2}]}}});
        let set = nave_schema::builtin();
        let type_id = set.find("io.k8s.api.resource.v1beta1.ResourceClaim").unwrap();
        let mut raw = Vec::new();
        protobuf::encode(set, type_id, &claim, &mut raw).unwrap();
        let value = protobuf::envelope::wrap("resource.k8s.io/v1beta1", "ResourceClaim", &raw).into();
        let kv = KeyValue { key: "/registry/resourceclaims/a/c".into(), value, mod_revision: 1 };
        let cached: Value = serde_json::from_slice(&codec.decode_cached(&kv).unwrap().json).unwrap();
        assert_eq!(cached["apiVersion"], "resource.k8s.io/v1");
        let exactly = json!({"deviceClassName": "gpu", "count": 2, "allocationMode": "ExactCount"});
        assert_eq!(cached["spec"]["devices"]["requests"], json!([{"name": "a", "exactly": exactly}]));
        assert_eq!(codec.decode(&kv).unwrap()["spec"], cached["spec"]);
    }

    #[test]
    fn written_versions_have_the_form_of_decoded_ones() {
        let registry = nave_resources::Registry::builtin(nave_schema::builtin());
        let pods = nave_machinery::GroupVersionResource::new("", "v1", "pods");
        let codec = ObjectCodec::new(Arc::clone(registry.lookup(&pods).unwrap()), StorageMediaType::Protobuf)
            .unwrap();
        let pod = |fields: &str| {
            json!({"kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": "p", "labels": {"a\u{1}\"": "b<"}, "managedFields": [
                    {"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}]},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]},
                "status": {}})
        };
        let key: Arc<str> = "/registry/pods/a/p".into();
        let written = |fields: &str| {
            let object = pod(fields);
            let value = codec.encode(&object).unwrap();
            let guard = codec.begin_write(&key, &value, &object);
            (guard, KeyValue { key: Arc::clone(&key), value, mod_revision: 12 })
        };
        let (_guard, kv) = written(r#"{"f:metadata":{"f:labels":{".":{}}}}"#);
        let first = codec.decode_written(&kv).unwrap();
        assert!(first.json.ends_with(b"}") && codec.is_decoded_form(&first, &kv));
        assert_eq!(&first.json[first.version_at..first.version_at + 3], b"12\"");
        assert_eq!(codec.decode_written(&kv).unwrap().json, first.json);
        // Invalid text is not copied into JSON.
        let (_guard, kv) = written("{");
        assert!(codec.decode_written(&kv).is_err());
    }

    #[test]
    fn buffer_size_follows_the_growth_of_recent_objects() {
        let growth = Growth::default();
        assert_eq!(growth.capacity(1000), 2000 + GROWTH_MARGIN);
        growth.observe(1000, 5000);
        assert!(growth.capacity(1000) >= 5000);
        (0..200).for_each(|_| growth.observe(1000, 1500));
        assert!((1500..1600).contains(&growth.capacity(1000)));
        growth.observe(1, usize::MAX);
        assert_eq!(growth.capacity(1000), 16_000 + GROWTH_MARGIN);
    }
}
