//! The published authentication settings in `kube-system/extension-apiserver-authentication`.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::authority;

const MAP: [&str; 4] = ["configmap", "extension-apiserver-authentication", "-n", "kube-system"];
const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: extension, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: User, name: extension, apiGroup: rbac.authorization.k8s.io}]
";

/// Returns the config map's data as an extension server reads it; `None` if the server cannot or may not read it.
async fn data(server: &Server) -> Option<Value> {
    let arguments = [&["get"][..], &MAP, &["-o", "json", "--as=extension"]].concat();
    let ran = server.kubectl_with(&arguments, "", &[]).await;
    ran.status.success().then(|| serde_json::from_str::<Value>(&ran.stdout).unwrap()["data"].take())
}

#[tokio::test]
async fn publishes_authentication_settings() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_owned();
    for name in ["users", "next", "proxies", "foreign"] {
        authority(&path, name);
    }
    let pem = |name: &str| std::fs::read_to_string(path.join(format!("{name}.crt"))).unwrap();
    std::fs::copy(path.join("users.crt"), path.join("believed.crt")).unwrap();
    let file = |name: &str| path.join(name).display().to_string();
    let server = Server::start_in(
        folder,
        &[
            &format!("--client-ca-file={}", file("believed.crt")),
            &format!("--requestheader-client-ca-file={}", file("proxies.crt")),
            "--requestheader-allowed-names=front",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ],
    )
    .await;
    assert_eq!(data(&server).await, None, "it is not for everybody");
    server.apply(READER).await;
    eventually("the role lets it be read", async || data(&server).await.is_some()).await;

    let told = data(&server).await.unwrap();
    assert!(told["client-ca-file"].as_str().unwrap().contains(&pem("users")), "{told}");
    assert_eq!(told["requestheader-client-ca-file"], json!(pem("proxies")));
    assert_eq!(told["requestheader-allowed-names"], r#"["front"]"#);
    assert_eq!(told["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    assert_eq!(told["requestheader-group-headers"], r#"["X-Remote-Group"]"#);
    assert_eq!(told["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);

    // A new CA is added. The previous CA stays, because another server may use it.
    std::fs::copy(path.join("next.crt"), path.join("believed.crt")).unwrap();
    let has = |told: &Value, name: &str| told["client-ca-file"].as_str().unwrap().contains(&pem(name));
    eventually("the new authority is told", async || has(&data(&server).await.unwrap(), "next")).await;
    assert!(has(&data(&server).await.unwrap(), "users"));

    // Entries added by others stay, and removed entries are restored.
    let patch = json!({"data": {"client-ca-file": pem("foreign"), "requestheader-allowed-names": null}});
    let patch = patch.to_string();
    server.kubectl(&[&["patch"][..], &MAP, &["--type=merge", "-p", &patch]].concat()).await;
    eventually("both are told", async || {
        let told = data(&server).await.unwrap();
        has(&told, "foreign") && has(&told, "next") && told["requestheader-allowed-names"] == r#"["front"]"#
    })
    .await;
    server.kubectl(&[&["delete"][..], &MAP].concat()).await;
    eventually("it comes back", async || data(&server).await.is_some_and(|told| has(&told, "next"))).await;
    assert!(!has(&data(&server).await.unwrap(), "foreign"), "its server is gone");
}
