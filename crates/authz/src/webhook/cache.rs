//! A cache of webhook responses.

use std::collections::HashMap;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::review::{self, Outcome, ReviewVersion};
use crate::Attributes;

/// The maximum number of cached responses.
const CAPACITY: usize = 8192;

/// The hash of a request's attributes.
pub(super) type Key = [u8; 32];

/// Computes the key of a request.
pub(super) fn key(attributes: &Attributes<'_>) -> Key {
    // The review contains the whole input of a webhook in a deterministic form.
    Sha256::digest(review::request(attributes, ReviewVersion::V1).to_string()).into()
}

/// Cached responses, each with an expiration. The least recently used responses are evicted.
///
/// The cache has two generations. An entry in use moves to the young generation. When the young generation is full, it
/// replaces the old one. So entries in use survive without a linked list or counters.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Key, (Outcome, Instant)>,
    old: HashMap<Key, (Outcome, Instant)>,
}

impl Cache {
    /// Returns the response if it has not expired.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<Outcome> {
        if let Some((outcome, until)) = self.young.get(key) {
            return (*until > now).then(|| outcome.clone());
        }
        let (outcome, until) = self.old.remove(key)?;
        if until <= now {
            return None;
        }
        self.put(*key, outcome.clone(), until);
        Some(outcome)
    }

    /// Stores a response.
    pub(super) fn put(&mut self, key: Key, outcome: Outcome, until: Instant) {
        if self.young.len() >= CAPACITY / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (outcome, until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(at: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&at.to_le_bytes());
        key
    }

    #[test]
    fn answers_expire() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let allowed = Outcome { allowed: true, ..Outcome::default() };
        cache.put(key(1), allowed.clone(), now + Duration::from_secs(1));
        assert_eq!(cache.get(&key(1), now), Some(allowed));
        assert_eq!(cache.get(&key(1), now + Duration::from_secs(1)), None);
        assert_eq!(cache.get(&key(2), now), None);
    }

    #[test]
    fn cache_is_bounded_and_keeps_used_entries() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let until = now + Duration::from_hours(1);
        cache.put(key(0), Outcome::default(), until);
        for at in 1..100_000 {
            cache.put(key(at), Outcome::default(), until);
            assert!(at % 1000 != 0 || cache.get(&key(0), now).is_some(), "evicted after {at}");
        }
        assert!(cache.young.len() + cache.old.len() <= CAPACITY);
        assert_eq!(cache.get(&key(1), now), None);
    }

    #[test]
    fn key_depends_on_user_and_attributes() {
        let user = nave_machinery::user::UserInfo { name: "u".into(), ..Default::default() };
        let other = nave_machinery::user::UserInfo { uid: "1".into(), ..user.clone() };
        let get = Attributes { verb: "get", resource: "pods", name: "p", ..Attributes::for_user(&user) };
        assert_eq!(super::key(&get), super::key(&get));
        for different in [
            Attributes { user: &other, ..get },
            Attributes { name: "q", ..get },
            // The key depends on the boundaries between fields.
            Attributes { resource: "podsp", name: "", ..get },
            Attributes { verb: "get", path: "pods", ..Attributes::for_user(&user) },
        ] {
            assert_ne!(super::key(&get), super::key(&different), "{different:?}");
        }
    }
}
