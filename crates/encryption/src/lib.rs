//! Encryption at rest: `EncryptionConfiguration`, its providers, and a store whose values are encrypted in another store.
//! Configuration, values, errors and metrics are kube-apiserver's.
//!
//! ```text
//!  Store (plain values) ──► EncryptedStore ──► Providers of the resource ──► Store (encrypted values)
//!                                               identity, aescbc, aesgcm, secretbox,
//!                                               kms ──► seed, encrypted by a plugin over gRPC
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | `config` | the file of `--encryption-provider-config`: parsing and validation |
//! | `encryption` | [`Encryption`]: the providers of all resources, reload, health |
//! | `providers` | the providers of one resource: the first writes, all read |
//! | `ciphers` | AES-CBC, AES-GCM and secretbox with named keys |
//! | `kms` | envelope encryption with a key management plugin (KMS v2) |
//! | `store` | the store that encrypts and decrypts |
//!
//! # Invariants
//! - A value starts with its provider and key: `k8s:enc:aescbc:v1:key1:`. Values without the prefix `k8s:enc:` are plain.
//! - A plain value is never returned for an encrypted one, and no value is left out: a read of a value that cannot be
//!   decrypted fails with [`StoreError::Transform`](nave_store::StoreError::Transform). A resource without providers
//!   fails in the same way if it has encrypted values.
//! - `aesgcm` and `kms` authenticate the key of the object in the store, so a value cannot be moved to another object.
//! - Keys are not in any error, log line or `Debug` output.
//!
//! Source: <https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>, KEP-3299 (KMS v2), upstream's
//! `apiserver/pkg/storage/value` and `apiserver/pkg/server/options/encryptionconfig`.

mod ciphers;
mod config;
mod encryption;
mod error;
mod kms;
mod metrics;
mod providers;
mod store;

pub use config::{ConfigError, EncryptionConfiguration};
pub use encryption::{Encryption, LoadError};
pub use error::TransformError;
pub use kms::Timings;
#[cfg(feature = "testing")]
pub use kms::testing;
pub use metrics::Metrics;
pub use store::EncryptedStore;
