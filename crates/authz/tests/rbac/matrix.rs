//! Tests all combinations of users and requests against forty roles: the index must decide like the slow evaluator, and
//! both must match the expectations in this file. Also tests each bootstrap role with a user who has only this role.

use std::collections::BTreeSet;

use crate::support::Policy;
use nave_authz::rbac::Rbac;
use nave_authz::{Attributes, Authorizer, Decision, bootstrap};
use nave_machinery::user::UserInfo;
use serde_json::{Value, json};

const POLICY: &str = include_str!("matrix_policy.txt");

/// The users: a name, and groups.
const USERS: [(&str, &[&str]); 37] = [
    ("root", &[]),
    ("operator", &["operators"]),
    ("reader", &[]),
    ("readers", &[]),
    ("x", &["readers"]),
    ("core", &[]),
    ("ann", &["system:authenticated"]),
    ("y", &["pod-people", "nodes"]),
    ("log", &[]),
    ("any-log", &[]),
    ("scaler", &[]),
    ("system:serviceaccount:kube-system:scaler", &["system:serviceaccounts", "system:authenticated"]),
    ("system:serviceaccount:default:scaler", &[]),
    ("system:serviceaccount:kube-system:status", &[]),
    ("one", &[]),
    ("two", &[]),
    ("z", &["two", "creators"]),
    ("star", &[]),
    ("system:anonymous", &["system:unauthenticated"]),
    ("probe", &[]),
    ("paths", &[]),
    ("mixed", &[]),
    ("empty", &[]),
    ("proxy", &[]),
    ("binder", &[]),
    ("w", &["extenders"]),
    ("case", &[]),
    ("dangling", &[]),
    ("bob", &["team-a"]),
    ("lord-of-a", &[]),
    ("carl", &[]),
    ("dora", &[]),
    ("eve", &["team-b"]),
    ("system:serviceaccount:a:robot", &[]),
    ("system:serviceaccount:b:robot", &[]),
    ("system:serviceaccount:a:deployer", &[]),
    ("system:serviceaccount:kube-system:evictor", &[]),
];

/// The requests: verb, group, resource, subresource, name; or a verb and a path.
const REQUESTS: [[&str; 5]; 38] = [
    ["get", "", "pods", "", "p"],
    ["list", "", "pods", "", ""],
    ["watch", "", "pods", "", ""],
    ["create", "", "pods", "", ""],
    ["update", "", "pods", "", "p"],
    ["delete", "", "pods", "", "p"],
    ["deletecollection", "", "pods", "", ""],
    ["get", "", "pods", "log", "p"],
    ["get", "", "pods", "exec", "p"],
    ["create", "", "pods", "exec", "p"],
    ["create", "", "pods", "eviction", "p"],
    ["update", "", "pods", "status", "p"],
    ["get", "", "pods", "*", "p"],
    ["get", "", "Pods", "", "p"],
    ["GET", "", "pods", "", "p"],
    ["get", "", "secrets", "", "one"],
    ["get", "", "secrets", "", "two"],
    ["get", "", "secrets", "", "shared"],
    ["list", "", "secrets", "", ""],
    ["update", "", "secrets", "", "one"],
    ["list", "", "configmaps", "", ""],
    ["list", "", "configmaps", "", "one"],
    ["get", "", "nodes", "", "n"],
    ["get", "apps", "deployments", "", "d"],
    ["update", "apps", "deployments", "scale", "d"],
    ["patch", "apps", "statefulsets", "scale", "d"],
    ["create", "apps", "deployments", "", ""],
    ["get", "example.com", "widgets", "", "w"],
    ["patch", "example.com", "widgets", "status", "w"],
    ["impersonate", "", "users", "", "alice"],
    ["impersonate", "", "users", "", "bob"],
    ["bind", "rbac.authorization.k8s.io", "clusterroles", "", "reader"],
    ["bind", "rbac.authorization.k8s.io", "clusterroles", "", "everything"],
    ["get", "/healthz", "", "", ""],
    ["get", "/healthz/etcd", "", "", ""],
    ["get", "/metrics", "", "", ""],
    ["head", "/api/v1", "", "", ""],
    ["get", "/api", "", "", ""],
];

