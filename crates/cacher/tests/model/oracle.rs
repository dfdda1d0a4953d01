//! Expected results of readers: a simple replay of the store's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use nave_cacher::{CachedObject, EventType};
use nave_store::EventKind;

use crate::selection::Selection;
use crate::support::{FakeStore, PREFIX};

/// An object as the oracle sees it, parsed from its key and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) key: Arc<str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) node: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// An expected watch event: its type and its object with the event's revision.
pub(crate) type ExpectedEvent = (EventType, Model);

/// One committed change of the resource.
struct Change {
    revision: u64,
    key: Arc<str>,
    old: Option<Model>,
    new: Option<Model>,
}

/// Replays the store's log.
pub(crate) struct Oracle<'a>(pub(crate) &'a FakeStore);

impl Model {
    /// Parses the JSON of a cached object.
    pub(crate) fn from_object(object: &CachedObject) -> Self {
        let bytes = object.json();
        let json = std::str::from_utf8(&bytes).unwrap();
        let (version, text) = json
            .strip_prefix(r#"{"metadata":{"resourceVersion":""#)
            .and_then(|rest| rest.strip_suffix(r#""}"#)?.split_once(r#""},"is":""#))
            .unwrap();
        assert_eq!(version, object.resource_version().to_string());
        let model = Self::parse(object.key(), object.resource_version(), text).unwrap();
        assert_eq!((&*model.namespace, &*model.name), (object.namespace(), object.name()));
        model
    }

    /// Parses `node;label=value,…`; returns `None` for undecodable text.
    fn parse(key: &Arc<str>, revision: u64, text: &str) -> Option<Self> {
        let (namespace, name) = key.strip_prefix(PREFIX)?.split_once('/')?;
        let (node, labels) = text.split_once(';')?;
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
        let (namespace, name, node) = (namespace.to_owned(), name.to_owned(), node.to_owned());
        Some(Self { key: Arc::clone(key), namespace, name, revision, node, labels })
    }
}

impl Oracle<'_> {
    /// Returns the objects selected at `revision`, in key order.
    pub(crate) fn selected_at(&self, revision: u64, selection: &Selection) -> Vec<Model> {
        let mut state = BTreeMap::new();
        for Change { key, new, .. } in self.changes().into_iter().filter(|change| change.revision <= revision)
        {
            match new {
                Some(new) => state.insert(key, new),
                None => state.remove(&key),
            };
        }
        state.into_values().filter(|model| selection.matches(model)).collect()
    }

    /// Returns the expected events of a watch after `revision`.
    pub(crate) fn events_after(&self, revision: u64, selection: &Selection) -> Vec<ExpectedEvent> {
        let expected = |Change { revision, old, new, .. }: Change| {
            let old = old.filter(|old| selection.matches(old));
            let new = new.filter(|new| selection.matches(new));
            match (old, new) {
                (None, None) => None,
                (None, Some(new)) => Some((EventType::Added, new)),
                (Some(_), Some(new)) => Some((EventType::Modified, new)),
                (Some(old), None) => Some((EventType::Deleted, Model { revision, ..old })),
            }
        };
        self.changes().into_iter().filter(|change| change.revision > revision).filter_map(expected).collect()
    }

    fn changes(&self) -> Vec<Change> {
        let mut state: BTreeMap<Arc<str>, Model> = BTreeMap::new();
        let mut changes = Vec::new();
        for event in self.0.with(|inner| inner.log.clone()) {
            if !event.kv.key.starts_with(PREFIX) {
                continue;
            }
            let text = std::str::from_utf8(&event.kv.value).unwrap();
            let new = Some(text).filter(|_| event.kind == EventKind::Put);
            let new = new.and_then(|text| Model::parse(&event.kv.key, event.kv.mod_revision, text));
            let old = match &new {
                Some(new) => state.insert(Arc::clone(&event.kv.key), new.clone()),
                None => state.remove(&event.kv.key),
            };
            changes.push(Change { revision: event.kv.mod_revision, key: event.kv.key, old, new });
        }
        changes
    }
}
