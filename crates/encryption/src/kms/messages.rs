//! Messages of the plugin's gRPC API (`k8s.io/kms/apis/v2`), and the stored form of values.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use nave_machinery::names::is_dns1123_subdomain;

/// Asks for the plugin's status.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusRequest {}

/// The plugin's status.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    /// `v2` or `v2beta1`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `ok`, or an error.
    #[prost(string, tag = "2")]
    pub healthz: String,
    /// The key for new values.
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// Asks the plugin to decrypt.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DecryptRequest {
    /// The encrypted data.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// Identifies the request.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The key that encrypted the data.
    #[prost(string, tag = "3")]
    pub key_id: String,
    /// The annotations that the plugin returned.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// Decrypted data.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DecryptResponse {
    /// The data.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

/// Asks the plugin to encrypt.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncryptRequest {
    /// The data.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    /// Identifies the request.
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// Encrypted data.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncryptResponse {
    /// The encrypted data.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// The key that encrypted it.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// More data of the plugin; stored with the value.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// A stored value without its prefix (upstream: `kmsv2/v2/api.proto`).
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) encrypted_data: Vec<u8>,
    /// The plugin's key that encrypted the seed.
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    /// The encrypted seed.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
    #[prost(enumeration = "super::seed::SourceKind", tag = "5")]
    pub(super) encrypted_dek_source_type: i32,
}

/// The reason why a key ID is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct InvalidKeyId {
    /// The label of metrics.
    pub(super) code: &'static str,
    text: String,
}

impl EncryptedObject {
    /// Checks a stored value.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn validate(&self) -> Result<(), String> {
        if super::SourceKind::try_from(self.encrypted_dek_source_type).is_err() {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.encrypted_dek_source_type));
        }
        if self.encrypted_data.is_empty() {
            return Err("encrypted data is empty".to_owned());
        }
        self.validate_envelope()
    }

    /// Checks everything except the data.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn validate_envelope(&self) -> Result<(), String> {
        let length = self.encrypted_dek_source.len();
        let why = match length {
            0 => "encrypted DEK source is empty".to_owned(),
            1..=MAX_SOURCE => String::new(),
            _ => {
                format!("encrypted DEK source is {length} bytes, which exceeds the max size of {MAX_SOURCE}")
            }
        };
        if !why.is_empty() {
            return Err(format!("failed to validate encrypted DEK source: {why}"));
        }
        validate_key_id(&self.key_id).map_err(|error| format!("failed to validate key id: {error}"))?;
        self.validate_annotations().map_err(|why| format!("failed to validate annotations: {why}"))
    }

    fn validate_annotations(&self) -> Result<(), String> {
        for name in self.annotations.keys() {
            if !is_dns1123_subdomain(name).is_empty() || !name.contains('.') {
                return Err(format!(
                    "annotations: Invalid value: {name:?}: should be a domain with at least two segments separated by dots"
                ));
            }
        }
        let size: usize = self.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_ANNOTATIONS {
            return Err(format!(
                "total size of annotations is {size}, which exceeds the max size of {MAX_ANNOTATIONS}"
            ));
        }
        Ok(())
    }

    /// Returns a hash of everything except the data; it identifies the seed.
    pub(super) fn seed_id(&self) -> [u8; 32] {
        let envelope = Self { encrypted_data: Vec::new(), ..self.clone() };
        let hash = digest::digest(&digest::SHA256, &prost::Message::encode_to_vec(&envelope));
        let mut id = [0; 32];
        id.copy_from_slice(hash.as_ref());
        id
    }
}

/// Checks a key ID.
pub(super) fn validate_key_id(key_id: &str) -> Result<(), InvalidKeyId> {
    match key_id.len() {
        0 => Err(InvalidKeyId { code: "empty", text: "keyID is empty".to_owned() }),
        1..=MAX_KEY_ID => Ok(()),
        length => {
            let text = format!("keyID is {length} bytes, which exceeds the max size of {MAX_KEY_ID}");
            Err(InvalidKeyId { code: "too_long", text })
        }
    }
}

const MAX_SOURCE: usize = 1024;
const MAX_KEY_ID: usize = 1024;
const MAX_ANNOTATIONS: usize = 32 * 1024;
