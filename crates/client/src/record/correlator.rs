//! Aggregates, counts and limits events like client-go's `EventCorrelator`, with its parameters.

use std::collections::HashSet;
use std::hash::Hash;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use lru::LruCache;

use super::{EventKind, Recorded};

/// Decides how to write each event, based on the previous events.
pub(super) struct Correlator {
    similar: Bounded<Similar, Aggregate>,
    written: Bounded<Repeated, Written>,
    allowances: Bounded<Subject, Allowance>,
}

/// The event to write.
#[derive(Debug, PartialEq)]
pub(super) struct Correlated {
    /// The key under which the written event is stored.
    pub(super) key: Repeated,
    /// The message.
    pub(super) message: String,
    /// The written event that this event repeats, if any.
    pub(super) before: Option<Written>,
}

/// A written event: its name and count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) count: i32,
}

/// The object and source of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    field_path: Option<String>,
}

/// Identifies events that differ only in their message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Similar {
    subject: Subject,
    kind: EventKind,
    reason: &'static str,
}

/// Identifies events that are counted as one: identical events, or all similar events if they are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Repeated {
    similar: Similar,
    message: Option<String>,
}

struct Aggregate {
    messages: HashSet<String>,
    last: Timestamp,
}

/// The rate limit for the events of a subject: a burst followed by a steady rate.
struct Allowance {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self { similar: Bounded::new(), written: Bounded::new(), allowances: Bounded::new() }
    }

    /// Returns the event to write; `None` if its subject exceeds the rate limit. Counts the event in both cases.
    pub(super) fn correlate(&mut self, event: &Recorded) -> Option<Correlated> {
        let subject = Subject::from_reference(&event.object);
        let similar = Similar { subject: subject.clone(), kind: event.kind, reason: event.reason };
        let (key, message) = self.aggregate(similar, event);
        if !self.allow(subject, event.at) {
            if let Some(written) = self.written.0.get_mut(&key) {
                written.count = written.count.saturating_add(1);
            }
            return None;
        }
        let before = self.written.get(&key).cloned();
        Some(Correlated { key, message, before })
    }

    /// Stores a written event with its count.
    pub(super) fn wrote(&mut self, key: Repeated, written: Written) {
        self.written.put(key, written);
    }

    /// Returns the key and the message: those of the event, or a combination if there are many similar events.
    fn aggregate(&mut self, similar: Similar, event: &Recorded) -> (Repeated, String) {
        let known = self.similar.get_or_insert(similar.clone(), || Aggregate::new(event.at));
        if seconds(known.last, event.at) > AGGREGATED_WITHIN {
            *known = Aggregate::new(event.at);
        }
        known.last = event.at;
        known.messages.insert(event.message.clone());
        if known.messages.len() < MAX_SIMILAR {
            let message = event.message.clone();
            return (Repeated { similar, message: Some(message.clone()) }, message);
        }
        // Limits the size of the set of messages.
        if let Some(one) = known.messages.iter().next().cloned() {
            known.messages.remove(&one);
        }
        (Repeated { similar, message: None }, format!("(combined from similar events): {}", event.message))
    }

    fn allow(&mut self, subject: Subject, now: Timestamp) -> bool {
        let allowance = self.allowances.get_or_insert(subject, || Allowance { tokens: BURST, at: now });
        let gained = seconds(allowance.at, now).max(0.0) * PER_SECOND;
        allowance.tokens = (allowance.tokens + gained).min(BURST);
        allowance.at = now;
        if allowance.tokens < 1.0 {
            return false;
        }
        allowance.tokens -= 1.0;
        true
    }
}

impl Subject {
    fn from_reference(object: &ObjectReference) -> Self {
        let ObjectReference { api_version, kind, namespace, name, uid, field_path, .. } = object.clone();
        Self { api_version, kind, namespace, name, uid, field_path }
    }
}

impl Aggregate {
    fn new(at: Timestamp) -> Self {
        Self { messages: HashSet::new(), last: at }
    }
}

/// A bounded LRU map. Enforces the bound itself, as the bound of `LruCache` allocates the full capacity.
struct Bounded<K: Hash + Eq, V>(LruCache<K, V>);

