//! The keys of service account tokens.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::SetOnce;

use crate::jwt::{PublicKey, SigningKey};

/// The signing key, and the verification keys.
#[derive(Debug)]
pub struct Keys {
    signing: SigningKey,
    verifying: Vec<PublicKey>,
}

impl Keys {
    /// Signs with `signing` and verifies with `verifying`; an empty list means the public half of the signing key.
    pub fn new(signing: SigningKey, verifying: Vec<PublicKey>) -> Self {
        let verifying = if verifying.is_empty() { vec![signing.public().clone()] } else { verifying };
        Self { signing, verifying }
    }

    /// The signing key.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The verification keys.
    pub fn verifying(&self) -> &[PublicKey] {
        &self.verifying
    }
}

/// Creates the keys on first use.
type Make = Box<dyn FnOnce() -> Option<Keys> + Send>;

/// Keys that exist or are created on first use. Generating an RSA key takes longer than the rest of the first startup,
/// and many servers never issue a token.
pub struct KeyRing {
    keys: Arc<SetOnce<Keys>>,
    make: Mutex<Option<Make>>,
}

impl KeyRing {
    /// Wraps existing keys.
    pub fn new(keys: Keys) -> Self {
        Self { keys: Arc::new(SetOnce::new_with(Some(keys))), make: Mutex::new(None) }
    }

    /// Creates the keys with `make` on first use. `make` runs once, on a thread that may block. If it fails,
    /// [`Self::get`] never returns.
    pub fn created_on_first_use(make: impl FnOnce() -> Option<Keys> + Send + 'static) -> Self {
        Self { keys: Arc::default(), make: Mutex::new(Some(Box::new(make))) }
    }

    /// Returns the keys; the first call creates them.
    pub async fn get(&self) -> &Keys {
        if let Some(make) = self.make.lock().take() {
            let ring = Arc::clone(&self.keys);
            tokio::task::spawn_blocking(move || {
                if let Some(keys) = make() {
                    // Cannot fail: only this task sets the cell.
                    let _ = ring.set(keys);
                }
            });
        }
        self.keys.wait().await
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::jwt::generate_rsa_pem;

    #[tokio::test]
    async fn creates_keys_on_first_use_and_once() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let ring = KeyRing::created_on_first_use(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let signing = SigningKey::from_pem(generate_rsa_pem().ok()?.as_bytes()).ok()?;
            Some(Keys::new(signing, Vec::new()))
        });
        assert_eq!(made.load(Ordering::SeqCst), 0, "created before the first use");
        let (first, second) = tokio::join!(ring.get(), ring.get());
        assert!(std::ptr::eq(first, second));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
