//! The providers of one resource: the first one encrypts, and a value is decrypted by the one that wrote it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::TransformError;
use crate::ciphers::{Algorithm, Cipher};
use crate::kms::Kms;
use crate::metrics::{Direction, Metrics};

/// The start of all encrypted values.
pub(crate) const ENCRYPTED: &[u8] = b"k8s:enc:";

/// The providers of a resource in order.
#[derive(Default)]
pub(crate) struct Providers(Vec<Provider>);

/// One provider.
#[derive(Clone)]
pub(crate) enum Provider {
    /// Values are plain.
    Identity,
    /// Values are encrypted with keys from the configuration.
    Keys(Arc<Keys>),
    /// Values are encrypted with a seed that a plugin encrypts.
    Kms(Arc<Kms>),
}

/// Named keys of one algorithm. The first one encrypts.
pub(crate) struct Keys {
    pub(crate) algorithm: Algorithm,
    pub(crate) keys: Vec<NamedKey>,
}

/// A key and the prefix of its values, `NAME:`.
pub(crate) struct NamedKey {
    pub(crate) prefix: String,
    pub(crate) cipher: Cipher,
}

/// A decrypted value.
#[derive(Debug)]
pub(crate) struct Decrypted {
    /// The plain value.
    pub(crate) value: Bytes,
    /// The value is not encrypted in the way in which the first provider would encrypt it now.
    pub(crate) is_stale: bool,
}

/// The object that a value belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    /// The resource, for metrics.
    pub(crate) resource: &'a str,
    /// The authenticated key: that of the object in the store.
    pub(crate) key: &'a str,
    pub(crate) metrics: &'a Metrics,
}

impl Providers {
    /// Adds providers after the existing ones.
    pub(crate) fn extend(&mut self, providers: &[Provider]) {
        self.0.extend_from_slice(providers);
    }

    /// Returns whether values can be encrypted, now or by a provider that is only read.
    pub(crate) fn can_encrypt(&self) -> bool {
        !self.0.iter().all(|provider| matches!(provider, Provider::Identity))
    }

    /// Encrypts a value with the first provider.
    pub(crate) fn encrypt(&self, object: Object<'_>, value: Bytes) -> Result<Bytes, TransformError> {
        let Some(provider) = self.0.first() else { return Ok(value) };
        let started = Instant::now();
        let mut stored = provider.prefix().as_bytes().to_vec();
        let outcome = match provider {
            Provider::Identity => {
                object.metrics.transformed(object.resource, Direction::ToStorage, "", started, Ok(()));
                return Ok(value);
            }
            Provider::Keys(keys) => keys.encrypt(object, &value, &mut stored),
            Provider::Kms(kms) => kms.encrypt(object.key, &value, &mut stored),
        };
        let result = outcome.as_ref().copied();
        object.metrics.transformed(object.resource, Direction::ToStorage, provider.prefix(), started, result);
        outcome.map(|()| stored.into())
    }

    /// Decrypts a value with the first provider that can.
    pub(crate) async fn decrypt(
        &self,
        object: Object<'_>,
        stored: &Bytes,
    ) -> Result<Decrypted, TransformError> {
        let started = Instant::now();
        let mut errors = Vec::new();
        for (order, provider) in self.0.iter().enumerate() {
            let Some(sealed) = stored.strip_prefix(provider.prefix().as_bytes()) else { continue };
            let outcome = match provider {
                Provider::Identity if stored.starts_with(ENCRYPTED) => continue,
                Provider::Identity => Ok(Decrypted { value: stored.clone(), is_stale: false }),
                Provider::Keys(keys) => keys.decrypt(object, sealed),
                Provider::Kms(kms) => kms.decrypt(object.key, sealed).await,
            };
            let label = if matches!(provider, Provider::Identity) { "identity" } else { provider.prefix() };
            let result = outcome.as_ref().map(|_| ());
            object.metrics.transformed(object.resource, Direction::FromStorage, label, started, result);
            match outcome {
                Ok(decrypted) => {
                    return Ok(Decrypted { is_stale: decrypted.is_stale || order > 0, ..decrypted });
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            let none = &TransformError::NoProvider;
            object.metrics.transformed(
                object.resource,
                Direction::FromStorage,
                "unknown",
                started,
                Err(none),
            );
        }
        Err(TransformError::of(errors, TransformError::NoProvider))
    }
}

impl Provider {
    /// Returns the prefix of the provider's values; empty for plain values.
    fn prefix(&self) -> &str {
        match self {
            Self::Identity => "",
            Self::Keys(keys) => keys.algorithm.prefix(),
            Self::Kms(kms) => kms.prefix(),
        }
    }
}

impl Keys {
    fn encrypt(&self, object: Object<'_>, value: &[u8], stored: &mut Vec<u8>) -> Result<(), TransformError> {
        let key = self.keys.first().ok_or(TransformError::NoKey(self.algorithm.title()))?;
        let started = Instant::now();
        stored.extend_from_slice(key.prefix.as_bytes());
        let outcome = key.cipher.encrypt(object.key, value, stored);
        let result = outcome.as_ref().copied();
        object.metrics.transformed(object.resource, Direction::ToStorage, &key.prefix, started, result);
        outcome
    }

    fn decrypt(&self, object: Object<'_>, sealed: &[u8]) -> Result<Decrypted, TransformError> {
        let started = Instant::now();
        let mut errors = Vec::new();
        for (order, key) in self.keys.iter().enumerate() {
            let Some(sealed) = sealed.strip_prefix(key.prefix.as_bytes()) else { continue };
            let outcome = key.cipher.decrypt(object.key, sealed);
            let result = outcome.as_ref().map(|_| ());
            object.metrics.transformed(object.resource, Direction::FromStorage, &key.prefix, started, result);
            match outcome {
                Ok(value) => return Ok(Decrypted { value: value.into(), is_stale: order > 0 }),
                Err(error) => errors.push(error),
            }
        }
        let none = TransformError::NoKey(self.algorithm.title());
        if errors.is_empty() {
            object.metrics.transformed(
                object.resource,
                Direction::FromStorage,
                "unknown",
                started,
                Err(&none),
            );
        }
        Err(TransformError::of(errors, none))
    }
}
