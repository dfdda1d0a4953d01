//! Validation of events (upstream: `pkg/apis/core/validation/events.go`). The stored core form is validated. Errors
//! use its field names, unless the request's name differs.

use nave_machinery::{FieldError, FieldPath, Value, names};

use crate::semantic::is_equal;
use crate::validate::{At, Errors, IMMUTABLE, checked};

const WORD_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;
/// The fields of legacy events.
const DEPRECATED: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];
const FIXED: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];
const ELSEWHERE: &str = "does not match event.namespace";

/// Validates events of both groups. `component` is the request's field name for the reporting component.
pub(super) fn event(event: &Value, component: &'static str) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(event);
    let (metadata, object) = (root.field("metadata"), root.field("involvedObject"));
    let (namespace, of_object) = (metadata.field("namespace").text(), object.field("namespace"));
    let is_dated = root.field("eventTime").is_set();
    let fits = match (is_dated, of_object.text()) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, other) => namespace == other,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !fits {
        errors.push(of_object.invalid_text(ELSEWHERE));
    }
    if is_dated {
        reported(root, component, &mut errors);
    }
    let wrong = names::is_dns1123_subdomain(namespace);
    errors.extend(
        wrong.into_iter().map(|why| FieldError::invalid(&FieldPath::new("namespace"), namespace, why)),
    );
    errors
}

/// Checks that an event with `eventTime` has the reporter and the action.
fn reported(event: At, component: &'static str, errors: &mut Errors) {
    let who = event.field("reportingComponent").text();
    let path = FieldPath::new(component);
    if who.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    errors.extend(names::is_qualified_name(who).into_iter().map(|why| FieldError::invalid(&path, who, why)));
    for field in ["reportingInstance", "action", "reason"] {
        let at = event.field(field);
        match at.text().len() {
            0 => errors.push(at.required("")),
            1..=WORD_MAX => {}
            _ => errors.push(at.invalid(format!("can have at most {WORD_MAX} characters"))),
        }
    }
    let message = event.field("message");
    if message.text().len() > MESSAGE_MAX {
        errors.push(message.invalid(format!("can have at most {MESSAGE_MAX} characters")));
    }
}

/// Checks additional rules for events created through `events.k8s.io`, which must not be legacy events.
pub(super) fn strict(event: &Value, errors: &mut Errors) {
    let root = At::root(event);
    let (metadata, kind) = (root.field("metadata"), root.field("type"));
    checked(metadata.field("name"), names::is_dns1123_subdomain, errors);
    series(root, errors);
    if !root.field("eventTime").is_set() {
        errors.push(root.field("eventTime").required(""));
    }
    let mut wrong = |at: At, why: String| errors.push(FieldError::invalid(&at.path(), "", why));
    if !["Normal", "Warning"].contains(&kind.text()) {
        wrong(kind, format!("has invalid value: {}", kind.text()));
    }
    for at in DEPRECATED.map(|field| root.field(field)) {
        if at.int() != Some(0) && !is_equal(at.value(), None) {
            wrong(at, "needs to be unset".to_owned());
        }
    }
}

/// Checks that an update through `events.k8s.io` changes only the series.
pub(super) fn strict_update(event: &Value, old: &Value, errors: &mut Errors) {
    let (root, old) = (At::root(event), At::root(old));
    if !is_equal(root.field("series").value(), old.field("series").value()) {
        series(root, errors);
    }
    for field in FIXED {
        let at = root.field(field);
        if !is_equal(at.value(), old.field(field).value()) {
            let path =
                if field == "reportingComponent" { FieldPath::new("reportingController") } else { at.path() };
            errors.push(FieldError::invalid(&path, at.value().cloned().unwrap_or_default(), IMMUTABLE));
        }
    }
}

/// Checks that the count of a series is at least 2.
fn series(event: At, errors: &mut Errors) {
    let series = event.field("series");
    if !series.is_set() {
        return;
    }
    let (count, last) = (series.field("count"), series.field("lastObservedTime"));
    if count.int().unwrap_or_default() < 2 {
        errors.push(FieldError::invalid(&count.path(), "", "should be at least 2"));
    }
    if !last.is_set() {
        errors.push(last.required(""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn event_is_in_the_namespace_of_its_object() {
        let old = |namespace: &str, object: &str| {
            let event =
                json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": object}});
            messages(&event_of(&event))
        };
        assert_eq!(old("a", "a"), [""; 0]);
        assert_eq!(old("default", ""), [""; 0]);
        assert_eq!(
            old("a", "b"),
            [r#"involvedObject.namespace: Invalid value: "b": does not match event.namespace"#]
        );
        assert_eq!(old("a", "").len(), 1);
    }

    fn event_of(value: &Value) -> Errors {
        event(value, "reportingComponent")
    }

    #[test]
    fn event_time_requires_reporter_and_action() {
        let event = json!({
            "metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Normal", "count": 2,
        });
        assert_eq!(
            event_of(&event).iter().map(|error| error.field.to_string()).collect::<Vec<_>>(),
            [
                "reportingComponent",
                "reportingComponent",
                "reportingComponent",
                "reportingInstance",
                "action",
                "reason",
            ]
        );
        let mut errors = Errors::new();
        strict(&event, &mut errors);
        assert_eq!(
            errors.iter().map(|error| error.field.to_string()).collect::<Vec<_>>(),
            ["metadata.name", "count"]
        );
    }

    #[test]
    fn only_the_series_is_mutable() {
        let event = json!({"reason": "r", "message": "m", "source": {}, "count": 0});
        let fields = |change: Value| {
            let mut new = event.clone();
            new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let mut errors = Errors::new();
            strict_update(&new, &event, &mut errors);
            errors.iter().map(|error| error.field.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(fields(json!({"source": null, "related": {}})), [""; 0]);
        let last = "2026-01-01T00:00:00.000000Z";
        assert_eq!(fields(json!({"series": {"count": 2, "lastObservedTime": last}})), [""; 0]);
        assert_eq!(fields(json!({"series": {"count": 1}})), ["series.count", "series.lastObservedTime"]);
        assert_eq!(
            fields(json!({"message": "n", "reportingComponent": "c"})),
            ["message", "reportingController"]
        );
    }
}
