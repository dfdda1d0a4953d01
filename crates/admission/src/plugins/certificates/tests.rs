use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use nave_authz::{Authorizer, Chain, Metrics, NamedAuthorizer, Verdict};
use nave_machinery::Value;
use nave_resources::{NameRule, Plain, ResourceDef, Rules, Verb};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use super::approval::CertificateApproval;
use super::attest::TrustBundleAttest;
use super::signing::CertificateSigning;
use super::subject_restriction::CertificateSubjectRestriction;
use super::*;
use crate::Validate;
use crate::testing::{Request, registry};

/// Allows one verb on one signer name.
struct Only(&'static str, &'static str);

#[async_trait]
impl Authorizer for Only {
    async fn authorize(&self, attributes: &nave_authz::Attributes<'_>) -> Verdict {
        let on_signers =
            (attributes.group, attributes.resource, attributes.namespace) == (GROUP, "signers", "");
        if on_signers && (attributes.verb, attributes.name) == (self.0, self.1) {
            return Verdict::allow("");
        }
        Verdict::no_opinion("")
    }
}

fn only(verb: &'static str, name: &'static str) -> Chain {
    let authorizer = NamedAuthorizer {
        kind: "RBAC",
        name: "rbac".into(),
        authorizer: Arc::new(Only(verb, name)),
        resolver: None,
    };
    Chain::new(vec![authorizer], Metrics::new(&prometheus::Registry::new()).unwrap())
}

/// The result of a plugin for a request by a user without groups.
async fn admit(
    plugin: &dyn Validate,
    subresource: &'static str,
    new: &Value,
    old: &Value,
) -> Result<(), String> {
    let resource = "certificatesigningrequests";
    let mut request = Request::new(registry(), GROUP, resource, new.clone(), old.clone())
        .with_subresource(subresource)
        .by("u", &[]);
    request.name = "r";
    request.validate(plugin).await.map_err(|status| {
        assert_eq!(status.code, 403);
        status.message
    })
}

#[tokio::test]
async fn approving_requires_approve_on_signer_or_domain() {
    let old = json!({"spec": {"signerName": "example.com/a"}});
    // The stored object names another signer than the update.
    let new = json!({"spec": {"signerName": "other.org/b"}});
    let outcome = async |verb, name, subresource| {
        let plugin = CertificateApproval { authorizer: only(verb, name) };
        admit(&plugin, subresource, &new, &old).await
    };
    assert_eq!(outcome("approve", "example.com/a", "approval").await, Ok(()));
    assert_eq!(outcome("approve", "example.com/*", "approval").await, Ok(()));
    let refused = r#"certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to approve requests with signerName "example.com/a""#;
    for (verb, name) in [
        ("sign", "example.com/a"),
        ("approve", "example.com/b"),
        ("approve", "other.org/b"),
        ("approve", "other.org/*"),
        ("approve", "*"),
    ] {
        assert_eq!(outcome(verb, name, "approval").await, Err(refused.to_owned()), "{verb} {name}");
    }
    assert_eq!(outcome("sign", "x", "status").await, Ok(()), "another subresource");
}

#[tokio::test]
async fn signing_requires_sign_on_signer() {
    let old =
        json!({"spec": {"signerName": "example.com/a"}, "status": {"conditions": [{"type": "Approved"}]}});
    let outcome = async |name, new: &Value| {
        let plugin = CertificateSigning { authorizer: only("sign", name) };
        admit(&plugin, "status", new, &old).await
    };
    let mut signed = old.clone();
    signed["status"]["certificate"] = json!("TQ==");
    let mut failed = old.clone();
    failed["status"]["conditions"] = json!([{"type": "Approved"}, {"type": "Failed"}]);
    for new in [&signed, &failed] {
        assert_eq!(outcome("example.com/a", new).await, Ok(()));
        assert_eq!(outcome("example.com/*", new).await, Ok(()));
        let refused = outcome("example.com/b", new).await.unwrap_err();
        assert!(refused.ends_with(r#"user not permitted to sign requests with signerName "example.com/a""#));
    }
    assert_eq!(outcome("example.com/b", &old).await, Ok(()), "nothing is signed");
}

/// A base64-encoded PEM request with these groups.
fn request(groups: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
}

#[tokio::test]
async fn rejects_client_certificates_of_system_masters() {
    let outcome = async |signer: &str, request: &str| {
        let new = json!({"spec": {"signerName": signer, "request": request}});
        admit(&CertificateSubjectRestriction, "", &new, &Value::Null).await
    };
    assert_eq!(outcome(CLIENT, &request(&["dev"])).await, Ok(()));
    assert_eq!(outcome("example.com/a", &request(&["system:masters"])).await, Ok(()));
    let refused = outcome(CLIENT, &request(&["system:masters"])).await.unwrap_err();
    assert!(
        refused.ends_with(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        ),
        "{refused}"
    );
    let refused = outcome(CLIENT, "bm90aGluZw==").await.unwrap_err();
    assert!(
        refused.ends_with("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"),
        "{refused}"
    );
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// A DER element.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..128 => vec![low],
        128..256 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [vec![tag], length, content.to_vec()].concat()
}

/// A subject attribute: `2.5.4.TYPE`.
fn attribute(kind: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x06, &[0x55, 0x04, kind]), tlv(tag, value)].concat())
}

