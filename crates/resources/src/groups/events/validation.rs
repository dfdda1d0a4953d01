//! What events must be (upstream: `pkg/apis/core/validation/events.go`). They are checked in the stored form, the core
//! group's; what an error names is a field of that form, but for the parts that have another name in the request.

use nave_machinery::{FieldError, FieldPath, Value, names};

use crate::validate::{At, Errors, one_of};

const WORD_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;
const ELSEWHERE: &str = "does not match event.namespace";

/// What holds for the events of both groups; `component` is what the request calls who reports.
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
    errors
}

/// An event with a time of its own says who saw what.
fn reported(event: At, component: &'static str, errors: &mut Errors) {
    let who = event.field("reportingComponent").text();
    let path = FieldPath::new(component);
    if who.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    let found = if who.is_empty() { Vec::new() } else { names::is_qualified_name(who) };
    errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, who, why)));
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

/// What holds for events that are made through `events.k8s.io` besides: they are of the new kind.
pub(super) fn strict(event: &Value, errors: &mut Errors) {
    let root = At::root(event);
    if !root.field("eventTime").is_set() {
        errors.push(root.field("eventTime").required(""));
    }
    one_of(root.field("type"), &["Normal", "Warning"], errors);
    for (field, deprecated) in [
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ] {
        let at = root.field(field);
        if at.is_set() && at.int() != Some(0) {
            let shown = at.value().cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(&FieldPath::new(deprecated), shown, "needs to be unset"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_event_is_where_its_object_is() {
        let old = |namespace: &str, object: &str| {
            let event =
                json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": object}});
            shown(&event_of(&event))
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
    fn a_dated_event_says_who_saw_what() {
        let event = json!({
            "metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Normal", "count": 2,
        });
        assert_eq!(
            shown(&event_of(&event)),
            [
                "reportingComponent: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
            ]
        );
        let mut errors = Errors::new();
        strict(&event, &mut errors);
        assert_eq!(shown(&errors), ["deprecatedCount: Invalid value: 2: needs to be unset"]);
    }
}
