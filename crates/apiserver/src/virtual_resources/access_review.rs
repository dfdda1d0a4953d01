//! Access reviews in `authorization.k8s.io` (upstream: `pkg/registry/authorization`).
//!
//! | kind | user | question |
//! | --- | --- | --- |
//! | `SubjectAccessReview` | the user in the spec | is an action allowed? |
//! | `LocalSubjectAccessReview` | the user in the spec | is an action allowed in the namespace of the path? |
//! | `SelfSubjectAccessReview` | the requesting user | is an action allowed? |
//! | `SelfSubjectRulesReview` | the requesting user | which actions are allowed in a namespace? |

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use nave_authz::rbac::Rule;
use nave_authz::{Attributes, Chain, Decision, Selected};
use nave_machinery::selector::{FieldRequirement, FieldSelector, LabelSelector, Requirement};
use nave_machinery::user::UserInfo;
use nave_machinery::{FieldError, GroupKind, Status, Value, meta};
use serde_json::{Map, json};

use super::access_review_validation::{Form, validate};
use crate::endpoints::virtual_resource::{VirtualRequest, VirtualResource};

/// Serves reviews of one action.
pub(super) struct AccessReview {
    pub(super) authorization: Chain,
    pub(super) form: Form,
}

#[async_trait]
impl VirtualResource for AccessReview {
    async fn create(&self, request: &VirtualRequest<'_>, mut review: Value) -> Result<Value, Status> {
        if self.form == Form::Local {
            meta::set(&mut review, "namespace", json!(request.namespace()));
        }
        invalid(&validate(&review, self.form))?;
        let spec = review.get("spec").cloned().unwrap_or_default();
        let named = user(&spec);
        let user = if self.form == Form::Own { request.context.user() } else { &named };
        let selectors = Selectors::from_attributes(&spec["resourceAttributes"]);
        let verdict = self.authorization.decide(&attributes(&spec, user, &selectors)).await;
        let mut status = Map::from_iter([("allowed".to_owned(), json!(verdict.decision == Decision::Allow))]);
        if verdict.decision == Decision::Deny {
            status.insert("denied".to_owned(), json!(true));
        }
        if !verdict.reason.is_empty() {
            status.insert("reason".to_owned(), json!(verdict.reason));
        }
        let errors: Vec<String> = verdict.error.into_iter().chain(selectors.errors()).collect();
        if !errors.is_empty() {
            status.insert("evaluationError".to_owned(), json!(errors.join("; ")));
        }
        review["status"] = Value::Object(status);
        Ok(review)
    }
}

/// Serves reviews of the requesting user's rules.
pub(super) struct RulesReview {
    pub(super) authorization: Chain,
}

#[async_trait]
impl VirtualResource for RulesReview {
    async fn create(&self, request: &VirtualRequest<'_>, review: Value) -> Result<Value, Status> {
        let namespace = meta::str_at(&review, &["spec", "namespace"]).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let found = self.authorization.rules_for(request.context.user(), namespace);
        let is_on_resources = |rule: &&Rule| !rule.resources.is_empty();
        let is_on_paths = |rule: &&Rule| !rule.non_resource_urls.is_empty();
        let on_resources = |rule: &Rule| Rule {
            non_resource_urls: Vec::<String>::new().into_iter().collect(),
            ..rule.clone()
        };
        let on_paths = |rule: &Rule| Rule {
            verbs: rule.verbs.clone(),
            non_resource_urls: rule.non_resource_urls.clone(),
            ..Rule::default()
        };
        let mut status = json!({
            "resourceRules": found.rules.iter().filter(is_on_resources).map(on_resources).collect::<Vec<_>>(),
            "nonResourceRules": found.rules.iter().filter(is_on_paths).map(on_paths).collect::<Vec<_>>(),
            "incomplete": found.incomplete,
        });
        if let Some(error) = found.error {
            status["evaluationError"] = json!(error);
        }
        Ok(json!({
            "apiVersion": meta::api_version(&review),
            "kind": meta::kind(&review),
            "metadata": {},
            "spec": {},
            "status": status,
        }))
    }
}

/// Returns 422 if there are errors. As upstream, the status does not name a kind.
fn invalid(errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "authorization.k8s.io".to_owned(), kind: String::new() };
    Err(Status::invalid(&kind, "", errors))
}

