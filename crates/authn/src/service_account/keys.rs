//! The keys of service accounts' tokens.

use tokio::sync::SetOnce;

use crate::jwt::{PublicKey, SigningKey};

/// The key that signs, and those that verify.
#[derive(Debug)]
pub struct Keys {
    signing: SigningKey,
    verifying: Vec<PublicKey>,
}

impl Keys {
    /// Signs with one key, and verifies with these; with the signing key's other half where there are none.
    pub fn new(signing: SigningKey, verifying: Vec<PublicKey>) -> Self {
        let verifying = if verifying.is_empty() { vec![signing.public().clone()] } else { verifying };
        Self { signing, verifying }
    }

    /// The key that signs.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The keys that verify.
    pub fn verifying(&self) -> &[PublicKey] {
        &self.verifying
    }
}

/// Keys that may still be being made: who needs them waits. A new RSA key takes longer than all else at a first
/// start.
#[derive(Debug, Default)]
pub struct KeyRing(SetOnce<Keys>);

impl KeyRing {
    /// Keys that are there.
    pub fn new(keys: Keys) -> Self {
        Self(SetOnce::new_with(Some(keys)))
    }

    /// Puts the keys in; the first ones stay.
    pub fn set(&self, keys: Keys) {
        let _ = self.0.set(keys);
    }

    /// The keys, once they are there.
    pub async fn get(&self) -> &Keys {
        self.0.wait().await
    }
}
