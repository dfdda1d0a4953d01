//! The objects that a server makes when it starts, over a store that others have written to.

use super::*;
use crate::bootstrap::Bootstrap;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

impl Fixture {
    /// Does what the next start of a server does.
    async fn bootstrap(&self) {
        let resources = &self.server.pipeline.router.resources;
        let bootstrap = Bootstrap {
            service_address: "10.0.0.1".parse().unwrap(),
            secure_port: 6443,
            cluster_authentication: ClusterAuthentication::default(),
        };
        bootstrap.run(resources, async { Ok(()) }).await.unwrap();
    }

    async fn object(&self, collection: &str, name: &str) -> Value {
        let (code, object) = self.get(&format!("{collection}/{name}"), &[]).await;
        assert_eq!(code, 200, "{object}");
        object
    }
}

#[tokio::test]
async fn a_start_changes_nothing_where_all_is_right() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let all = ["/api/v1/namespaces", "/api/v1/services", "/api/v1/configmaps", ROLES, BINDINGS];
    let mut before = Vec::new();
    for uri in all {
        before.push(it.get(uri, &[]).await.1["items"].clone());
    }
    it.bootstrap().await;
    for (uri, before) in all.into_iter().zip(before) {
        assert_eq!(it.get(uri, &[]).await.1["items"], before, "{uri}");
    }
}

#[tokio::test]
async fn roles_and_bindings_get_back_what_they_lack() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let (role, binding) = ("system:basic-user", "system:basic-user");
    let rules = it.object(ROLES, role).await["rules"].clone();
    let more = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    assert_eq!(it.send(Method::PATCH, &format!("{ROLES}/{role}"), &json!({"rules": [more]})).await.0, 200);
    // The role of a binding cannot be changed: it is made again.
    let right = it.object(BINDINGS, binding).await;
    let mut other = right.clone();
    other["roleRef"]["name"] = json!("view");
    other["metadata"].as_object_mut().unwrap().retain(|field, _| field == "name");
    assert_eq!(it.send(Method::DELETE, &format!("{BINDINGS}/{binding}"), &Value::Null).await.0, 200);
    assert_eq!(it.send(Method::POST, BINDINGS, &other).await.0, 201);
    // This one is not to be touched, and that one is gone.
    let untouched = "system:discovery";
    let patch = json!({"rules": null, "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    assert_eq!(it.send(Method::PATCH, &format!("{ROLES}/{untouched}"), &patch).await.0, 200);
    assert_eq!(it.send(Method::DELETE, &format!("{ROLES}/view"), &Value::Null).await.0, 200);
    // A server that starts begins with caches that have all that is stored; so does a read.
    for uri in [ROLES, BINDINGS] {
        assert_eq!(it.get(uri, &[]).await.0, 200);
    }
    it.bootstrap().await;
    let mended = it.object(ROLES, role).await["rules"].clone();
    assert!(mended.as_array().unwrap().contains(&more), "{mended}");
    for rule in rules.as_array().unwrap() {
        for resource in rule["resources"].as_array().unwrap() {
            assert!(mended.to_string().contains(&resource.to_string()), "{resource} is not in {mended}");
        }
    }
    let made = it.object(BINDINGS, binding).await;
    assert_eq!((&made["roleRef"], &made["subjects"]), (&right["roleRef"], &right["subjects"]));
    assert_eq!(it.object(ROLES, untouched).await["rules"], Value::Null);
    it.object(ROLES, "view").await;
}
