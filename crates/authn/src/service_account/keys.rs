//! The keys of service accounts' tokens.

use std::sync::Arc;

use parking_lot::Mutex;
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

/// What makes keys when they are needed.
type Make = Box<dyn FnOnce() -> Option<Keys> + Send>;

/// Keys that are there, or that are made when somebody needs them: a new RSA key takes more time than all else that a
/// first start does, and many a server is never asked for a token.
pub struct KeyRing {
    keys: Arc<SetOnce<Keys>>,
    make: Mutex<Option<Make>>,
}

impl KeyRing {
    /// Keys that are there.
    pub fn new(keys: Keys) -> Self {
        Self { keys: Arc::new(SetOnce::new_with(Some(keys))), make: Mutex::new(None) }
    }

    /// Keys that `make` makes, once, on a thread that may block. Where it fails, those who need the keys wait in vain.
    pub fn made_when_needed(make: impl FnOnce() -> Option<Keys> + Send + 'static) -> Self {
        Self { keys: Arc::default(), make: Mutex::new(Some(Box::new(make))) }
    }

    /// The keys, once they are there. Who asks first sees to it that they are made.
    pub async fn get(&self) -> &Keys {
        if let Some(make) = self.make.lock().take() {
            let ring = Arc::clone(&self.keys);
            tokio::task::spawn_blocking(move || {
                if let Some(keys) = make() {
                    // Nobody else makes any.
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
    async fn keys_are_made_when_they_are_needed_and_once() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let ring = KeyRing::made_when_needed(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let signing = SigningKey::from_pem(generate_rsa_pem().ok()?.as_bytes()).ok()?;
            Some(Keys::new(signing, Vec::new()))
        });
        assert_eq!(made.load(Ordering::SeqCst), 0, "nobody has asked");
        let (first, second) = tokio::join!(ring.get(), ring.get());
        assert!(std::ptr::eq(first, second));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
