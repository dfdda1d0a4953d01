//! Measures the cost of authorization per request with many bindings.
//!
//! `cargo run --release -p nave-authz --example cost -- [BINDINGS]` prints, for each arrangement of bindings, the
//! time of an allowed and of a refused request.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use nave_authz::rbac::{Change, Kind, Rbac};
use nave_authz::{Attributes, Chain, Metrics, NamedAuthorizer, bootstrap};
use nave_machinery::user::UserInfo;
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bindings: usize = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    println!("{bindings} bindings: microseconds a request, allowed and refused");
    for (name, lay) in [
        ("each for another user, in 100 namespaces, of the role view", of_users as fn(usize) -> Vec<Value>),
        ("each for another user, in the cluster, of a role of its own", of_roles),
        ("all for one group, in one namespace, of the role view", of_one_role),
        ("all for one group, in one namespace, each of a role of its own", of_one_group),
    ] {
        let rbac = std::sync::Arc::new(Rbac::default());
        rbac.apply(bootstrap::policy()?.iter().map(|it| change(&it.object)));
        let started = Instant::now();
        rbac.apply(lay(bindings).iter().map(change).collect::<Vec<_>>());
        let taken_in = started.elapsed().as_secs_f64() * 1e6 / bindings as f64;
        let link = NamedAuthorizer { kind: "RBAC", name: "rbac".into(), authorizer: rbac, resolver: None };
        let chain = Chain::new(vec![link], Metrics::new(&prometheus::Registry::new())?);
        let groups = ["team", "system:authenticated", "g1", "g2", "g3"].map(str::to_owned).to_vec();
        let user = UserInfo { name: "user-77".into(), groups, ..UserInfo::default() };
        let get = Attributes {
            verb: "get",
            version: "v1",
            resource: "pods",
            namespace: "ns-77",
            name: "p",
            ..Attributes::for_user(&user)
        };
        let allowed = time(&chain, &get, true).await;
        let refused = time(&chain, &Attributes { resource: "secrets", ..get }, false).await;
        println!("{allowed:8.2} {refused:8.2}   {name} (indexing: {taken_in:.1} each)");
    }
    Ok(())
}

async fn time(chain: &Chain, request: &Attributes<'_>, allowed: bool) -> f64 {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let outcome = black_box(chain.authorize(black_box(request)).await);
        assert_eq!(outcome.is_ok(), allowed, "{outcome:?}");
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

fn of_users(count: usize) -> Vec<Value> {
    let binding = |at: usize| {
        binding(
            &format!("ns-{}", at % 100),
            at,
            "ClusterRole",
            "system:aggregate-to-view",
            "User",
            &format!("user-{at}"),
        )
    };
    (0..count).map(binding).collect()
}

fn of_roles(count: usize) -> Vec<Value> {
    let bindings = |at| {
        [role("", at), binding("", at, "ClusterRole", &format!("role-{at}"), "User", &format!("user-{at}"))]
    };
    (0..count).flat_map(bindings).collect()
}

fn of_one_role(count: usize) -> Vec<Value> {
    let binding = |at| binding("ns-77", at, "ClusterRole", "system:aggregate-to-view", "Group", "team");
    (0..count).map(binding).collect()
}

fn of_one_group(count: usize) -> Vec<Value> {
    let bindings =
        |at| [role("ns-77", at), binding("ns-77", at, "Role", &format!("role-{at}"), "Group", "team")];
    (0..count).flat_map(bindings).collect()
}

/// A role like those that operators install. Role 77 also allows `get` on pods.
fn role(namespace: &str, at: usize) -> Value {
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    let (own, status) = (format!("things-{at}"), format!("things-{at}/status"));
    let pods = if at == 77 { "pods" } else { "configmaps" };
    json!({
        "kind": kind,
        "metadata": {"namespace": namespace, "name": format!("role-{at}")},
        "rules": [
            {"verbs": ["get", "list", "watch"], "apiGroups": ["example.com"], "resources": [own, status]},
            {"verbs": ["get"], "apiGroups": [""], "resources": [pods]},
        ],
    })
}

fn binding(namespace: &str, at: usize, role_kind: &str, role: &str, kind: &str, name: &str) -> Value {
    json!({
        "kind": if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" },
        "metadata": {"namespace": namespace, "name": format!("binding-{at}")},
        "roleRef": {"kind": role_kind, "name": role},
        "subjects": [{"kind": kind, "name": name}],
    })
}

fn change(object: &Value) -> Change {
    let text = |place: &Value| place.as_str().unwrap_or_default().to_owned();
    Change {
        kind: match object["kind"].as_str() {
            Some("Role") => Kind::Role,
            Some("ClusterRole") => Kind::ClusterRole,
            Some("RoleBinding") => Kind::RoleBinding,
            _ => Kind::ClusterRoleBinding,
        },
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        json: Some(Bytes::from(object.to_string())),
    }
}
