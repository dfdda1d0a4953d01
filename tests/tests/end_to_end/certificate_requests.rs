//! Access control of certificate requests, approval and signing, with kubectl as users with few rights.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nave_tests::{Server, eventually};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

/// `alice` may approve for one signer, `bob` for all signers of a domain, and `sam` may sign for one signer. All of
/// them may write approvals and statuses of every request.
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: requests}
rules:
- {apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [get, list, create]}
- apiGroups: [certificates.k8s.io]
  resources: [certificatesigningrequests/approval, certificatesigningrequests/status]
  verbs: [get, update, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: approve-one}
rules: [{apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/one], verbs: [approve]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: approve-domain}
rules: [{apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/*], verbs: [approve]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sign-one}
rules: [{apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/one], verbs: [sign]}]
";

fn binding(role: &str, users: &[&str]) -> String {
    let subjects: Vec<_> = users
        .iter()
        .map(|name| json!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
    .to_string()
}

fn request(name: &str, signer: &str, group: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.distinguished_name.push(DnType::OrganizationName, group);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": BASE64_STANDARD.encode(pem), "signerName": signer, "usages": ["client auth"]},
    })
    .to_string()
}

async fn run(server: &Server, user: &str, arguments: &[&str]) -> Result<(), String> {
    let user = format!("--as={user}");
    let ran = server.kubectl_with(&[arguments, &[&user]].concat(), "", &[]).await;
    if ran.status.success() { Ok(()) } else { Err(ran.stderr) }
}

#[tokio::test]
async fn approving_and_signing_require_rights_on_the_signer() {
    let server = Server::start_without_controllers().await;
    server.apply(RIGHTS).await;
    for (role, users) in [
        ("requests", &["alice", "bob", "sam"][..]),
        ("approve-one", &["alice"]),
        ("approve-domain", &["bob"]),
        ("sign-one", &["sam"]),
    ] {
        server.apply(&binding(role, users)).await;
    }
    for (name, signer) in [("one", "example.com/one"), ("two", "example.com/two"), ("three", "other.org/one")]
    {
        server.apply(&request(name, signer, "dev")).await;
    }
    let approve = async |user, name| run(&server, user, &["certificate", "approve", name]).await;
    eventually("the rights are there", async || approve("alice", "one").await.is_ok()).await;
    let refused = approve("alice", "two").await.unwrap_err();
    let why = r#"certificatesigningrequests.certificates.k8s.io "two" is forbidden: user not permitted to approve requests with signerName "example.com/two""#;
    assert!(refused.contains(why), "{refused}");
    eventually("the rights are there", async || approve("bob", "two").await.is_ok()).await;
    approve("bob", "three").await.unwrap_err();
    let refused = run(&server, "sam", &["certificate", "deny", "three"]).await.unwrap_err();
    assert!(refused.contains("user not permitted to approve"), "{refused}");

    let signed = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    let certificate = json!({"status": {"certificate": BASE64_STANDARD.encode(signed.pem())}}).to_string();
    let sign = async |user, name| {
        let patch = ["patch", "csr", name, "--subresource=status", "--type=merge", "-p", &certificate];
        run(&server, user, &patch).await
    };
    for (user, name, signer) in [("alice", "one", "example.com/one"), ("sam", "two", "example.com/two")] {
        let refused = sign(user, name).await.unwrap_err();
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        assert!(refused.contains(&why), "{refused}");
    }
    sign("sam", "one").await.unwrap();
}

#[tokio::test]
async fn rejects_client_certificates_of_system_masters() {
    let server = Server::start_without_controllers().await;
    let client = "kubernetes.io/kube-apiserver-client";
    let create = async |document: &str| server.kubectl_with(&["create", "-f", "-"], document, &[]).await;
    let ran = create(&request("masters", client, "system:masters")).await;
    let why = format!("use of {client} signer with system:masters group is not allowed");
    assert!(!ran.status.success() && ran.stderr.contains(&why), "{}", ran.stderr);
    for document in [request("dev", client, "dev"), request("other", "example.com/one", "system:masters")] {
        let ran = create(&document).await;
        assert!(ran.status.success(), "{}", ran.stderr);
    }
}