/// A base64-encoded PEM request whose subject has these relative names, each a set of attributes. Each list of
/// extensions `2.5.29.ID` is in a separate attribute. The signature is invalid, as no plugin checks it.
fn encoded(names: &[&[Vec<u8>]], extensions: &[&[u8]]) -> String {
    let subject: Vec<u8> = names.iter().flat_map(|name| tlv(0x31, &name.concat())).collect();
    let algorithm = tlv(0x30, &tlv(0x06, &[0x2b, 0x65, 0x70]));
    let key = tlv(0x30, &[algorithm.clone(), tlv(0x03, &[0; 33])].concat());
    let extension = |id: &u8| tlv(0x30, &[tlv(0x06, &[0x55, 0x1d, *id]), tlv(0x04, &[0x30, 0])].concat());
    let requested: Vec<u8> = extensions
        .iter()
        .flat_map(|list| {
            let list: Vec<u8> = list.iter().flat_map(extension).collect();
            let oid = tlv(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e]);
            tlv(0x30, &[oid, tlv(0x31, &tlv(0x30, &list))].concat())
        })
        .collect();
    let info = [tlv(0x02, &[0]), tlv(0x30, &subject), key, tlv(0xa0, &requested)].concat();
    let der = tlv(0x30, &[tlv(0x30, &info), algorithm, tlv(0x03, &[0; 65])].concat());
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        engine.encode(der)
    );
    engine.encode(pem)
}

const ORGANIZATION: u8 = 10;
const UNIT: u8 = 11;
const MASTERS: &[u8] = b"system:masters";
const UTF8: u8 = 0x0c;

/// The result of the subject restriction for a client certificate request.
async fn restriction(request: &str) -> Result<(), String> {
    let new = json!({"spec": {"signerName": CLIENT, "request": request}});
    admit(&CertificateSubjectRestriction, "", &new, &Value::Null).await
}

#[tokio::test]
async fn finds_system_masters_in_every_string_type() {
    let wide = |width: usize, text: &[u8]| -> Vec<u8> {
        text.iter().flat_map(|byte| [vec![0; width - 1], vec![*byte]].concat()).collect()
    };
    let types: [(u8, Vec<u8>); 6] = [
        (UTF8, MASTERS.to_vec()),
        (0x13, MASTERS.to_vec()),
        (0x14, MASTERS.to_vec()),
        (0x16, MASTERS.to_vec()),
        (0x1e, wide(2, MASTERS)),
        (0x1e, wide(2, b"system:masters\0")),
    ];
    for (tag, value) in types {
        let refused =
            restriction(&encoded(&[&[attribute(ORGANIZATION, tag, &value)]], &[])).await.unwrap_err();
        assert!(refused.ends_with("with system:masters group is not allowed"), "{tag}: {refused}");
    }
    // Other groups are allowed in every string type that signers parse.
    for tag in [UTF8, 0x13, 0x14, 0x16] {
        assert_eq!(
            restriction(&encoded(&[&[attribute(ORGANIZATION, tag, b"dev")]], &[])).await,
            Ok(()),
            "{tag}"
        );
    }
    assert_eq!(
        restriction(&encoded(&[&[attribute(ORGANIZATION, 0x1e, &wide(2, b"dev"))]], &[])).await,
        Ok(())
    );
}

#[tokio::test]
async fn finds_system_masters_anywhere_in_the_subject() {
    let group = |name: &[u8]| attribute(ORGANIZATION, UTF8, name);
    let (dev, masters) = ([group(b"dev")], [group(MASTERS)]);
    let unit = [attribute(UNIT, UTF8, MASTERS)];
    let (with_dev, with_unit) =
        ([dev.clone(), masters.clone()].concat(), [unit.clone(), masters.clone()].concat());
    for names in [&[&dev[..], &masters][..], &[&masters, &dev], &[&with_dev], &[&with_unit]] {
        assert!(restriction(&encoded(names, &[])).await.is_err(), "{names:?}");
    }
    assert_eq!(restriction(&encoded(&[&dev, &unit], &[])).await, Ok(()), "a unit is not a group");
}

