//! Rights that only an asynchronous authorizer grants, like a webhook.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use nave_authz::{Attributes, Authorizer, NamedAuthorizer, Verdict};
use serde_json::{Value, json};

use crate::common::{Cluster, check, cluster_role, cluster_role_everywhere, namespace, row};

/// Allows the user `trusted` to escalate, bind, approve and sign. Never answers immediately.
struct Waiting;

#[async_trait]
impl Authorizer for Waiting {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        tokio::task::yield_now().await;
        let granted = ["escalate", "bind", "approve", "sign"].contains(&attributes.verb);
        if granted && attributes.user.name == "trusted" {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
    }
}

async fn cluster() -> Cluster {
    // All rights to write these objects, except the verbs that allow granting rights.
    let verbs = ["get", "list", "create", "update", "patch", "delete"];
    let rules = json!([
        {"verbs": verbs, "apiGroups": ["rbac.authorization.k8s.io"], "resources": [
            "roles", "rolebindings", "clusterroles", "clusterrolebindings",
        ]},
        {"verbs": verbs, "apiGroups": ["certificates.k8s.io"], "resources": [
            "certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status",
        ]},
    ]);
    let objects = [
        namespace("team"),
        cluster_role("writer", &rules),
        cluster_role_everywhere("writer", "trusted"),
        cluster_role_everywhere("writer", "other"),
        request("approved"),
        request("signed"),
    ];
    let authorizer = NamedAuthorizer {
        kind: "Webhook",
        name: "waiting".into(),
        authorizer: Arc::new(Waiting),
        resolver: None,
    };
    Cluster::start_with(&objects, vec![authorizer]).await
}

fn request(name: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64::engine::general_purpose::STANDARD.encode(request),
            "signerName": "example.com/serving",
            "usages": ["digital signature"],
        },
    })
}

#[tokio::test]
async fn writes_wait_for_an_authorizer_that_grants_what_they_need() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let cluster = cluster().await;
    let role = |kind: &str, name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        })
    };
    let binding = |kind: &str, name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}],
        })
    };
    let condition = |kind: &str| {
        json!({"status": {"conditions": [{
            "type": kind, "status": "True", "reason": "Test", "message": "",
        }]}})
    };
    let rules = json!({"rules": [{"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}]});
    let subjects = json!({"subjects": []});
    let mut rows = Vec::new();
    // Tests the user without the right first, so that no object exists yet.
    for (who, created, changed) in [("other", 403, 403), ("trusted", 201, 200)] {
        for (kind, path) in [("Role", "namespaces/team/roles"), ("ClusterRole", "clusterroles")] {
            rows.push(row(who, &format!("POST {RBAC}/{path}"), role(kind, "all"), created));
        }
        for (kind, path) in
            [("RoleBinding", "namespaces/team/rolebindings"), ("ClusterRoleBinding", "clusterrolebindings")]
        {
            rows.push(row(who, &format!("POST {RBAC}/{path}"), binding(kind, "all"), created));
        }
        let approved = format!("PATCH {REQUESTS}/approved/approval");
        rows.push(row(who, &approved, condition("Approved"), changed));
        rows.push(row(who, &format!("PATCH {REQUESTS}/signed/status"), condition("Failed"), changed));
    }
    for (who, changed) in [("other", 403), ("trusted", 200)] {
        for path in ["namespaces/team/roles/all", "clusterroles/all"] {
            rows.push(row(who, &format!("PATCH {RBAC}/{path}"), rules.clone(), changed));
        }
        for path in ["namespaces/team/rolebindings/all", "clusterrolebindings/all"] {
            rows.push(row(who, &format!("PATCH {RBAC}/{path}"), subjects.clone(), changed));
        }
        let dry = format!("POST {RBAC}/namespaces/team/roles?dryRun=All");
        let expected = if changed == 200 { 201 } else { changed };
        rows.push(row(who, &dry, role("Role", "dry"), expected));
    }
    check(&cluster, &rows).await;
}
