//! Attribute-based access control: a file with one policy per line (upstream: `pkg/auth/authorizer/abac`).
//!
//! Each line is a JSON `Policy` of `abac.authorization.kubernetes.io/v1beta1`, or of the older form without a version.
//! Empty lines and lines that begin with `#` are skipped. A request is allowed if any policy matches.

use std::path::Path;

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use serde::Deserialize;

use crate::rbac::{Entries, Rule};
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Verdict};

const ALL: &str = "*";
const AUTHENTICATED: &str = "system:authenticated";

/// The policies of a policy file.
#[derive(Clone, Debug, Default)]
pub struct Abac {
    policies: Vec<Policy>,
}

/// The reasons why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AbacError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// A line is not a policy.
    #[error("line {line}: {why}")]
    Line {
        /// The line number, from 1.
        line: usize,
        /// The error in the line.
        why: String,
    },
}

/// A policy: a subject, and the requests it may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    #[serde(rename = "apiGroup")]
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    spec: Policy,
}

impl Abac {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`AbacError`].
    pub fn from_file(path: &Path) -> Result<Self, AbacError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Parses the text of a policy file: one JSON object per line.
    ///
    /// # Errors
    /// [`AbacError::Line`].
    pub fn parse(text: &str) -> Result<Self, AbacError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let policies = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let policies = policies.map(|(line, text)| policy(text).map_err(|why| AbacError::Line { line, why }));
        Ok(Self { policies: policies.collect::<Result<_, _>>()? })
    }
}

fn policy(line: &str) -> Result<Policy, String> {
    let fields: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let read = if fields.get("apiVersion").is_some() || fields.get("kind").is_some() {
        let Versioned { api_version, kind, spec } =
            serde_json::from_value(fields).map_err(|error| error.to_string())?;
        let known = ["abac.authorization.kubernetes.io/v1beta1", "abac.authorization.kubernetes.io/v0"];
        if !known.contains(&api_version.as_str()) || kind != "Policy" {
            return Err(format!("{kind} of {api_version} is not a policy"));
        }
        spec
    } else {
        unversioned(serde_json::from_value(fields).map_err(|error| error.to_string())?)
    };
    // `*` matches all authenticated users.
    if read.user == ALL || read.group == ALL {
        return Ok(Policy { user: String::new(), group: AUTHENTICATED.to_owned(), ..read });
    }
    Ok(read)
}

/// Converts a policy without a version. In this form, an absent field matches all values.
fn unversioned(mut policy: Policy) -> Policy {
    let all = || ALL.to_owned();
    if policy.user.is_empty() && policy.group.is_empty() {
        AUTHENTICATED.clone_into(&mut policy.group);
    }
    if policy.namespace.is_empty() && policy.resource.is_empty() {
        policy.non_resource_path = all();
    }
    for field in [&mut policy.namespace, &mut policy.resource] {
        if field.is_empty() {
            *field = all();
        }
    }
    policy.api_group = all();
    policy
}

impl Policy {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let is = |pattern: &str, value: &str| pattern == ALL || pattern == value;
        let reads = matches!(attributes.verb, "get" | "list" | "watch");
        if !self.is_for(attributes.user) || (self.readonly && !reads) {
            return false;
        }
        if attributes.is_resource_request() {
            return is(&self.namespace, attributes.namespace)
                && is(&self.resource, attributes.resource)
                && is(&self.api_group, attributes.group);
        }
        let pattern = &self.non_resource_path;
        is(pattern, attributes.path)
            || (pattern.ends_with('*') && attributes.path.starts_with(pattern.trim_end_matches('*')))
    }

    /// Returns whether the subject matches a user. A policy with a user and a group requires both. A policy with
    /// neither matches no user.
    fn is_for(&self, user: &UserInfo) -> bool {
        let is_user = self.user.is_empty() || self.user == user.name;
        let is_group = self.group.is_empty() || user.groups.contains(&self.group);
        is_user && is_group && !(self.user.is_empty() && self.group.is_empty())
    }
}

