//! Conversion between the two forms of an event. Both forms have the same data with different field names.

use nave_machinery::{Map, Value};

/// Field names in the core group and in `events.k8s.io`.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A required field and its empty value.
type RequiredField = (&'static str, fn() -> Value);

/// The fields that the core form always has.
const CORE_ALWAYS: &[RequiredField] = &[
    ("involvedObject", || Value::Object(Map::new())),
    ("source", || Value::Object(Map::new())),
    ("firstTimestamp", || Value::Null),
    ("lastTimestamp", || Value::Null),
    ("eventTime", || Value::Null),
    ("reportingComponent", || Value::String(String::new())),
    ("reportingInstance", || Value::String(String::new())),
];

/// The fields that the `events.k8s.io` form always has.
const EVENTS_ALWAYS: &[RequiredField] = &[
    ("regarding", || Value::Object(Map::new())),
    ("deprecatedSource", || Value::Object(Map::new())),
    ("deprecatedFirstTimestamp", || Value::Null),
    ("deprecatedLastTimestamp", || Value::Null),
    ("eventTime", || Value::Null),
];

/// The fields that the `events.k8s.io` form omits if empty.
const EVENTS_OPTIONAL: &[&str] = &["reportingController", "reportingInstance"];

pub(super) fn to_core(event: &mut Map) {
    rename(event, NAMES.iter().map(|(core, events)| (*events, *core)));
    complete(event, CORE_ALWAYS);
    event.insert("apiVersion".to_owned(), Value::String("v1".to_owned()));
}

pub(super) fn to_events(event: &mut Map) {
    rename(event, NAMES.iter().copied());
    complete(event, EVENTS_ALWAYS);
    for field in EVENTS_OPTIONAL {
        if event.get(*field).and_then(Value::as_str) == Some("") {
            event.remove(*field);
        }
    }
    event.insert("apiVersion".to_owned(), Value::String("events.k8s.io/v1".to_owned()));
}

fn rename(event: &mut Map, names: impl Iterator<Item = (&'static str, &'static str)>) {
    for (from, to) in names {
        if let Some(value) = event.remove(from) {
            event.insert(to.to_owned(), value);
        }
    }
}

fn complete(event: &mut Map, always: &[RequiredField]) {
    for (field, nothing) in always {
        if !event.contains_key(*field) {
            event.insert((*field).to_owned(), nothing());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_survives_the_round_trip() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r", "type": "Normal",
            "source": {"component": "kubelet", "host": "n1"}, "count": 2,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z", "eventTime": null,
            "reportingComponent": "", "reportingInstance": "",
        });
        let mut event = core.clone();
        to_events(event.as_object_mut().unwrap());
        assert_eq!(
            event,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
                "regarding": {"kind": "Pod", "name": "p"}, "note": "m", "reason": "r", "type": "Normal",
                "deprecatedSource": {"component": "kubelet", "host": "n1"}, "deprecatedCount": 2,
                "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:01:00Z",
                "eventTime": null,
            })
        );
        to_core(event.as_object_mut().unwrap());
        assert_eq!(event, core);
    }

    #[test]
    fn writes_required_fields() {
        let mut event = json!({"reportingController": "c", "eventTime": "2026-01-01T00:00:00.000000Z"});
        to_core(event.as_object_mut().unwrap());
        assert_eq!(
            event,
            json!({
                "apiVersion": "v1", "involvedObject": {}, "source": {}, "firstTimestamp": null, "lastTimestamp": null,
                "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "c", "reportingInstance": "",
            })
        );
    }
}
