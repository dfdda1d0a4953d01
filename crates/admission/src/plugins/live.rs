//! A short-lived, bounded set of names.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time for which a name stays in the set.
const TTL: Duration = Duration::from_secs(30);
/// The maximum number of names. The oldest are dropped.
const MAX_NAMES: usize = 10_000;

/// The names added in the last 30 seconds.
#[derive(Debug, Default)]
pub(super) struct Recent {
    names: Mutex<HashMap<String, Instant>>,
}

impl Recent {
    /// Adds a name, or restarts its time.
    pub(super) fn insert(&self, name: &str) {
        let now = Instant::now();
        let names = &mut *self.names.lock();
        if names.len() >= MAX_NAMES && !names.contains_key(name) {
            names.retain(|_, since| now.duration_since(*since) < TTL);
            if names.len() >= MAX_NAMES
                && let Some(oldest) =
                    names.iter().min_by_key(|(_, since)| **since).map(|(name, _)| name.clone())
            {
                names.remove(&oldest);
            }
        }
        names.insert(name.to_owned(), now);
    }

    /// Returns whether a name was added in the last 30 seconds.
    pub(super) fn contains(&self, name: &str) -> bool {
        let names = self.names.lock();
        names.get(name).is_some_and(|since| since.elapsed() < TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let recent = Recent::default();
        for n in 0..=MAX_NAMES {
            recent.insert(&n.to_string());
        }
        assert_eq!(recent.names.lock().len(), MAX_NAMES);
        assert!(recent.contains(&MAX_NAMES.to_string()) && !recent.contains("0"));
    }
}