impl<K: Hash + Eq, V> Bounded<K, V> {
    fn new() -> Self {
        Self(LruCache::unbounded())
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        self.0.put(key, value);
        if self.0.len() > MAX_REMEMBERED {
            self.0.pop_lru();
        }
    }

    fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains(&key) {
            self.0.pop_lru();
        }
        self.0.get_or_insert_mut(key, value)
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// The number of different messages at which similar events are combined.
const MAX_SIMILAR: usize = 10;
/// Similar events are no longer combined if more than this many seconds pass between two of them.
const AGGREGATED_WITHIN: f64 = 600.0;
/// The maximum burst of events per subject.
const BURST: f64 = 25.0;
/// The steady rate per subject: one event per five minutes.
const PER_SECOND: f64 = 1.0 / 300.0;
/// The maximum number of entries in each map.
const MAX_REMEMBERED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, message: &str, at: i64) -> Recorded {
        let object = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        let at = Timestamp::from_second(at).unwrap();
        let (component, message) = ("c".into(), message.to_owned());
        Recorded { component, object, kind: EventKind::Normal, reason: "Reason", message, at }
    }

    /// Returns the message and the count of the event to write.
    fn correlate(correlator: &mut Correlator, event: &Recorded) -> Option<(String, i32)> {
        let Correlated { key, message, before } = correlator.correlate(event)?;
        let count = before.map_or(0, |before| before.count) + 1;
        correlator.wrote(key, Written { name: "event".to_owned(), count });
        Some((message, count))
    }

    #[test]
    fn counts_repeated_events() {
        let mut correlator = Correlator::new();
        for count in 1..=5 {
            assert_eq!(
                correlate(&mut correlator, &event("a", "x", count)),
                Some(("x".to_owned(), count.try_into().unwrap()))
            );
        }
        assert_eq!(correlate(&mut correlator, &event("a", "y", 6)), Some(("y".to_owned(), 1)));
        assert_eq!(correlate(&mut correlator, &event("b", "x", 6)), Some(("x".to_owned(), 1)));
    }

    #[test]
    fn combines_similar_events_until_a_pause() {
        let mut correlator = Correlator::new();
        for number in 1..10 {
            let message = format!("message {number}");
            assert_eq!(correlate(&mut correlator, &event("a", &message, number)), Some((message, 1)));
        }
        for number in 10..13 {
            let combined = format!("(combined from similar events): message {number}");
            let written = correlate(&mut correlator, &event("a", &format!("message {number}"), number));
            assert_eq!(written, Some((combined, i32::try_from(number).unwrap() - 9)));
        }
        let later = event("a", "message 13", 700);
        assert_eq!(correlate(&mut correlator, &later), Some(("message 13".to_owned(), 1)));
    }

    #[test]
    fn limits_events_of_a_subject_to_one_in_five_minutes() {
        let mut correlator = Correlator::new();
        for _ in 0..25 {
            assert!(correlate(&mut correlator, &event("a", "x", 0)).is_some());
        }
        assert_eq!(correlate(&mut correlator, &event("a", "x", 1)), None);
        assert!(correlate(&mut correlator, &event("b", "x", 1)).is_some());
        assert_eq!(correlate(&mut correlator, &event("a", "x", 302)), Some(("x".to_owned(), 27)));
        assert_eq!(correlate(&mut correlator, &event("a", "x", 303)), None);
    }

    #[test]
    fn number_of_remembered_entries_is_bounded() {
        let mut correlator = Correlator::new();
        for number in 0..2 * MAX_REMEMBERED {
            correlate(&mut correlator, &event(&number.to_string(), "x", 0));
        }
        assert_eq!(correlator.similar.0.len(), MAX_REMEMBERED);
        assert_eq!(correlator.written.0.len(), MAX_REMEMBERED);
        assert_eq!(correlator.allowances.0.len(), MAX_REMEMBERED);
        assert_eq!(correlate(&mut correlator, &event("0", "x", 0)), Some(("x".to_owned(), 1)));
    }
}
