use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use nave_authz::{Authorizer, Link, Metrics, Verdict};
use nave_resources::Registry;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use super::*;
use crate::admission::{Operation, Plugin};

/// Allows one verb on one name of signers.
struct Only(&'static str, &'static str);

#[async_trait]
impl Authorizer for Only {
    async fn authorize(&self, asked: &nave_authz::Attributes<'_>) -> Verdict {
        let on_signers = (asked.group, asked.resource, asked.namespace) == (GROUP, "signers", "");
        if on_signers && (asked.verb, asked.name) == (self.0, self.1) {
            return Verdict::allow("");
        }
        Verdict::no_opinion("")
    }
}

fn only(verb: &'static str, name: &'static str) -> Chain {
    let link =
        Link { kind: "RBAC", name: "rbac".into(), authorizer: Arc::new(Only(verb, name)), resolver: None };
    Chain::new(vec![link], Metrics::new().unwrap())
}

/// What a plugin says of a write of a request by a user without groups.
fn admit(
    plugin: &dyn Plugin,
    subresource: &str,
    operation: Operation<'_>,
    new: &Value,
) -> Result<(), String> {
    let registry = Registry::builtin(nave_schema::builtin());
    let def = registry.all().find(|def| is_request(def)).unwrap();
    let user = UserInfo { name: "u".into(), ..UserInfo::default() };
    let attributes = Attributes { def, subresource, namespace: "", name: "r", operation, user: &user };
    plugin.admit_by_rights(&attributes, Some(&mut new.clone()), &Rights::default()).map_err(|status| {
        assert_eq!(status.code, 403);
        status.message
    })
}

#[test]
fn approving_is_a_right_by_signer_or_domain() {
    let old = json!({"spec": {"signerName": "example.com/a"}});
    // The signer of the stored request counts.
    let new = json!({"spec": {"signerName": "other.org/b"}});
    let outcome = |verb, name, subresource| {
        let plugin = CertificateApproval { authorization: only(verb, name) };
        admit(&plugin, subresource, Operation::Update(&old), &new)
    };
    assert_eq!(outcome("approve", "example.com/a", "approval"), Ok(()));
    assert_eq!(outcome("approve", "example.com/*", "approval"), Ok(()));
    let refused = r#"certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to approve requests with signerName "example.com/a""#;
    for (verb, name) in [
        ("sign", "example.com/a"),
        ("approve", "example.com/b"),
        ("approve", "other.org/b"),
        ("approve", "other.org/*"),
        ("approve", "*"),
    ] {
        assert_eq!(outcome(verb, name, "approval"), Err(refused.to_owned()), "{verb} {name}");
    }
    assert_eq!(outcome("sign", "x", "status"), Ok(()), "another subresource");
}

#[test]
fn signing_is_a_right_where_something_is_signed() {
    let old =
        json!({"spec": {"signerName": "example.com/a"}, "status": {"conditions": [{"type": "Approved"}]}});
    let outcome = |name, new: &Value| {
        let plugin = CertificateSigning { authorization: only("sign", name) };
        admit(&plugin, "status", Operation::Update(&old), new)
    };
    let mut signed = old.clone();
    signed["status"]["certificate"] = json!("TQ==");
    let mut failed = old.clone();
    failed["status"]["conditions"] = json!([{"type": "Approved"}, {"type": "Failed"}]);
    for new in [&signed, &failed] {
        assert_eq!(outcome("example.com/a", new), Ok(()));
        assert_eq!(outcome("example.com/*", new), Ok(()));
        let refused = outcome("example.com/b", new).unwrap_err();
        assert!(refused.ends_with(r#"user not permitted to sign requests with signerName "example.com/a""#));
    }
    assert_eq!(outcome("example.com/b", &old), Ok(()), "nothing is signed");
}

/// A request in PEM in base64, of somebody in these groups.
fn request(groups: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
}

#[test]
fn nobody_asks_for_a_certificate_of_masters() {
    let outcome = |signer: &str, request: &str| {
        let new = json!({"spec": {"signerName": signer, "request": request}});
        admit(&CertificateSubjectRestriction, "", Operation::Create, &new)
    };
    assert_eq!(outcome(CLIENT, &request(&["dev"])), Ok(()));
    assert_eq!(outcome("example.com/a", &request(&["system:masters"])), Ok(()));
    let refused = outcome(CLIENT, &request(&["system:masters"])).unwrap_err();
    assert!(
        refused.ends_with(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        ),
        "{refused}"
    );
    let refused = outcome(CLIENT, "bm90aGluZw==").unwrap_err();
    assert!(
        refused.ends_with("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"),
        "{refused}"
    );
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