/// Returns the user in a review's spec.
fn user(spec: &Value) -> UserInfo {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    // Removes duplicate groups, because authorizers check the rules of a group each time it occurs.
    let mut groups = texts(&spec["groups"]);
    let mut seen = HashSet::new();
    groups.retain(|group| seen.insert(group.clone()));
    UserInfo {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups,
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect::<BTreeMap<_, _>>(),
    }
}

fn attributes<'a>(spec: &'a Value, user: &'a UserInfo, selectors: &'a Selectors) -> Attributes<'a> {
    let all = Attributes::for_user(user);
    let attributes = &spec["resourceAttributes"];
    if attributes.is_null() {
        let attributes = &spec["nonResourceAttributes"];
        return Attributes { verb: text(attributes, "verb"), path: text(attributes, "path"), ..all };
    }
    let version = text(attributes, "version");
    let Selectors { fields, labels } = selectors;
    Attributes {
        verb: text(attributes, "verb"),
        group: text(attributes, "group"),
        version: if version.is_empty() { "*" } else { version },
        resource: text(attributes, "resource"),
        subresource: text(attributes, "subresource"),
        name: text(attributes, "name"),
        namespace: text(attributes, "namespace"),
        fields: Selected { requirements: &fields.0, incomplete: fields.1 },
        labels: Selected { requirements: &labels.0, incomplete: labels.1 },
        ..all
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// The valid requirements of a review's selectors, and whether any requirement is invalid.
#[derive(Default)]
struct Selectors {
    fields: (Vec<FieldRequirement>, bool),
    labels: (Vec<Requirement>, bool),
}

impl Selectors {
    fn from_attributes(attributes: &Value) -> Self {
        Self { fields: fields(&attributes["fieldSelector"]), labels: labels(&attributes["labelSelector"]) }
    }

    fn errors(&self) -> impl Iterator<Item = String> {
        let (fields, labels) = (&self.fields, &self.labels);
        let selectors =
            [("fieldSelector", fields.1, fields.0.len()), ("labelSelector", labels.1, labels.0.len())];
        selectors.into_iter().filter(|(_, incomplete, _)| *incomplete).map(|(selector, _, read)| {
            let partially = if read > 0 { "partially " } else { "" };
            format!("spec.resourceAttributes.{selector} {partially}ignored due to parse error")
        })
    }
}

fn fields(selector: &Value) -> (Vec<FieldRequirement>, bool) {
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        let read = FieldSelector::parse(raw);
        return read.map_or((Vec::new(), true), |read| (read.requirements().to_vec(), false));
    }
    let all: Vec<&Value> = selector["requirements"].as_array().into_iter().flatten().collect();
    let read: Vec<FieldRequirement> = all.iter().filter_map(|one| field(one)).collect();
    let incomplete = read.len() < all.len();
    (read, incomplete)
}

/// Parses a field requirement. Fields support only equality and inequality.
fn field(requirement: &Value) -> Option<FieldRequirement> {
    let [value] = requirement["values"].as_array()?.as_slice() else { return None };
    let negated = match text(requirement, "operator") {
        "In" => false,
        "NotIn" => true,
        _ => return None,
    };
    Some(FieldRequirement {
        path: text(requirement, "key").to_owned(),
        negated,
        value: value.as_str()?.to_owned(),
    })
}

fn labels(selector: &Value) -> (Vec<Requirement>, bool) {
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        let read = LabelSelector::parse(raw);
        return read.map_or((Vec::new(), true), |read| (read.requirements().to_vec(), false));
    }
    let all: Vec<&Value> = selector["requirements"].as_array().into_iter().flatten().collect();
    let one = |requirement: &&Value| {
        let selector = LabelSelector::from_value(&json!({"matchExpressions": [requirement]})).ok()?;
        selector.requirements().first().cloned()
    };
    let read: Vec<Requirement> = all.iter().filter_map(one).collect();
    let incomplete = read.len() < all.len();
    (read, incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_group_counts_once() {
        let groups: Vec<&str> = ["b", "a"].into_iter().cycle().take(1000).collect();
        assert_eq!(user(&json!({"user": "u", "groups": groups})).groups, ["b", "a"]);
    }
}