/// Expected decisions: user, request (an entry of the table above), namespace, whether it is allowed.
const KNOWN: [(&str, [&str; 5], &str, bool); 29] = [
    ("root", ["delete", "", "pods", "", "p"], "", true),
    ("root", ["get", "/metrics", "", "", ""], "", true),
    ("operator", ["delete", "", "pods", "", "p"], "b", true),
    ("operator", ["get", "/metrics", "", "", ""], "", false),
    // A user with the name of a group does not have the group's permissions.
    ("readers", ["get", "", "pods", "", "p"], "a", false),
    ("x", ["get", "", "secrets", "", "two"], "b", true),
    ("ann", ["get", "", "pods", "log", "p"], "b", true),
    ("ann", ["get", "", "pods", "exec", "p"], "b", false),
    ("log", ["get", "", "pods", "", "p"], "", false),
    ("any-log", ["get", "", "pods", "log", "p"], "", true),
    ("scaler", ["patch", "apps", "statefulsets", "scale", "d"], "a", true),
    ("system:serviceaccount:default:scaler", ["patch", "apps", "statefulsets", "scale", "d"], "a", false),
    ("one", ["get", "", "secrets", "", "one"], "a", true),
    ("one", ["get", "", "secrets", "", "two"], "a", false),
    // A rule with names does not allow a list request unless it selects the name.
    ("two", ["list", "", "configmaps", "", ""], "a", false),
    ("two", ["list", "", "configmaps", "", "one"], "a", true),
    ("star", ["get", "", "pods", "log", "p"], "", false),
    ("system:anonymous", ["get", "/healthz", "", "", ""], "", true),
    ("system:anonymous", ["get", "/healthz/etcd", "", "", ""], "", false),
    ("probe", ["get", "/healthz/etcd", "", "", ""], "", true),
    ("ann", ["get", "/api", "", "", ""], "", false),
    ("bob", ["get", "", "pods", "", "p"], "a", true),
    ("bob", ["get", "", "pods", "", "p"], "b", false),
    ("bob", ["list", "", "pods", "", ""], "b", true),
    ("bob", ["list", "", "pods", "", ""], "", false),
    // A role binding grants the rules of a cluster role only in its namespace, without paths.
    ("dora", ["delete", "", "pods", "", "p"], "a", true),
    ("dora", ["delete", "", "pods", "", "p"], "", false),
    ("carl", ["get", "/metrics", "", "", ""], "", false),
    ("dangling", ["get", "", "pods", "", "p"], "b", false),
];

fn request<'a>(user: &'a UserInfo, request: [&'a str; 5], namespace: &'a str) -> Attributes<'a> {
    let [verb, group, resource, subresource, name] = request;
    if group.starts_with('/') {
        return Attributes { verb, path: group, ..Attributes::for_user(user) };
    }
    Attributes { verb, group, resource, subresource, name, namespace, ..Attributes::for_user(user) }
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(ToString::to_string).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

#[tokio::test]
async fn forty_roles_match_the_slow_evaluator() {
    let policy = policy();
    let roles = policy.0.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Role"));
    assert_eq!(roles.count(), 40);
    let index = Rbac::default();
    index.apply(policy.changes());
    let (mut allowed, mut refused) = (0, 0);
    for (name, groups) in USERS {
        let user = user(name, groups);
        for words in REQUESTS {
            for namespace in ["", "a", "b"] {
                let request = request(&user, words, namespace);
                let expected = policy.allows(&request);
                let verdict = index.authorize(&request).await;
                let decision = verdict.decision == Decision::Allow;
                assert_eq!(decision, expected, "{name} {words:?} in {namespace:?}: {}", verdict.reason);
                if expected {
                    allowed += 1;
                } else {
                    refused += 1;
                }
                for (_, _, _, known) in KNOWN.iter().filter(|k| (k.0, k.1, k.2) == (name, words, namespace)) {
                    assert_eq!(expected, *known, "{name} {words:?} in {namespace:?}");
                }
            }
        }
    }
    assert_eq!(allowed + refused, 37 * 38 * 3);
    assert!(allowed > 300, "only {allowed} are allowed: the table is too weak");
    for (name, words, _, _) in KNOWN {
        assert!(USERS.iter().any(|(user, _)| *user == name) && REQUESTS.contains(&words), "{name} {words:?}");
    }
}

#[tokio::test]
async fn reasons_name_the_binding_or_the_missing_role() {
    let index = Rbac::default();
    index.apply(policy().changes());
    for (name, words, namespace, reason) in [
        (
            "bob",
            ["get", "", "pods", "", "p"],
            "a",
            r#"RBAC: allowed by RoleBinding "own/a" of Role "pod-reader" to User "bob""#,
        ),
        ("x", ["get", "", "pods", "", "p"], "", ""),
        (
            "system:serviceaccount:a:robot",
            ["get", "", "pods", "", "p"],
            "a",
            r#"RBAC: allowed by RoleBinding "own/a" of Role "pod-reader" to ServiceAccount "robot/a""#,
        ),
        (
            "carl",
            ["get", "", "pods", "", "p"],
            "a",
            r#"RBAC: allowed by RoleBinding "cluster-role/a" of ClusterRole "pod-reader" to User "carl""#,
        ),
        (
            "root",
            ["get", "", "pods", "", "p"],
            "",
            r#"RBAC: allowed by ClusterRoleBinding "root" of ClusterRole "everything" to User "root""#,
        ),
        (
            "dangling",
            ["get", "", "pods", "", "p"],
            "",
            r#"RBAC: clusterrole.rbac.authorization.k8s.io "no-such-role" not found"#,
        ),
        (
            "dangling",
            ["get", "", "pods", "", "p"],
            "b",
            r#"RBAC: [clusterrole.rbac.authorization.k8s.io "no-such-role" not found, role.rbac.authorization.k8s.io "gone" not found]"#,
        ),
    ] {
        let user = user(name, &[]);
        assert_eq!(index.authorize(&request(&user, words, namespace)).await.reason, reason, "{name}");
    }
}

