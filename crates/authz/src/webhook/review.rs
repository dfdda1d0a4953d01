//! Builds `SubjectAccessReview` requests and parses responses.

use nave_machinery::selector::Operator;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Attributes;

/// The supported versions of `SubjectAccessReview`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReviewVersion {
    V1,
    V1beta1,
}

impl ReviewVersion {
    /// Parses `v1` or `v1beta1`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1beta1),
            _ => None,
        }
    }
}

/// The status in a webhook's response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    pub(super) allowed: bool,
    pub(super) denied: bool,
    pub(super) reason: String,
}

/// Builds the review of a request.
pub(super) fn request(attributes: &Attributes<'_>, version: ReviewVersion) -> Value {
    let (version, groups) = match version {
        ReviewVersion::V1 => ("v1", "groups"),
        ReviewVersion::V1beta1 => ("v1beta1", "group"),
    };
    let user = attributes.user;
    let mut spec = Map::new();
    text(&mut spec, "user", &user.name);
    text(&mut spec, "uid", &user.uid);
    if !user.groups.is_empty() {
        spec.insert(groups.to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
    let mut fields = Map::new();
    if attributes.is_resource_request() {
        for (field, value) in parts(attributes) {
            text(&mut fields, field, value);
        }
        selectors(&mut fields, attributes);
        spec.insert("resourceAttributes".to_owned(), Value::Object(fields));
    } else {
        text(&mut fields, "path", attributes.path);
        text(&mut fields, "verb", attributes.verb);
        spec.insert("nonResourceAttributes".to_owned(), Value::Object(fields));
    }
    let api_version = format!("authorization.k8s.io/{version}");
    json!({"apiVersion": api_version, "kind": "SubjectAccessReview", "metadata": {}, "spec": spec})
}

/// The string attributes of a resource request.
pub(super) fn parts<'a>(attributes: &Attributes<'a>) -> [(&'static str, &'a str); 7] {
    let Attributes { namespace, verb, group, version, resource, subresource, name, .. } = *attributes;
    [
        ("namespace", namespace),
        ("verb", verb),
        ("group", group),
        ("version", version),
        ("resource", resource),
        ("subresource", subresource),
        ("name", name),
    ]
}

/// Returns the total length of the attributes that a client controls.
pub(super) fn size(attributes: &Attributes<'_>) -> usize {
    parts(attributes).iter().map(|(_, part)| part.len()).sum::<usize>() + attributes.path.len()
}

/// Adds the field and label selectors.
pub(super) fn selectors(review: &mut Map<String, Value>, attributes: &Attributes<'_>) {
    let fields = attributes.fields.requirements.iter().map(|it| {
        let operator = if it.negated { "NotIn" } else { "In" };
        json!({"key": it.path, "operator": operator, "values": [it.value]})
    });
    let fields: Vec<Value> = fields.collect();
    if !fields.is_empty() {
        review.insert("fieldSelector".to_owned(), json!({"requirements": fields}));
    }
    let labels = attributes.labels.requirements.iter().filter_map(|it| {
        let operator = match it.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // The API has no operators for these comparisons.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut requirement = json!({"key": it.key, "operator": operator});
        if !it.values.is_empty() {
            requirement["values"] = json!(it.values);
        }
        Some(requirement)
    });
    let labels: Vec<Value> = labels.collect();
    if !labels.is_empty() {
        review.insert("labelSelector".to_owned(), json!({"requirements": labels}));
    }
}

/// Parses the status in a webhook's response.
///
/// # Errors
/// The response is not a review with a status.
pub(super) fn read(answer: &Value) -> Result<Outcome, String> {
    if answer["kind"] != "SubjectAccessReview" {
        return Err("the webhook's response is not a SubjectAccessReview".to_owned());
    }
    let status = Outcome::deserialize(&answer["status"]);
    status.map_err(|error| format!("the status in the webhook's response cannot be parsed: {error}"))
}

fn text(fields: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(field.to_owned(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::selector::{FieldSelector, LabelSelector};
    use nave_machinery::user::UserInfo;

    use super::*;
    use crate::Selected;

    #[test]
    fn review_has_user_and_attributes() {
        let user = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
        let fields = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed").unwrap();
        let labels = LabelSelector::parse("a=b,c notin (d),!e,f>1").unwrap();
        let list = Attributes {
            verb: "list",
            version: "v1",
            resource: "pods",
            namespace: "ns",
            fields: Selected { requirements: fields.requirements(), incomplete: false },
            labels: Selected { requirements: labels.requirements(), incomplete: false },
            ..Attributes::for_user(&user)
        };
        let expected = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": "u",
                "groups": ["g"],
                "resourceAttributes": {
                    "verb": "list", "version": "v1", "resource": "pods", "namespace": "ns",
                    "fieldSelector": {"requirements": [
                        {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                        {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
                    ]},
                    "labelSelector": {"requirements": [
                        {"key": "a", "operator": "In", "values": ["b"]},
                        {"key": "c", "operator": "NotIn", "values": ["d"]},
                        {"key": "e", "operator": "DoesNotExist"},
                    ]},
                },
            },
        });
        assert_eq!(request(&list, ReviewVersion::V1), expected);
        let path = Attributes { verb: "get", path: "/x", ..Attributes::for_user(&user) };
        let old = request(&path, ReviewVersion::V1beta1);
        assert_eq!(old["apiVersion"], "authorization.k8s.io/v1beta1");
        let spec =
            json!({"user": "u", "group": ["g"], "nonResourceAttributes": {"path": "/x", "verb": "get"}});
        assert_eq!(old["spec"], spec);
    }

    #[test]
    fn rejects_response_without_valid_status() {
        let review = |status: Value| json!({"kind": "SubjectAccessReview", "status": status});
        assert_eq!(read(&review(json!({}))), Ok(Outcome::default()));
        let denied = Outcome { denied: true, reason: "r".into(), allowed: false };
        assert_eq!(read(&review(json!({"denied": true, "reason": "r", "more": 1}))), Ok(denied));
        assert!(read(&review(Value::Null)).is_err());
        assert!(read(&review(json!({"allowed": "yes"}))).is_err());
        assert!(read(&json!({"kind": "Status", "status": {"allowed": true}})).is_err());
    }
}
