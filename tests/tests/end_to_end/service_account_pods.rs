//! Admission of pods: service accounts and tokens, priorities, tolerations.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

fn pod(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec} containers: [{{name: c, image: i}}]}}}}"
    )
}

async fn create(server: &Server, document: &str) -> Result<Value, String> {
    let ran = server.kubectl_with(&["create", "-o", "json", "-f", "-"], document, &[]).await;
    if ran.status.success() { Ok(serde_json::from_str(&ran.stdout).unwrap()) } else { Err(ran.stderr) }
}

#[tokio::test]
async fn pods_need_existing_service_accounts() {
    let server = Server::start().await;
    // A controller creates the service account of a new namespace; admission waits for it.
    let new = "{apiVersion: v1, kind: Namespace, metadata: {name: new}}\n---\n";
    let in_new = pod("first", "").replace("name: first", "name: first, namespace: new");
    server.apply(&format!("{new}{in_new}")).await;

    let made = create(&server, &pod("plain", "")).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let taints: Vec<_> = spec["tolerations"].as_array().unwrap().iter().map(|it| it["key"].clone()).collect();
    assert_eq!(taints, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);

    let refused = create(&server, &pod("nobody", "serviceAccountName: nobody,")).await.unwrap_err();
    let why = r#"pods "nobody" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found"#;
    assert!(refused.contains(why), "{refused}");

    server
        .apply(
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: quiet, annotations: \
             {kubernetes.io/enforce-mountable-secrets: 'true'}}, automountServiceAccountToken: false, \
             imagePullSecrets: [{name: pull}], secrets: [{name: mine}]}",
        )
        .await;
    let quiet = create(&server, &pod("quiet", "serviceAccountName: quiet,")).await.unwrap();
    assert_eq!(quiet["spec"].get("volumes"), None);
    assert_eq!(quiet["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let theirs = "serviceAccountName: quiet, volumes: [{name: v, secret: {secretName: theirs}}],";
    let refused = create(&server, &pod("theirs", theirs)).await.unwrap_err();
    assert!(refused.contains(r#"secret.secretName="theirs" is not allowed"#), "{refused}");
}

#[tokio::test]
async fn priorities_come_from_classes() {
    let server = Server::start().await;
    let class = |name: &str, value: u32, default: bool| {
        format!(
            "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, value: {value}, \
             globalDefault: {default}, preemptionPolicy: Never}}"
        )
    };
    let critical =
        create(&server, &pod("critical", "priorityClassName: system-node-critical,")).await.unwrap();
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
    let refused = create(&server, &pod("none", "priorityClassName: none,")).await.unwrap_err();
    assert!(refused.contains("no PriorityClass with name none was found"), "{refused}");
    create(&server, &class("usual", 5, true)).await.unwrap();
    let refused = create(&server, &class("second", 6, true)).await.unwrap_err();
    assert!(refused.contains("PriorityClass usual is already marked as default"), "{refused}");
    let usual = create(&server, &pod("usual", "")).await.unwrap();
    let spec = &usual["spec"];
    assert_eq!(
        (&spec["priority"], &spec["priorityClassName"], &spec["preemptionPolicy"]),
        (&json!(5), &json!("usual"), &json!("Never"))
    );
    let refused = create(&server, &pod("own", "priority: 7,")).await.unwrap_err();
    assert!(refused.contains("the integer value of priority (7) must not be provided"), "{refused}");
    // Applying the pod again without the computed fields succeeds.
    let again = pod("usual", "").replace("metadata: {", "metadata: {labels: {a: b}, ");
    server.apply(&again).await;
}

#[tokio::test]
async fn legacy_tokens_are_valid_while_account_exists() {
    let server = Server::start().await;
    server
        .apply(
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}
---
{apiVersion: v1, kind: Secret, metadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}, \
             type: kubernetes.io/service-account-token}",
        )
        .await;
    let read = async |path: &str| {
        let path = format!("jsonpath={{{path}}}");
        server.kubectl(&["get", "secret", "robot", "-o", &path]).await
    };
    eventually("the secret has a token", async || !read(".data.token").await.is_empty()).await;
    assert_eq!(read(".data.namespace").await, "ZGVmYXVsdA==");
    assert!(!read(".data.ca\\.crt").await.is_empty());
    let script = "
import base64, os, kubernetes
from kubernetes import client, config
config.load_kube_config()
secret = client.CoreV1Api().read_namespaced_secret('robot', 'default')
token = base64.b64decode(secret.data['token']).decode()
own = client.Configuration.get_default_copy()
own.cert_file = own.key_file = None
own.api_key = {'authorization': 'Bearer ' + token}
review = client.AuthenticationV1Api(client.ApiClient(own)).create_self_subject_review(client.V1SelfSubjectReview())
print(review.status.user_info.username)
";
    assert_eq!(server.python(script).await.trim(), "system:serviceaccount:default:robot");
    let used = async || read(".metadata.labels.kubernetes\\.io/legacy-token-last-used").await;
    eventually("the day of its use is noted", async || used().await.len() == "2006-01-02".len()).await;
    server.kubectl(&["delete", "serviceaccount", "robot"]).await;
    eventually("the secret goes with its account", async || {
        !server.kubectl_with(&["get", "secret", "robot"], "", &[]).await.status.success()
    })
    .await;
}