/// For each bootstrap role, a user who has only this role requests every combination of the values in its rules and of
/// some other values.
#[tokio::test]
async fn bootstrap_roles_match_the_slow_evaluator() {
    let objects: Vec<Value> = bootstrap::policy().unwrap().into_iter().map(|it| it.object).collect();
    let user = user("u", &[]);
    for role in objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Role")) {
        let namespace = role["metadata"]["namespace"].as_str().unwrap_or_default();
        let kind = format!("{}Binding", role["kind"].as_str().unwrap());
        let binding = json!({
            "kind": kind,
            "metadata": {"name": "only", "namespace": namespace},
            "roleRef": {"kind": role["kind"], "name": role["metadata"]["name"]},
            "subjects": [{"kind": "User", "name": "u"}],
        });
        let policy = Policy(vec![role.clone(), binding]);
        let index = Rbac::default();
        index.apply(policy.changes());
        for words in requests_for(role) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let request = request(&user, words.clone().try_into().unwrap(), namespace);
            let decision = index.authorize(&request).await.decision == Decision::Allow;
            assert_eq!(decision, policy.allows(&request), "{} {words:?}", role["metadata"]["name"]);
        }
    }
}

/// All combinations of the values in a role's rules and of some other values, rule by rule.
fn requests_for(role: &Value) -> BTreeSet<[String; 5]> {
    let mut requests = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let words = |field: &str, beside: &[&str]| -> Vec<String> {
            let own = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            own.chain(beside.iter().copied()).map(str::to_owned).collect()
        };
        for verb in words("verbs", &["impersonate"]) {
            for path in words("nonResourceURLs", &["/metrics"]) {
                requests.insert([
                    verb.clone(),
                    format!("/{path}").replace("//", "/"),
                    String::new(),
                    String::new(),
                    String::new(),
                ]);
            }
            for group in words("apiGroups", &["example.com"]) {
                for resource in words("resources", &["widgets", "pods/proxy"]) {
                    for name in words("resourceNames", &[""]) {
                        let (resource, sub) = resource.split_once('/').unwrap_or((&resource, ""));
                        let words = [&verb, &group, resource, sub, &name].map(str::to_owned);
                        requests.insert(words);
                    }
                }
            }
        }
    }
    requests
}

/// The objects in `matrix_policy.txt`.
fn policy() -> Policy {
    let mut objects: Vec<Value> = Vec::new();
    for line in POLICY.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let list = |word: &str| word.split(',').map(|w| w.replace("core", "")).collect::<Vec<_>>();
            let rule = match words[..] {
                [verbs, paths] => json!({"verbs": list(verbs), "nonResourceURLs": list(paths)}),
                [verbs, groups, resources] => {
                    json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)})
                }
                [verbs, groups, resources, names] => json!({
                    "verbs": list(verbs),
                    "apiGroups": list(groups),
                    "resources": list(resources),
                    "resourceNames": list(names.strip_prefix("names=").unwrap()),
                }),
                _ => panic!("{line}"),
            };
            objects.last_mut().unwrap()["rules"].as_array_mut().unwrap().push(rule);
            continue;
        }
        let (namespace, name) = words[1].split_once('/').unwrap_or(("", words[1]));
        let metadata = json!({"name": name, "namespace": namespace});
        let prefix = if namespace.is_empty() { "Cluster" } else { "" };
        if words[0] == "role" {
            objects.push(json!({"kind": format!("{prefix}Role"), "metadata": metadata, "rules": []}));
            continue;
        }
        let (role_kind, role) = match words[2].strip_prefix("cluster:") {
            Some(role) => ("ClusterRole".to_owned(), role),
            None => (format!("{prefix}Role"), words[2]),
        };
        let subjects = words[4..].iter().map(|word| match word.split_once([':', '/']).unwrap() {
            ("user", name) => json!({"kind": "User", "name": name}),
            ("group", name) => json!({"kind": "Group", "name": name}),
            (namespace, name) => json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}),
        });
        let subjects: Vec<Value> = subjects.collect();
        let role = json!({"kind": role_kind, "name": role});
        let kind = format!("{prefix}RoleBinding");
        objects.push(json!({"kind": kind, "metadata": metadata, "roleRef": role, "subjects": subjects}));
    }
    Policy(objects)
}