#[tokio::test]
async fn rejects_subjects_that_cannot_be_parsed() {
    let universal: Vec<u8> = MASTERS.iter().flat_map(|byte| [0, 0, 0, *byte]).collect();
    for (tag, value) in [
        (0x1c, universal.as_slice()),
        (0x1b, MASTERS),
        (0x1a, MASTERS),
        (0x19, MASTERS),
        (0x15, MASTERS),
        (0x04, MASTERS),
        (UTF8, b"\xff"),
        (0x1e, b"odd"),
        (0x2c, &tlv(UTF8, MASTERS)),
        (0x30, &tlv(UTF8, MASTERS)),
        (0x8c, MASTERS),
    ] {
        for kind in [ORGANIZATION, UNIT] {
            let refused = restriction(&encoded(&[&[attribute(kind, tag, value)]], &[])).await;
            let refused = refused.expect_err(&format!("{tag:x}"));
            assert!(refused.contains("failed to parse CSR: "), "{tag:x}: {refused}");
        }
    }
}

#[tokio::test]
async fn rejects_duplicate_extensions() {
    let subject = [attribute(ORGANIZATION, UTF8, b"dev")];
    let outcome = async |extensions: &[&[u8]]| restriction(&encoded(&[&subject], extensions)).await;
    assert_eq!(outcome(&[&[15, 17]]).await, Ok(()));
    for extensions in [&[&[17, 15, 17][..]][..], &[&[17], &[17]]] {
        let refused = outcome(extensions).await.unwrap_err();
        assert!(refused.ends_with("contains duplicate requested extensions"), "{refused}");
    }
}

#[tokio::test]
async fn attesting_requires_attest_on_signer() {
    let bundle = |signer: &str, data: &str| json!({"metadata": {"name": "b"}, "spec": {"signerName": signer, "trustBundle": data}});
    // The resource is disabled by default.
    let def = ResourceDef {
        group: GROUP.to_owned(),
        resource: "clustertrustbundles".to_owned(),
        singular: "clustertrustbundle".to_owned(),
        kind: "ClusterTrustBundle".to_owned(),
        list_kind: "ClusterTrustBundleList".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: false,
        versions: Vec::new(),
        unserved: Vec::new(),
        conversion: nave_resources::Conversion::Strategy,
        verbs: Verb::ALL,
        fields: Vec::new(),
        storage: None,
        name_rule: NameRule::Subdomain,
        rules: Rules::default(),
        strategy: Arc::new(Plain),
    };
    let write = async |right: &'static str, new: Value, old: Value| {
        let plugin = TrustBundleAttest { authorizer: only("attest", right) };
        let request = Request::for_resource(&def, new, old);
        request.validate(&plugin).await.map_err(|status| status.message)
    };
    let (mine, new) = (bundle("example.com/a", "x"), bundle("example.com/a", "y"));
    let refused = Err(r#"clustertrustbundles.certificates.k8s.io "b" is forbidden: user not permitted to attest for signerName "example.com/a""#.to_owned());
    assert_eq!(write("example.com/a", mine.clone(), Value::Null).await, Ok(()));
    assert_eq!(write("example.com/*", new.clone(), mine.clone()).await, Ok(()));
    assert_eq!(write("other.org/*", mine.clone(), Value::Null).await, refused);
    assert_eq!(write("other.org/*", new, mine.clone()).await, refused);
    assert_eq!(write("other.org/*", bundle("", "x"), Value::Null).await, Ok(()));
    let mut owned = mine.clone();
    owned["metadata"]["ownerReferences"] = json!([{"uid": "o"}]);
    assert_eq!(write("other.org/*", owned, mine).await, Ok(()), "garbage collection needs no right");
}

#[test]
fn sets_the_requesting_user() {
    let user = UserInfo { name: "jane".into(), groups: vec!["dev".into()], ..UserInfo::default() };
    let given = json!({"spec": {"username": "mallory", "uid": "x", "groups": ["system:masters"], "extra": {"a": ["b"]}, "request": "r"}});
    let mut request = Object::try_from(given).unwrap();
    set_certificate_requester(&mut request, &user);
    assert_eq!(
        request.into_value(),
        json!({"spec": {"username": "jane", "groups": ["dev"], "request": "r"}})
    );
}
