//! What webhooks said, for a while.

use std::collections::HashMap;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::review::{self, Outcome, ReviewVersion};
use crate::Attributes;

/// Answers that are remembered at most.
const CAPACITY: usize = 8192;

/// A question: who asks for what, as a hash.
pub(super) type Key = [u8; 32];

/// The key of a question.
pub(super) fn key(attributes: &Attributes<'_>) -> Key {
    // The review holds all that a webhook can decide by, and its form is one.
    Sha256::digest(review::request(attributes, ReviewVersion::V1).to_string()).into()
}

/// Answers, each until its time; where there is no room the one that was used least recently goes.
///
/// Two generations: what is used is in the young one. When that is full it becomes the old one, and the old one is
/// forgotten. So an answer in use survives, and nothing is counted or linked.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Key, (Outcome, Instant)>,
    old: HashMap<Key, (Outcome, Instant)>,
}

impl Cache {
    /// The answer, if there is one whose time is not over.
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

    /// Remembers an answer.
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
    fn an_answer_lasts_until_its_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let allowed = Outcome { allowed: true, ..Outcome::default() };
        cache.put(key(1), allowed.clone(), now + Duration::from_secs(1));
        assert_eq!(cache.get(&key(1), now), Some(allowed));
        assert_eq!(cache.get(&key(1), now + Duration::from_secs(1)), None);
        assert_eq!(cache.get(&key(2), now), None);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let until = now + Duration::from_hours(1);
        cache.put(key(0), Outcome::default(), until);
        for at in 1..100_000 {
            cache.put(key(at), Outcome::default(), until);
            assert!(at % 1000 != 0 || cache.get(&key(0), now).is_some(), "forgotten after {at}");
        }
        assert!(cache.young.len() + cache.old.len() <= CAPACITY);
        assert_eq!(cache.get(&key(1), now), None);
    }

    #[test]
    fn who_asks_for_what_makes_the_key() {
        let user = nave_machinery::user::UserInfo { name: "u".into(), ..Default::default() };
        let other = nave_machinery::user::UserInfo { uid: "1".into(), ..user.clone() };
        let get = Attributes { verb: "get", resource: "pods", name: "p", ..Attributes::of(&user) };
        assert_eq!(super::key(&get), super::key(&get));
        for different in [
            Attributes { user: &other, ..get },
            Attributes { name: "q", ..get },
            // The parts do not run into each other.
            Attributes { resource: "podsp", name: "", ..get },
            Attributes { verb: "get", path: "pods", ..Attributes::of(&user) },
        ] {
            assert_ne!(super::key(&get), super::key(&different), "{different:?}");
        }
    }
}
