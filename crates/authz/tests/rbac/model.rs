//! Model test of the index: after any sequence of changes of roles and bindings, it must decide like the slow
//! evaluator.

use crate::support::{Policy, change};
use nave_authz::rbac::Rbac;
use nave_authz::{Attributes, Authorizer, Decision};
use nave_machinery::user::UserInfo;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A small vocabulary, so that rules and requests often match.
fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of, 1..=2.min(of.len()))
}

fn rule() -> impl Strategy<Value = Value> {
    let verbs = || words(&["get", "list", "create", "*"]);
    let resources = words(&["pods", "pods/log", "secrets", "*/scale", "*", "*/log"]);
    let on_resources = (verbs(), words(&["", "apps", "*"]), resources, subsequence(&NAMES[..], 0..=1))
        .prop_map(|(verbs, groups, resources, names)| {
            json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names})
        });
    let on_paths = (verbs(), words(&["/a", "/a/*", "*", "/b*"]))
        .prop_map(|(verbs, paths)| json!({"verbs": verbs, "nonResourceURLs": paths}));
    prop_oneof![4 => on_resources, 1 => on_paths]
}

fn subject() -> impl Strategy<Value = Value> {
    let (name, namespace) = (select(&NAMES[..]), select(&["", "n1", "n2"][..]));
    (select(&["User", "Group", "ServiceAccount", "Robot"][..]), name, namespace)
        .prop_map(|(kind, name, namespace)| json!({"kind": kind, "name": name, "namespace": namespace}))
}

fn object() -> impl Strategy<Value = Value> {
    let role = (select(&["", "n1", "n2"][..]), select(&NAMES[..]), prop::collection::vec(rule(), 0..3))
        .prop_map(|(namespace, name, rules)| {
            let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
            json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}, "rules": rules})
        });
    let binding = (
        select(&["", "n1", "n2"][..]),
        select(&NAMES[..]),
        any::<bool>(),
        select(&NAMES[..]),
        prop::collection::vec(subject(), 0..3),
    )
        .prop_map(|(namespace, name, local, role, subjects)| {
            let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
            let role_kind = if namespace.is_empty() || !local { "ClusterRole" } else { "Role" };
            let role = json!({"kind": role_kind, "name": role});
            let metadata = json!({"namespace": namespace, "name": name});
            json!({"kind": kind, "metadata": metadata, "roleRef": role, "subjects": subjects})
        });
    prop_oneof![role, binding]
}

/// Batches of objects that are put (`true`) or deleted.
fn history() -> impl Strategy<Value = Vec<Vec<(bool, Value)>>> {
    let one = (prop::bool::weighted(0.75), object());
    prop::collection::vec(prop::collection::vec(one, 1..8), 1..8)
}

/// Many grants for each tested user, of roles that do not allow the tested requests.
fn irrelevant_policy() -> Policy {
    let object = |at: usize| {
        let (namespace, prefix) = [("", "Cluster"), ("n1", "")][at % 2];
        let metadata = json!({"namespace": namespace, "name": format!("role-{at}")});
        let rule = json!({"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["pods", "pods/log"]});
        let role = json!({"kind": format!("{prefix}Role"), "metadata": metadata, "rules": [rule]});
        let subjects = json!([
            {"kind": "User", "name": "a"},
            {"kind": "Group", "name": "b"},
            {"kind": "ServiceAccount", "name": "b", "namespace": "n1"},
        ]);
        let role_ref = json!({"kind": format!("{prefix}Role"), "name": format!("role-{at}")});
        let kind = format!("{prefix}RoleBinding");
        [role, json!({"kind": kind, "metadata": metadata, "roleRef": role_ref, "subjects": subjects})]
    };
    Policy((0..60).flat_map(object).collect())
}

fn identity(object: &Value) -> (Value, Value) {
    (object["kind"].clone(), object["metadata"].clone())
}

fn check(index: &Rbac, policy: &Policy) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for name in ["a", "system:serviceaccount:n1:b", "system:serviceaccount:n2:c", "nobody"] {
        for groups in [&[][..], &["b"], &["c", "a"]] {
            let groups = groups.iter().map(ToString::to_string).collect();
            let user = UserInfo { name: name.into(), groups, ..UserInfo::default() };
            for request in requests(&user) {
                let decision = runtime.block_on(index.authorize(&request)).decision;
                prop_assert_eq!(decision == Decision::Allow, policy.allows(&request), "{:?}", request);
            }
        }
    }
    Ok(())
}

fn requests(user: &UserInfo) -> Vec<Attributes<'_>> {
    let mut requests = Vec::new();
    for verb in ["get", "list", "delete"] {
        for path in ["/a", "/a/", "/b/c", "/"] {
            requests.push(Attributes { verb, path, ..Attributes::for_user(user) });
        }
        for (group, resource, subresource) in
            [("", "pods", ""), ("", "pods", "log"), ("apps", "secrets", ""), ("apps", "pods", "scale")]
        {
            for (namespace, name) in [("", ""), ("n1", "a"), ("n2", ""), ("n2", "b")] {
                let all = Attributes::for_user(user);
                requests.push(Attributes { verb, group, resource, subresource, namespace, name, ..all });
            }
        }
    }
    requests
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn index_matches_the_slow_evaluator(history in history(), many in any::<bool>()) {
        let index = Rbac::default();
        // With many grants per subject, the index uses its lookup table.
        let mut policy = if many { irrelevant_policy() } else { Policy::default() };
        index.apply(policy.changes());
        for batch in history {
            let changes = batch.iter().map(|(put, object)| change(object, put.then_some(object)));
            index.apply(changes.collect::<Vec<_>>());
            for (put, object) in batch {
                policy.0.retain(|other| identity(other) != identity(&object));
                policy.0.extend(put.then_some(object));
            }
            check(&index, &policy)?;
        }
    }
}
