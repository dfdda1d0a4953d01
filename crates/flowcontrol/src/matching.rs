//! Matches requests with flow schemas (upstream: `flowcontrol/rule.go`). Allocates nothing.

use nave_machinery::RequestedResource;
use nave_machinery::user::UserInfo;

use crate::objects::{FlowSchemaSpec, NonResourceRule, PolicyRules, ResourceRule, Subject};

/// The attributes of a request by which it is classified.
pub trait RequestAttributes: Send + Sync {
    /// The verb; for paths that are not resources, the HTTP method in lower case.
    fn verb(&self) -> &str;
    /// The path.
    fn path(&self) -> &str;
    /// The resource; `None` for other paths.
    fn resource(&self) -> Option<RequestedResource<'_>>;
}

impl FlowSchemaSpec {
    /// Returns whether a request matches one of the rules.
    pub fn matches(&self, user: &UserInfo, request: &dyn RequestAttributes) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, request))
    }
}

impl PolicyRules {
    fn matches(&self, user: &UserInfo, request: &dyn RequestAttributes) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && match request.resource() {
                Some(resource) => {
                    self.resource_rules.iter().any(|rule| rule.matches(request.verb(), &resource))
                }
                None => self.non_resource_rules.iter().any(|rule| rule.matches(request)),
            }
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User { user: subject } => subject.name == "*" || subject.name == user.name,
            Self::Group { group } => group.name == "*" || user.groups.contains(&group.name),
            Self::ServiceAccount { service_account: account } => user
                .name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.strip_prefix(account.namespace.as_str())?.strip_prefix(':'))
                .is_some_and(|name| account.name == "*" || account.name == name),
        }
    }
}

impl ResourceRule {
    fn matches(&self, verb: &str, request: &RequestedResource<'_>) -> bool {
        lists(&self.verbs, |listed| listed == verb)
            && lists(&self.resources, |listed| is_resource(listed, request))
            && lists(&self.api_groups, |listed| listed == request.group)
            && if request.namespace.is_empty() {
                self.cluster_scope
            } else {
                lists(&self.namespaces, |listed| listed == request.namespace)
            }
    }
}

impl NonResourceRule {
    fn matches(&self, request: &dyn RequestAttributes) -> bool {
        lists(&self.verbs, |listed| listed == request.verb())
            && self.non_resource_urls.iter().any(|listed| covers(listed, request.path()))
    }
}

/// Returns whether a list has an item that matches, or `*` as its only item.
fn lists(list: &[String], matches: impl Fn(&str) -> bool) -> bool {
    matches!(list, [only] if only == "*") || list.iter().any(|listed| matches(listed))
}

/// Returns whether a rule's resource, with its subresource, is that of the request.
fn is_resource(listed: &str, request: &RequestedResource<'_>) -> bool {
    let Some(rest) = listed.strip_prefix(request.resource) else { return false };
    match rest.strip_prefix('/') {
        None => rest.is_empty() && request.subresource.is_empty(),
        Some(subresource) => !request.subresource.is_empty() && subresource == request.subresource,
    }
}

