use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Authorizer, Link, Metrics, Verdict};
use nave_machinery::user::UserInfo;
use nave_resources::Registry;
use serde_json::json;

use super::tokens::Lookup;
use super::*;

/// Objects by `RESOURCE/NAMESPACE/NAME`.
struct Objects(Value);

impl Lookup for Objects {
    fn claim(&self, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        Ok(self.0.get(format!("claims/{namespace}/{name}")).cloned())
    }

    fn volume(&self, name: &str) -> Result<Option<Value>, Status> {
        Ok(self.0.get(format!("volumes/{name}")).cloned())
    }

    fn driver(&self, name: &str) -> Result<Option<Value>, Status> {
        Ok(self.0.get(format!("drivers/{name}")).cloned())
    }
}

/// Allows tokens of the service account `ns/robot` for the audience `granted`.
struct Granted;

#[async_trait]
impl Authorizer for Granted {
    async fn authorize(&self, asked: &nave_authz::Attributes<'_>) -> Verdict {
        let on = (asked.verb, asked.group, asked.resource, asked.namespace, asked.name);
        if on == ("request-serviceaccounts-token-audience", "", "granted", "ns", "robot") {
            return Verdict::allow("");
        }
        Verdict::no_opinion("")
    }
}

/// What becomes of a kubelet's request of a token for these audiences, bound to a pod with these volumes.
fn request(volumes: &Value, audiences: &Value) -> Result<(), String> {
    let driver =
        |audience: &str| json!({"spec": {"tokenRequests": [{"audience": "x"}, {"audience": audience}]}});
    let objects = json!({
        "claims/ns/c": {"spec": {"volumeName": "v"}},
        "claims/ns/p-scratch": {"spec": {"volumeName": "v"}},
        "claims/ns/azure": {"spec": {"volumeName": "azure"}},
        "claims/ns/lost": {"spec": {"volumeName": "gone"}},
        "claims/other/foreign": {"spec": {"volumeName": "v"}},
        "volumes/v": {"spec": {"csi": {"driver": "d"}}},
        "volumes/azure": {"spec": {"azureFile": {"secretName": "s"}}},
        "drivers/d": driver("driver"),
        "drivers/file.csi.azure.com": driver("files"),
        "drivers/quiet": {"spec": {}},
    });
    let link = Link { kind: "RBAC", name: "rbac".into(), authorizer: Arc::new(Granted), resolver: None };
    let authorization = Chain::new(vec![link], Metrics::new().unwrap());
    let audience = Audiences { drivers: Box::new(Objects(objects)), authorization };
    let registry = Registry::builtin(nave_schema::builtin());
    let accounts = GroupVersionResource::new("", "v1", "serviceaccounts");
    let user = UserInfo { name: "system:node:n".into(), ..UserInfo::default() };
    let attributes = Attributes {
        def: registry.lookup(&accounts).unwrap(),
        subresource: "token",
        namespace: "ns",
        name: "robot",
        operation: Operation::Create,
        user: &user,
    };
    let object = json!({"spec": {"audiences": audiences}});
    let write = Write { attributes: &attributes, node: "n", object: &object };
    let pod = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"volumes": volumes}});
    audience.check(&write, &pod, &Rights::default()).map_err(|status| {
        assert_eq!(status.code, 403);
        let text = "serviceaccounts \"robot\" is forbidden: ";
        status.message.strip_prefix(text).unwrap_or(&status.message).to_owned()
    })
}

#[test]
fn a_kubelet_gets_tokens_for_audiences_that_volumes_name() {
    let token = |audience: Value| json!({"name": "t", "projected": {"sources": [{}, {"serviceAccountToken": audience}]}});
    for (volume, audience) in [
        (token(json!({"audience": "vault"})), "vault"),
        (json!({"name": "i", "csi": {"driver": "d"}}), "driver"),
        (json!({"name": "data", "persistentVolumeClaim": {"claimName": "c"}}), "driver"),
        (json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}), "driver"),
        (json!({"name": "data", "persistentVolumeClaim": {"claimName": "azure"}}), "files"),
        (json!({"name": "data", "azureFile": {"secretName": "s"}}), "files"),
    ] {
        let volumes = json!([{"name": "e", "emptyDir": {}}, volume]);
        assert_eq!(request(&volumes, &json!([audience])), Ok(()), "{volume}");
        for other in ["other", "", "x y"] {
            let refused = request(&volumes, &json!([other])).unwrap_err();
            let why = "not found in pod spec volume, system:node:n is not authorized to request tokens for this audience";
            assert_eq!(refused, format!("audience {other:?} {why}"), "{volume}");
        }
    }
    // A token without an audience is for the API server, and so is a request without one.
    for audiences in [json!([]), json!(null), json!([""])] {
        assert_eq!(request(&json!([token(json!({"path": "token"}))]), &audiences), Ok(()));
        assert!(request(&json!([]), &audiences).is_err());
    }
}

#[test]
fn a_kubelet_may_be_granted_an_audience() {
    assert_eq!(request(&json!([]), &json!(["granted"])), Ok(()));
    assert!(request(&json!([]), &json!(["other"])).is_err());
    let refused = request(&json!([]), &json!(["granted", "other"])).unwrap_err();
    assert_eq!(refused, "node may only request 0 or 1 audiences");
}

#[test]
fn an_audience_behind_missing_objects_is_refused() {
    for (volume, why) in [
        (json!({"csi": {"driver": "unknown"}}), r#"csidriver.storage.k8s.io "unknown" not found"#),
        (
            json!({"persistentVolumeClaim": {"claimName": "none"}}),
            r#"persistentvolumeclaim "none" not found"#,
        ),
        (
            json!({"persistentVolumeClaim": {"claimName": "foreign"}}),
            r#"persistentvolumeclaim "foreign" not found"#,
        ),
        (json!({"persistentVolumeClaim": {"claimName": "lost"}}), r#"persistentvolume "gone" not found"#),
    ] {
        let refused = request(&json!([volume]), &json!(["a"])).unwrap_err();
        assert_eq!(refused, format!("error validating audience \"a\": {why}"));
    }
    assert!(request(&json!([{"csi": {"driver": "quiet"}}]), &json!(["a"])).is_err());
}
