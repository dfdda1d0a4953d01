//! Validation of reviews (upstream: `pkg/apis/authorization/validation`).

use nave_machinery::{FieldError, FieldPath, Value, meta};

/// The user and the scope of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For any user.
    Subject,
    /// For any user, in one namespace.
    Local,
    /// For the requesting user.
    Own,
}

/// Returns the errors of a review.
pub(super) fn validate(review: &Value, form: Form) -> Vec<FieldError> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let at = FieldPath::new("spec");
    let mut errors = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_null(), path.is_null()) {
        (false, false) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(&at.child("nonResourceAttributes"), path.clone(), why));
        }
        (true, true) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(&at.child("resourceAttributes"), Value::Null, why));
        }
        _ => {}
    }
    let has_no_user = text(spec, "user").is_empty() && list(spec, "groups").is_empty();
    if form != Form::Own && has_no_user {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&at.child("user"), "", why));
    }
    let at = at.child("resourceAttributes");
    selector(&resource["fieldSelector"], &at.child("fieldSelector"), &mut errors);
    selector(&resource["labelSelector"], &at.child("labelSelector"), &mut errors);
    metadata(review, form, &mut errors);
    if form == Form::Local {
        let namespace = text(resource, "namespace");
        if !resource.is_null() && namespace != meta::namespace(review) {
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid(&at.child("namespace"), namespace, why));
        }
        if !path.is_null() {
            let at = FieldPath::new("spec").child("nonResourceAttributes");
            errors.push(FieldError::invalid(&at, path.clone(), "disallowed on this kind of request"));
        }
    }
    errors
}

/// Checks that a review has no metadata except fields that the server sets or clears on all objects.
fn metadata(review: &Value, form: Form, errors: &mut Vec<FieldError>) {
    const CLEARED: [&str; 6] = [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
        "uid",
    ];
    let allowed = |field: &str| CLEARED.contains(&field) || (form == Form::Local && field == "namespace");
    let fields = review.get("metadata").and_then(Value::as_object);
    if fields.into_iter().flatten().any(|(field, value)| !allowed(field) && !is_empty(value)) {
        let why = if form == Form::Local { "must be empty except for namespace" } else { "must be empty" };
        let shown = review.get("metadata").cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&FieldPath::new("metadata"), shown, why));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Checks that a selector has either requirements or a raw selector, not both. Unknown operators are allowed, for
/// compatibility with future versions.
fn selector(selector: &Value, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if selector.is_null() {
        return;
    }
    let (raw, requirements) = (text(selector, "rawSelector"), list(selector, "requirements"));
    match (raw.is_empty(), requirements.is_empty()) {
        (false, false) => {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(&at.child("rawSelector"), raw, why));
        }
        (true, true) => {
            let why = format!("when {at} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&at.child("requirements"), why));
        }
        _ => {}
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let at = at.child("requirements").index(index);
        if text(requirement, "key").is_empty() {
            errors.push(FieldError::required(&at.child("key"), "must be specified"));
        }
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&at.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), why));
            }
            _ => {}
        }
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(review: &Value, form: Form) -> Vec<String> {
        validate(review, form).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_review_has_one_action_and_a_user() {
        let empty = json!({"metadata": {}, "spec": {}});
        let neither = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let has_no_user = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
        assert_eq!(messages(&empty, Form::Subject), [neither, has_no_user]);
        assert_eq!(messages(&empty, Form::Own), [neither]);
        let fine = json!({
            "metadata": {"creationTimestamp": null},
            "spec": {"groups": ["g"], "nonResourceAttributes": {"path": "/", "verb": "get"}},
        });
        assert_eq!(messages(&fine, Form::Subject), [""; 0]);
        let local = messages(&fine, Form::Local);
        assert_eq!(local.len(), 1);
        assert!(local[0].ends_with("disallowed on this kind of request"), "{local:?}");
    }

    #[test]
    fn metadata_is_empty() {
        let review = json!({
            "metadata": {"name": "n", "namespace": "a"},
            "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}},
        });
        let subject = messages(&review, Form::Subject);
        assert!(subject.len() == 1 && subject[0].starts_with("metadata: Invalid value:"), "{subject:?}");
        let local = messages(&review, Form::Local);
        assert!(local[0].ends_with("must be empty except for namespace"), "{local:?}");
        let elsewhere =
            "spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace";
        assert_eq!(local[1], elsewhere);
    }

    #[test]
    fn selectors_are_raw_or_requirements() {
        let review = |selector: Value| json!({"spec": {"user": "u", "resourceAttributes": {"fieldSelector": selector}}});
        let at = "spec.resourceAttributes.fieldSelector";
        assert_eq!(
            messages(&review(json!({})), Form::Subject),
            [format!(
                "{at}.requirements: Required value: when {at} is specified, requirements or rawSelector is required"
            )]
        );
        let parts = json!([{"key": "a", "operator": "In", "values": ["b"]}, {"key": "", "operator": "Exists", "values": ["x"]}]);
        assert_eq!(
            messages(&review(json!({"rawSelector": "a=b", "requirements": parts})), Form::Subject),
            [
                format!(
                    "{at}.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements"
                ),
                format!("{at}.requirements[1].key: Required value: must be specified"),
                format!(
                    "{at}.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                ),
            ]
        );
    }
}
