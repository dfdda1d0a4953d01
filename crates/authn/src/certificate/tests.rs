use http::HeaderMap;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth},
    IsCa, KeyPair, date_time_ymd,
};

use super::*;

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority(parent: Option<&Issuer>) -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, if parent.is_some() { "between" } else { "root" });
    let key = KeyPair::generate().unwrap();
    match parent {
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
        Some(parent) => CertifiedIssuer::signed_by(params, key, parent).unwrap(),
    }
}

pub(crate) fn signed_by(
    issuer: &Issuer,
    subject: &[(DnType, &str)],
    usage: ExtendedKeyUsagePurpose,
    (first_year, last_year): (i32, i32),
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (attribute, value) in subject {
        params.distinguished_name.push(attribute.clone(), *value);
    }
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(first_year, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn client_ca(issuers: &[&Issuer]) -> ClientCa {
    ClientCa::new(issuers.iter().map(|issuer| issuer.der().clone()).collect()).unwrap()
}

async fn authenticate(ca: ClientCa, peer: &PeerCertificate) -> Result<Option<Identity>, AuthnError> {
    let credentials = Credentials { peer: Some(peer), headers: &HeaderMap::new(), path: "/" };
    ClientCertificates::new(Arc::new(ca)).authenticate(&credentials).await
}

const NOW: (i32, i32) = (2000, 4000);

#[tokio::test]
async fn maps_subject_to_user_groups_and_uid() {
    let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
    let subject = [(DnType::CommonName, "alice"), (DnType::OrganizationName, "system:masters"), (uid, "u-1")];
    let root = authority(None);
    let peer = PeerCertificate::presented(vec![signed_by(&root, &subject, ClientAuth, NOW)]);
    let user = authenticate(client_ca(&[&root]), &peer).await.unwrap().unwrap().user;
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "u-1"));
    assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    assert_eq!(user.extra[CREDENTIAL_ID][0].len(), "X509SHA256=".len() + 64);
}

#[tokio::test]
async fn subject_without_common_name_has_no_user() {
    let (root, subject) = (authority(None), [(DnType::OrganizationName, "system:masters")]);
    let peer = PeerCertificate::presented(vec![signed_by(&root, &subject, ClientAuth, NOW)]);
    assert_eq!(authenticate(client_ca(&[&root]), &peer).await, Ok(None));
}

#[tokio::test]
async fn checks_signer_usage_and_validity() {
    let (root, other) = (authority(None), authority(None));
    let between = authority(Some(&root));
    let subject = [(DnType::CommonName, "alice")];
    let (direct, indirect) =
        (signed_by(&root, &subject, ClientAuth, NOW), signed_by(&between, &subject, ClientAuth, NOW));
    for (chain, right) in [
        (vec![direct.clone()], true),
        (vec![indirect.clone(), between.der().clone()], true),
        (vec![indirect], false),
        (vec![signed_by(&other, &subject, ClientAuth, NOW)], false),
        (vec![signed_by(&root, &subject, ServerAuth, NOW)], false),
        (vec![signed_by(&root, &subject, ClientAuth, (2000, 2001))], false),
        (vec![signed_by(&root, &subject, ClientAuth, (3999, 4000))], false),
        (vec![CertificateDer::from(b"nonsense".to_vec())], false),
        (vec![], false),
    ] {
        let found = authenticate(client_ca(&[&root]), &PeerCertificate::presented(chain)).await;
        assert_eq!(matches!(found, Ok(Some(_))), right, "{found:?}");
        assert_eq!(matches!(found, Err(AuthnError::Certificate(_))), !right);
    }
}

#[tokio::test]
async fn replaced_ca_applies_to_existing_connections() {
    let (root, other) = (authority(None), authority(None));
    let peer =
        PeerCertificate::presented(vec![signed_by(&root, &[(DnType::CommonName, "alice")], ClientAuth, NOW)]);
    let ca = Arc::new(client_ca(&[&root]));
    let chain = ClientCertificates::new(ca.clone());
    let authenticate = async || {
        let credentials = Credentials { peer: Some(&peer), headers: &HeaderMap::new(), path: "/" };
        chain.authenticate(&credentials).await.is_ok()
    };
    assert!(authenticate().await);
    assert!(ca.replace(vec![other.der().clone()]).unwrap());
    assert!(!authenticate().await);
    assert!(ca.replace(Vec::new()).is_err(), "an unusable bundle changes nothing");
    assert!(!authenticate().await);
    let both = vec![root.der().clone(), other.der().clone()];
    assert!(ca.replace(both.clone()).unwrap());
    assert!(!ca.replace(both).unwrap());
    assert!(authenticate().await);
    assert!(peer.verdicts.lock().len() <= MAX_VERDICTS);
}

#[test]
fn rejects_certificate_that_expires_after_verification() {
    let root = authority(None);
    let der = signed_by(&root, &[(DnType::CommonName, "alice")], ClientAuth, (2000, 3000));
    let (peer, ca) = (PeerCertificate::presented(vec![der]), client_ca(&[&root]));
    assert!(peer.verified_by(&ca, SystemTime::now()).is_ok());
    let later = SystemTime::now() + Duration::from_hours(24 * 365 * 1000);
    assert_eq!(peer.verified_by(&ca, later).unwrap_err(), CertificateError::NotNow);
}
