//! Parses `policy.txt`; the file's header explains the notation.

use nave_machinery::Value;
use serde_json::{Map, json};

use crate::rbac::{GROUP, Rule};

const POLICY: &str = include_str!("policy.txt");

/// The prefix of labels that aggregate roles into another role.
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A default object.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The resource, such as `clusterroles`.
    pub resource: &'static str,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The object (`rbac.authorization.k8s.io/v1`).
    pub object: Value,
}

/// The error for a line that cannot be parsed, which is a bug in this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the bootstrap policy: {text}")]
pub struct PolicyError {
    /// The line number, from 1.
    pub line: usize,
    /// The text of the line.
    pub text: String,
}

/// Returns the default roles and bindings: all roles, then all bindings.
///
/// # Errors
/// A bug in this crate's data.
pub fn policy() -> Result<Vec<Bootstrap>, PolicyError> {
    let mut objects: Vec<Bootstrap> = Vec::new();
    let lines = POLICY.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (at, line) in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let read = if line.starts_with(' ') {
            objects.last_mut().and_then(|role| add(&mut role.object, &words))
        } else {
            object(&words).map(|object| objects.push(object))
        };
        read.ok_or_else(|| PolicyError { line: at + 1, text: line.to_owned() })?;
    }
    Ok(objects)
}

/// Returns the rules of a default cluster role.
///
/// # Errors
/// A bug in this crate's data.
pub(crate) fn rules_of(role: &str) -> Result<Vec<Rule>, PolicyError> {
    let found = policy()?.into_iter().find(|it| it.resource == "clusterroles" && it.name == role);
    let rules = found.and_then(|it| serde_json::from_value(it.object["rules"].clone()).ok());
    rules.ok_or_else(|| PolicyError { line: 0, text: role.to_owned() })
}

/// Builds a role without its rules, or a binding.
fn object(words: &[&str]) -> Option<Bootstrap> {
    let (namespace, name) = words.get(1)?.split_once('/').unwrap_or(("", words.get(1)?));
    let (kind, resource, mut content, labels) = match (words[0], namespace.is_empty()) {
        ("role", cluster) => {
            let (kind, resource) = if cluster { ("ClusterRole", "clusterroles") } else { ("Role", "roles") };
            (kind, resource, Map::from_iter([("rules".to_owned(), json!([]))]), &words[2..])
        }
        ("bind", true) => ("ClusterRoleBinding", "clusterrolebindings", binding(words, name)?, &[][..]),
        ("bind", false) => ("RoleBinding", "rolebindings", binding(words, name)?, &[][..]),
        _ => return None,
    };
    content.insert("apiVersion".to_owned(), json!(format!("{GROUP}/v1")));
    content.insert("kind".to_owned(), json!(kind));
    content.insert("metadata".to_owned(), metadata(namespace, name, labels)?);
    Some(Bootstrap {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        object: Value::Object(content),
    })
}

fn metadata(namespace: &str, name: &str, aggregate_to: &[&str]) -> Option<Value> {
    let mut labels = Map::from_iter([("kubernetes.io/bootstrapping".to_owned(), json!("rbac-defaults"))]);
    for label in aggregate_to {
        labels.insert(format!("{AGGREGATE_TO}{}", label.strip_prefix('+')?), json!("true"));
    }
    let mut metadata = json!({
        "name": name,
        "labels": labels,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    Some(metadata)
}

/// Parses `bind NAME [ROLE] = SUBJECT…`.
fn binding(words: &[&str], name: &str) -> Option<Map<String, Value>> {
    let equals = words.iter().position(|word| *word == "=")?;
    let (role, subjects) = (words[2..equals].first().unwrap_or(&name), &words[equals + 1..]);
    let kind = if words[1].contains('/') { "Role" } else { "ClusterRole" };
    let role = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let mut content = Map::from_iter([("roleRef".to_owned(), role)]);
    let subjects: Option<Vec<Value>> = subjects.iter().map(|word| subject(word)).collect();
    let subjects = subjects?;
    if !subjects.is_empty() {
        content.insert("subjects".to_owned(), Value::Array(subjects));
    }
    Some(content)
}

fn subject(word: &str) -> Option<Value> {
    if let Some(name) = word.strip_prefix("user:") {
        return Some(json!({"kind": "User", "apiGroup": GROUP, "name": name}));
    }
    if let Some(name) = word.strip_prefix("group:") {
        return Some(json!({"kind": "Group", "apiGroup": GROUP, "name": name}));
    }
    let (namespace, name) = word.split_once('/')?;
    Some(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
}

/// Adds a rule or an aggregation rule to a role.
fn add(role: &mut Value, words: &[&str]) -> Option<()> {
    let list = |word: &str| word.split(',').map(str::to_owned).collect::<Vec<_>>();
    let rule = match words {
        ["gathers", label] => {
            let labels = Map::from_iter([(format!("{AGGREGATE_TO}{label}"), json!("true"))]);
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            // The aggregation controller writes the rules of this role.
            role["rules"] = Value::Null;
            return Some(());
        }
        [verbs, paths] => Rule {
            verbs: list(verbs).into_iter().collect(),
            non_resource_urls: list(paths).into_iter().collect(),
            ..Rule::default()
        },
        [verbs, groups, resources, names @ ..] => {
            let names = match names {
                [] => Vec::new(),
                [names] => list(names.strip_prefix("names=")?),
                _ => return None,
            };
            let group = |name: String| if name == "core" { String::new() } else { name };
            Rule {
                verbs: list(verbs).into_iter().collect(),
                api_groups: list(groups).into_iter().map(group).collect(),
                resources: list(resources).into_iter().collect(),
                resource_names: names.into_iter().collect(),
                ..Rule::default()
            }
        }
        _ => return None,
    };
    role.get_mut("rules")?.as_array_mut()?.push(serde_json::to_value(rule).ok()?);
    Some(())
}