#[async_trait]
impl Authorizer for Abac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        if self.policies.iter().any(|policy| policy.allows(attributes)) {
            return Verdict::allow("");
        }
        Verdict::no_opinion("No policy matched.")
    }
}

impl RuleResolver for Abac {
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut rules = Vec::new();
        for policy in self.policies.iter().filter(|policy| policy.is_for(user)) {
            let verbs = if policy.readonly { &["get", "list", "watch"][..] } else { &[ALL] };
            let one = |entry: &str| Entries::from_iter([entry]);
            let verbs = verbs.iter().copied().collect::<Entries>();
            if !policy.resource.is_empty() && [ALL, namespace].contains(&policy.namespace.as_str()) {
                let (api_groups, resources) = (one(&policy.api_group), one(&policy.resource));
                rules.push(Rule { verbs: verbs.clone(), api_groups, resources, ..Rule::default() });
            }
            if !policy.non_resource_path.is_empty() {
                let non_resource_urls = one(&policy.non_resource_path);
                rules.push(Rule { verbs, non_resource_urls, ..Rule::default() });
            }
        }
        UserRules { rules, ..UserRules::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decision;

    const FILE: &str = r#"
        # Comments and empty lines are skipped.
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*"}}
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "bob", "namespace": "projects", "resource": "pods", "readonly": true}}
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "*", "readonly": true, "nonResourcePath": "/version*"}}
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "eve", "group": "admins", "namespace": "a", "resource": "pods"}}

        {"user": "old", "readonly": true}
        {"user": "older", "namespace": "a"}
    "#;

    #[tokio::test]
    async fn one_matching_policy_allows() {
        let abac = Abac::parse(FILE).unwrap();
        for (name, group, verb, resource, namespace, path, allowed) in [
            ("alice", "", "delete", "secrets", "x", "", true),
            ("alice", "", "get", "", "", "/metrics", false),
            ("bob", "", "get", "pods", "projects", "", true),
            ("bob", "", "create", "pods", "projects", "", false),
            ("bob", "", "get", "pods", "other", "", false),
            ("bob", "", "get", "pods", "", "", false),
            ("x", AUTHENTICATED, "get", "", "", "/version/x", true),
            ("x", "system:unauthenticated", "get", "", "", "/version", false),
            ("x", AUTHENTICATED, "post", "", "", "/version", false),
            ("eve", "admins", "update", "pods", "a", "", true),
            ("eve", "others", "update", "pods", "a", "", false),
            ("old", "", "list", "pods", "a", "", true),
            ("old", "", "get", "", "", "/metrics", true),
            ("old", "", "update", "pods", "a", "", false),
            ("older", "", "update", "pods", "a", "", true),
            ("older", "", "update", "pods", "b", "", false),
            ("older", "", "get", "", "", "/metrics", false),
        ] {
            let groups = vec![group.to_owned()];
            let user = UserInfo { name: name.into(), groups, ..UserInfo::default() };
            let attributes = Attributes { verb, resource, namespace, path, ..Attributes::for_user(&user) };
            let decision = abac.authorize(&attributes).await.decision;
            assert_eq!(decision == Decision::Allow, allowed, "{name} {verb} {resource} {path}");
        }
    }

    #[test]
    fn error_shows_line_of_invalid_policy() {
        for (line, why) in [
            ("{", "line 1: EOF"),
            (r#"{"user": "a", "usr": "b"}"#, "unknown field `usr`"),
            (r#"{"apiVersion": "v2", "kind": "Policy", "spec": {}}"#, "Policy of v2 is not a policy"),
        ] {
            let error = Abac::parse(line).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn lists_rules_of_the_namespace() {
        let abac = Abac::parse(FILE).unwrap();
        let rules = |name: &str, namespace| {
            let user = UserInfo { name: name.into(), ..UserInfo::default() };
            abac.rules_for(&user, namespace).rules.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let projects = [r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list" "watch"]}"#];
        assert_eq!(rules("bob", "projects"), projects);
        assert_eq!(rules("bob", "other"), [""; 0]);
        assert_eq!(rules("alice", "x"), [r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#]);
    }
}