/// Returns whether a rule's path is that of the request or above it.
fn covers(listed: &str, path: &str) -> bool {
    if listed == "*" || listed == path {
        return true;
    }
    let prefix = listed.strip_suffix('*').unwrap_or(listed);
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Asked<'a>(&'a str, &'a str, Option<RequestedResource<'a>>);

    impl RequestAttributes for Asked<'_> {
        fn verb(&self) -> &str {
            self.0
        }

        fn path(&self) -> &str {
            self.1
        }

        fn resource(&self) -> Option<RequestedResource<'_>> {
            self.2
        }
    }

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    fn spec(rule: &serde_json::Value) -> FlowSchemaSpec {
        let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "rules": [rule]});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn matches_subjects() {
        let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        let named = |kind: &str, name: &str| json!({"kind": kind, kind.to_lowercase(): {"name": name}});
        let robot = "system:serviceaccount:ns:robot";
        for (subject, name, groups, expected) in [
            (named("User", "a"), "a", &[][..], true),
            (named("User", "a"), "b", &["a"], false),
            (named("User", "*"), "b", &[], true),
            (named("Group", "g"), "a", &["f", "g"], true),
            (named("Group", "g"), "g", &["f"], false),
            (named("Group", "*"), "a", &[], true),
            (account("ns", "robot"), robot, &[], true),
            (account("ns", "*"), robot, &[], true),
            (account("ns", "robo"), robot, &[], false),
            (account("n", "*"), robot, &[], false),
            (account("ns", "s:robot"), robot, &[], false),
            (account("ns", "robot"), "robot", &[], false),
            (account("ns", "*"), "system:serviceaccount:nsx:robot", &[], false),
        ] {
            let rule = json!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
            let matched = spec(&rule).matches(&user(name, groups), &Asked("get", "/", None));
            assert_eq!(matched, expected, "{rule} {name}");
        }
    }

    #[test]
    fn matches_resources() {
        let rule =
            |verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool, namespaces: &[&str]| {
                let subjects = json!([{"kind": "User", "user": {"name": "*"}}]);
                json!({"subjects": subjects, "resourceRules": [{
                    "verbs": verbs, "apiGroups": groups, "resources": resources, "clusterScope": cluster,
                    "namespaces": namespaces,
                }]})
            };
        let asked = |group, resource, subresource, namespace| RequestedResource {
            group,
            resource,
            subresource,
            namespace,
            ..RequestedResource::default()
        };
        let (pods, status) = (asked("", "pods", "", "a"), asked("", "pods", "status", "a"));
        let (nodes, all_pods) = (asked("", "nodes", "", ""), asked("", "pods", "", ""));
        let deployments = asked("apps", "deployments", "", "a");
        for (rule, request, expected) in [
            (rule(&["get"], &[""], &["pods"], false, &["a"]), pods, true),
            (rule(&["list"], &[""], &["pods"], false, &["a"]), pods, false),
            (rule(&["list", "get"], &["apps", ""], &["nodes", "pods"], false, &["b", "a"]), pods, true),
            (rule(&["*"], &["*"], &["*"], true, &["*"]), status, true),
            (rule(&["*"], &["*"], &["pods"], true, &["*"]), status, false),
            (rule(&["*"], &["*"], &["pods/status"], true, &["*"]), status, true),
            (rule(&["*"], &["*"], &["pods/status"], true, &["*"]), pods, false),
            (rule(&["*"], &["*"], &["pods/", "podsx"], true, &["*"]), pods, false),
            (rule(&["*"], &[""], &["*"], true, &["*"]), deployments, false),
            // `*` beside other items is no wildcard.
            (rule(&["*", "list"], &["*"], &["*"], true, &["*"]), pods, false),
            (rule(&["*"], &["*"], &["*"], false, &["*"]), nodes, false),
            (rule(&["*"], &["*"], &["*"], false, &["*"]), all_pods, false),
            (rule(&["*"], &["*"], &["*"], true, &[]), nodes, true),
            (rule(&["*"], &["*"], &["*"], true, &[]), pods, false),
            (rule(&["*"], &["*"], &["*"], true, &["b"]), pods, false),
        ] {
            let matched = spec(&rule).matches(&user("u", &[]), &Asked("get", "/api", Some(request)));
            assert_eq!(matched, expected, "{rule} {request:?}");
            // A resource never matches rules for paths.
            assert!(!spec(&rule).matches(&user("u", &[]), &Asked("get", "/api", None)), "{rule}");
        }
    }

    #[test]
    fn matches_paths() {
        for (listed, path, expected) in [
            ("*", "/x", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", true),
            ("/healthz", "/healthzx", false),
            ("/healthz", "/", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("/health*", "/health/x", true),
            ("/health*", "/healthz", false),
            ("/", "/x", true),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(covers(listed, path), expected, "{listed} {path}");
        }
        let subjects = json!([{"kind": "User", "user": {"name": "*"}}]);
        let rule = json!({"subjects": subjects, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        assert!(spec(&rule).matches(&user("u", &[]), &Asked("get", "/x/y", None)));
        assert!(!spec(&rule).matches(&user("u", &[]), &Asked("post", "/x/y", None)));
    }
}
