//! Client certificates: the common name is the user, the organizations are its groups.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, Oid, asn1_rs::oid},
    prelude::FromDer,
    x509::AttributeTypeAndValue,
};

use crate::{Authenticator, AuthnError, Credentials, Identity};

/// The attribute of a subject that holds the user's uid.
const UID_OID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);
/// The key of `UserInfo::extra` that tells which certificate was used.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The certificate that the client of a connection has presented and proved to own, and what became of it.
pub type Peer = Result<PeerCertificate, CertificateError>;

/// Why a client certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It does not lead to the client CA, is not for client authentication, or is not valid now.
    #[error("{0}")]
    Untrusted(String),
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its time is over, or has not begun.
    #[error("the certificate is not valid at this time")]
    NotNow,
}

/// A client certificate that was verified against the client CA when the connection was made, read once for all
/// requests of the connection.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The user it names; `None` if it has no common name.
    identity: Option<Identity>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl PeerCertificate {
    /// Reads a certificate. The caller has verified it.
    ///
    /// # Errors
    /// It is not a certificate, or its subject has text that cannot be read.
    pub fn from_verified(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::Malformed)?;
        let name = attribute_values(&parsed, &OID_X509_COMMON_NAME)?.pop().unwrap_or_default();
        let uids = attribute_values(&parsed, &UID_OID)?;
        let ([] | [_]) = uids.as_slice() else {
            return Err(CertificateError::Malformed);
        };
        let user = UserInfo {
            name,
            uid: uids.into_iter().next().unwrap_or_default(),
            groups: attribute_values(&parsed, &OID_X509_ORGANIZATION_NAME)?,
            extra: [(CREDENTIAL_ID.to_owned(), vec![credential_id(certificate)])].into(),
        };
        Ok(Self {
            identity: (!user.name.is_empty()).then(|| Identity::new(user)),
            not_before: system_time(parsed.validity().not_before.timestamp()),
            not_after: system_time(parsed.validity().not_after.timestamp()),
        })
    }

    /// Whether the certificate is valid at a time. A connection can live longer than its certificate.
    fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Takes the user of the connection's client certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
        match credentials.peer {
            None => Ok(None),
            Some(Err(error)) => Err(error.clone().into()),
            Some(Ok(certificate)) if certificate.is_valid_at(SystemTime::now()) => {
                Ok(certificate.identity.clone())
            }
            Some(Ok(_)) => Err(CertificateError::NotNow.into()),
        }
    }
}

fn attribute_values(
    certificate: &X509Certificate<'_>,
    oid: &Oid<'_>,
) -> Result<Vec<String>, CertificateError> {
    let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned);
    let attributes = certificate.subject().iter_attributes().filter(|attribute| attribute.attr_type() == oid);
    attributes.map(text).collect::<Result<_, _>>().map_err(|_| CertificateError::Malformed)
}

fn credential_id(certificate: &CertificateDer<'_>) -> String {
    let mut id = String::from("X509SHA256=");
    for byte in Sha256::digest(certificate) {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

fn system_time(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(subject: &[(DnType, &str)], first_year: i32, last_year: i32) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (attribute, value) in subject {
            params.distinguished_name.push(attribute.clone(), *value);
        }
        params.not_before = date_time_ymd(first_year, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::from_verified(signed.der()).unwrap()
    }

    async fn ask(peer: &Peer) -> Result<Option<Identity>, AuthnError> {
        ClientCertificates.authenticate(&Credentials { peer: Some(peer), headers: &HeaderMap::new() }).await
    }

    #[tokio::test]
    async fn the_subject_names_the_user_its_groups_and_uid() {
        let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        let subject =
            [(DnType::CommonName, "alice"), (DnType::OrganizationName, "system:masters"), (uid, "u-1")];
        let user = ask(&Ok(certificate(&subject, 2000, 4000))).await.unwrap().unwrap().user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "u-1"));
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        assert_eq!(user.extra[CREDENTIAL_ID][0].len(), "X509SHA256=".len() + 64);
    }

    #[tokio::test]
    async fn a_subject_without_a_common_name_is_no_user() {
        let peer = Ok(certificate(&[(DnType::OrganizationName, "system:masters")], 2000, 4000));
        assert_eq!(ask(&peer).await, Ok(None));
    }

    #[tokio::test]
    async fn a_certificate_out_of_its_time_or_unverified_is_wrong() {
        for (first, last) in [(2000, 2001), (3999, 4000)] {
            let peer = Ok(certificate(&[(DnType::CommonName, "alice")], first, last));
            assert_eq!(ask(&peer).await, Err(CertificateError::NotNow.into()));
        }
        let untrusted = CertificateError::Untrusted("unknown issuer".into());
        assert_eq!(ask(&Err(untrusted.clone())).await, Err(untrusted.into()));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_an_error() {
        for bytes in [&b""[..], b"nonsense", &[0x30, 0x82, 0xff, 0xff, 0x30]] {
            let read = PeerCertificate::from_verified(&CertificateDer::from(bytes));
            assert_eq!(read.unwrap_err(), CertificateError::Malformed);
        }
    }
}
