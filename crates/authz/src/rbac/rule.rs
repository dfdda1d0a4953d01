//! The rules of roles (upstream: `component-helpers/auth/rbac/validation` and `plugin/pkg/auth/authorizer/rbac`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Attributes;

/// The wildcard for verbs, groups, resources and paths.
pub(crate) const ALL: &str = "*";

/// A rule of a role (`PolicyRule` of `rbac.authorization.k8s.io/v1`), in a compact form for the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The allowed verbs.
    pub verbs: Entries,
    /// The API groups; empty in rules on paths.
    #[serde(skip_serializing_if = "Entries::is_empty")]
    pub api_groups: Entries,
    /// Resources: `pods`, `pods/log`, `*`, `*/scale`.
    #[serde(skip_serializing_if = "Entries::is_empty")]
    pub resources: Entries,
    /// The object names to which the rule applies; empty means all names.
    #[serde(skip_serializing_if = "Entries::is_empty")]
    pub resource_names: Entries,
    /// Non-resource paths. A path may end in `*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Entries::is_empty")]
    pub non_resource_urls: Entries,
}

/// A compact list of strings; `null` deserializes as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Entries(Box<[Box<str>]>);

impl Entries {
    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The approximate size of a copy, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.iter().map(|entry| size_of::<Box<str>>() + entry.len()).sum()
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| &**entry)
    }

    /// Returns whether the list contains a string.
    pub fn has(&self, wanted: &str) -> bool {
        self.iter().any(|entry| entry == wanted)
    }

    fn has_or_all(&self, wanted: &str) -> bool {
        self.iter().any(|entry| entry == ALL || entry == wanted)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

impl<S: Into<Box<str>>> FromIterator<S> for Entries {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        Self(entries.into_iter().map(Into::into).collect())
    }
}

impl Rule {
    /// A rule for one resource.
    pub fn for_resource(group: &str, resource: &str, verb: &str) -> Self {
        let one = |entry: &str| Entries::from_iter([entry]);
        Self { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Self::default() }
    }

    /// A rule for one path.
    pub fn for_path(path: &str, verb: &str) -> Self {
        let one = |entry: &str| Entries::from_iter([entry]);
        Self { verbs: one(verb), non_resource_urls: one(path), ..Self::default() }
    }

    /// All lists of the rule.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = &Entries> {
        [&self.verbs, &self.api_groups, &self.resources, &self.resource_names, &self.non_resource_urls]
            .into_iter()
    }

    /// Returns whether the rule allows the request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !self.verbs.has_or_all(attributes.verb) {
            return false;
        }
        if !attributes.is_resource_request() {
            return self.non_resource_urls.iter().any(|url| path_covers(url, attributes.path));
        }
        self.api_groups.has_or_all(attributes.group)
            && self.resources.iter().any(|of| names_resource(of, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty() || self.resource_names.has(attributes.name))
    }
}

/// Returns whether a rule's resource (`*`, `pods`, `pods/log` or `*/log`) matches a resource and subresource.
fn names_resource(of: &str, resource: &str, subresource: &str) -> bool {
    if subresource.is_empty() {
        return of == ALL || of == resource;
    }
    let Some(parent) = of.strip_suffix(subresource).and_then(|rest| rest.strip_suffix('/')) else {
        return of == ALL;
    };
    parent == ALL || parent == resource
}

/// Returns whether a rule's path, which may end in `*`, matches a path.
fn path_covers(of: &str, path: &str) -> bool {
    of == path || (of.ends_with('*') && path.starts_with(of.trim_end_matches('*')))
}

impl fmt::Display for Rule {
    /// Formats the rule as in upstream's errors: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        for (at, (name, entries)) in parts.iter().filter(|(_, entries)| !entries.is_empty()).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{name}:{}", quoted(entries.iter()))?;
        }
        f.write_str("}")
    }
}

/// A list of quoted strings as Go formats it: `["a" "b"]`.
pub(super) fn quoted<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    let entries: Vec<String> = entries.map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use nave_machinery::user::UserInfo;
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn matches_resources_and_subresources() {
        for (of, resource, subresource, matches) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "log", false),
            ("pods/log", "pods", "log", true),
            ("pods/log", "pods", "", false),
            ("pods/*", "pods", "log", false),
            ("*", "pods", "log", true),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "status", false),
            ("*/scale", "scale", "", false),
            ("*/*", "pods", "log", false),
            ("pods/log", "pods/log", "", true),
            ("spods/log", "pods", "log", false),
            ("log", "pods", "log", false),
            ("Pods", "pods", "", false),
        ] {
            assert_eq!(names_resource(of, resource, subresource), matches, "{of} {resource}/{subresource}");
        }
    }

    #[test]
    fn matches_paths_exactly_or_by_prefix() {
        for (of, path, matches) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/", false),
            ("/healthz*", "/healthz/etcd", true),
            ("/api/*", "/api", false),
            ("/api/*", "/api/v1", true),
            ("/a**", "/abc", true),
            ("*", "", true),
            ("/*/x", "/a/x", false),
            ("", "/", false),
        ] {
            assert_eq!(path_covers(of, path), matches, "{of} {path}");
        }
    }

    #[test]
    fn resource_names_limit_a_rule_to_named_objects() {
        let rule =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}));
        let user = UserInfo::default();
        let get = Attributes { verb: "get", resource: "pods", ..Attributes::for_user(&user) };
        assert!(rule.allows(&Attributes { name: "a", ..get }));
        assert!(!rule.allows(&Attributes { name: "b", ..get }));
        assert!(!rule.allows(&get));
        assert!(!rule.allows(&Attributes { verb: "get", path: "a", ..Attributes::for_user(&user) }));
    }

    #[test]
    fn formats_rules_as_upstream() {
        let shown = |value| rule(value).to_string();
        assert_eq!(
            shown(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#
        );
        assert_eq!(
            shown(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": null})),
            r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#
        );
    }
}
