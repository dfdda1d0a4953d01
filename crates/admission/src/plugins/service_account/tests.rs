use super::*;
use crate::testing::{Memory, Request, outcome, registry};

fn object(value: &Value) -> Object {
    Object::try_from(value.clone()).unwrap()
}

fn pod(spec: &Value) -> Object {
    object(&json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
}

fn given(spec: &Value, account: &Value) -> Value {
    let mut pod = pod(spec);
    set_account(&mut pod, &object(account));
    pod.remove("spec").unwrap()
}

#[test]
fn pod_gets_default_account_and_token() {
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull", "more": 1}]});
    let elsewhere = json!({"name": "own", "mountPath": MOUNT_PATH});
    let containers = json!([{"name": "a"}, {"name": "b", "volumeMounts": [elsewhere]}]);
    let spec = given(&json!({"containers": containers, "initContainers": [{"name": "i"}]}), &account);
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(
        volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-xxxxx".len(),
        "{volume}"
    );
    let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
    assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
    assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([mount]));
    assert_eq!(spec["containers"][1]["volumeMounts"], json!([elsewhere]));
    let sources = spec["volumes"][0]["projected"]["sources"].as_array().unwrap();
    assert_eq!(sources[0], json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}));
    assert_eq!(sources.len(), 3);
}

#[test]
fn mounts_token_once_and_only_if_wanted() {
    let account = json!({"metadata": {"name": "a"}, "automountServiceAccountToken": false});
    let containers = json!([{"name": "a"}]);
    let without = given(&json!({"serviceAccountName": "a", "containers": containers}), &account);
    assert_eq!(without.get("volumes"), None);
    // The pod's setting takes precedence over the account's.
    let with = given(&json!({"automountServiceAccountToken": true, "containers": containers}), &account);
    assert_eq!(with["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(with.get("imagePullSecrets"), None);
    let again = given(&with, &account);
    assert_eq!(again, with);
}

#[test]
fn account_can_limit_the_secrets_of_its_pods() {
    let account = object(&json!({
        "metadata": {"name": "a", "annotations": {(ENFORCE): "true"}},
        "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "p"}],
    }));
    assert!(
        enforces(&account) && !enforces(&object(&json!({"metadata": {"annotations": {(ENFORCE): "yes"}}})))
    );
    let env = |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    let from = |name: &str| json!([{"secretRef": {"name": name}}]);
    let spec = |name: &str| {
        [
            json!({"volumes": [{"name": "v", "secret": {"secretName": name}}]}),
            json!({"containers": [{"name": "c", "env": env(name)}]}),
            json!({"initContainers": [{"name": "c", "envFrom": from(name)}]}),
            json!({"ephemeralContainers": [{"name": "c", "env": env(name)}]}),
        ]
    };
    for spec in spec("s") {
        assert_eq!(references::check(&pod(&spec), &account), Ok(()));
    }
    for spec in spec("t") {
        let why = references::check(&pod(&spec), &account).unwrap_err();
        assert!(why.contains(r#"secret.secretName="t" is not allowed because service account a"#), "{why}");
    }
    let pulls = pod(&json!({"imagePullSecrets": [{"name": "p"}, {"name": "q"}]}));
    let why = references::check(&pulls, &account).unwrap_err();
    assert!(why.starts_with(r#"imagePullSecrets[1].name="q" is not allowed"#), "{why}");
}

#[test]
fn mirror_pods_may_not_have_references() {
    for (spec, why) in [
        (json!({"containers": [{"name": "c"}]}), None),
        (json!({"serviceAccountName": "a"}), Some("a mirror pod may not reference service accounts")),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            Some("a mirror pod may not reference secrets"),
        ),
        (
            json!({"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}),
            Some("a mirror pod may not reference secrets"),
        ),
        (
            json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            Some("a mirror pod may not use ServiceAccountToken volume projections"),
        ),
    ] {
        assert_eq!(references::check_mirror_pod(pod(&spec).as_value()).err().as_deref(), why);
    }
}

async fn send(
    accounts: &Arc<Memory>,
    pod: Value,
    old: Value,
    subresource: &'static str,
) -> Result<Value, (u16, String)> {
    let plugin = Plugin::both(ServiceAccount { accounts: Arc::clone(accounts) as _ });
    let mut request = Request::new(registry(), "", "pods", pod, old).with_subresource(subresource);
    outcome(request.admit(&plugin).await)?;
    Ok(request.object.take())
}

#[tokio::test]
async fn account_must_exist() {
    let accounts = Arc::new(Memory::default());
    let pod_with = |name: &str| json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": name, "containers": [{"name": "c"}]}});
    let missing =
        r#"pods "p" is forbidden: error looking up service account ns/new: serviceaccount "new" not found"#;
    assert_eq!(send(&accounts, pod_with("new"), Value::Null, "").await, Err((403, missing.to_owned())));
    accounts.put_uncached(json!({"metadata": {"name": "new", "namespace": "ns"}}));
    let found = send(&accounts, pod_with("new"), Value::Null, "").await.unwrap();
    assert_eq!(found["spec"]["serviceAccount"], "new");
}

#[tokio::test]
async fn refuses_secrets_of_ephemeral_containers_with_500() {
    let accounts = Arc::new(Memory::default());
    accounts.put(json!({"metadata": {"name": "a", "namespace": "ns", "annotations": {(ENFORCE): "true"}},
        "secrets": [{"name": "s"}]}));
    let pod_with = |secret: &str, kind: &str| {
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
        json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "a", kind: [{"name": "c", "env": env}]}})
    };
    let update = async |pod: Value| send(&accounts, pod.clone(), pod, "ephemeralcontainers").await;
    assert!(update(pod_with("s", "ephemeralContainers")).await.is_ok());
    let why = r#"ephemeral container c with envVar E referencing secret.secretName="t" is not allowed because service account a does not reference that secret"#;
    assert_eq!(update(pod_with("t", "ephemeralContainers")).await, Err((500, why.to_owned())));
    assert!(
        update(pod_with("t", "containers")).await.is_ok(),
        "the other containers were checked at creation"
    );
    let created = send(&accounts, pod_with("t", "containers"), Value::Null, "").await.unwrap_err();
    assert_eq!(created.0, 403);
}
