//! Client certificates: the common name is the user, the organizations are its groups.

mod ca;
pub mod name;
mod pem;

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, Oid, asn1_rs::oid},
    prelude::FromDer,
};

use self::ca::Authorities;
pub use self::ca::{ClientCa, ClientCaError};
use self::name::{NameError, attribute_values, check_readable};
pub use self::pem::certificates_to_pem;
use crate::{Authenticator, AuthnError, CREDENTIAL_ID, Credentials, Identity, Metrics};

/// The subject attribute that holds the user's uid.
const UID_OID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);
/// The maximum number of verdicts stored per connection: two versions of each of the two CA bundles.
const MAX_VERDICTS: usize = 4;

/// The reasons to refuse a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain does not lead to the client CA, the certificate is not for client authentication, or it is not valid
    /// now.
    #[error("{0}")]
    Untrusted(String),
    /// No client CA is known yet.
    #[error("no client CA is configured")]
    NoAuthority,
    /// The certificate cannot be parsed.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The certificate's subject cannot be parsed.
    #[error("the certificate's subject cannot be read: {0}")]
    Subject(#[from] NameError),
    /// The certificate has expired, or is not valid yet.
    #[error("the certificate is not valid at this time")]
    NotNow,
    /// The proxy's certificate does not have one of the allowed names.
    #[error("x509: subject with cn={0} is not in the allowed list")]
    Name(String),
}

/// The certificate that a client presented in the TLS handshake, with proof of the private key. The chain is verified
/// when a request first needs it, and again after the CA bundle changes. The subject is parsed once.
#[derive(Debug)]
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    subject: OnceLock<Result<Subject, CertificateError>>,
    verdicts: Mutex<Vec<Verdict>>,
}

/// The result of verifying a certificate against one CA bundle.
type Verdict = (Arc<Authorities>, Result<(), CertificateError>);

/// The fields of a certificate that authentication needs.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The common name; empty if the subject has no common name.
    pub(crate) name: String,
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl PeerCertificate {
    /// Wraps the presented chain, the client's certificate first. The caller must have verified that the client holds
    /// the private key.
    pub fn presented(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, subject: OnceLock::new(), verdicts: Mutex::default() }
    }

    /// Returns the subject if `ca` trusts the certificate and the certificate is valid at `now`.
    ///
    /// # Errors
    /// The chain is not trusted, the certificate is not valid at this time, or it cannot be parsed.
    pub(crate) fn verified_by(&self, ca: &ClientCa, now: SystemTime) -> Result<&Subject, CertificateError> {
        self.verdict(ca.current())?;
        let subject = self.subject.get_or_init(|| Subject::read(&self.chain));
        let subject = subject.as_ref().map_err(Clone::clone)?;
        // A connection can outlive its certificate.
        if subject.not_before <= now && now <= subject.not_after {
            Ok(subject)
        } else {
            Err(CertificateError::NotNow)
        }
    }

    fn verdict(&self, authorities: Arc<Authorities>) -> Result<(), CertificateError> {
        let mut verdicts = self.verdicts.lock();
        if let Some((_, verdict)) = verdicts.iter().find(|(of, _)| Arc::ptr_eq(of, &authorities)) {
            return verdict.clone();
        }
        let verdict = authorities.verify(&self.chain);
        if verdicts.len() == MAX_VERDICTS {
            drop(verdicts.remove(0));
        }
        verdicts.push((authorities, verdict.clone()));
        verdict
    }
}

impl Subject {
    fn read(chain: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let certificate = chain.first().ok_or(CertificateError::Malformed)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::Malformed)?;
        let subject = parsed.subject();
        check_readable(subject)?;
        let name = attribute_values(subject, &OID_X509_COMMON_NAME)?.pop().unwrap_or_default();
        let uids = attribute_values(subject, &UID_OID)?;
        let ([] | [_]) = uids.as_slice() else {
            return Err(CertificateError::Malformed);
        };
        let user = UserInfo {
            name: name.clone(),
            uid: uids.into_iter().next().unwrap_or_default(),
            groups: attribute_values(subject, &OID_X509_ORGANIZATION_NAME)?,
            extra: [(CREDENTIAL_ID.to_owned(), vec![credential_id(certificate)])].into(),
        };
        Ok(Self {
            name,
            identity: Identity::new(user),
            not_before: system_time(parsed.validity().not_before.timestamp()),
            not_after: system_time(parsed.validity().not_after.timestamp()),
        })
    }
}

/// Authenticates the client certificate of the connection.
pub struct ClientCertificates {
    ca: Arc<ClientCa>,
    metrics: Option<Arc<Metrics>>,
}

impl ClientCertificates {
    /// Trusts certificates signed by `ca`.
    pub fn new(ca: Arc<ClientCa>) -> Self {
        Self { ca, metrics: None }
    }

    /// Records metrics.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
        let Some(peer) = credentials.peer else { return Ok(None) };
        let now = SystemTime::now();
        let subject = peer.verified_by(&self.ca, now)?;
        if let Some(metrics) = &self.metrics {
            metrics.certificate_expires_in(subject.not_after.duration_since(now).unwrap_or_default());
        }
        Ok((!subject.name.is_empty()).then(|| subject.identity.clone()))
    }
}

fn credential_id(certificate: &CertificateDer<'_>) -> String {
    let mut id = String::from("X509SHA256=");
    for byte in Sha256::digest(certificate) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

fn system_time(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
pub(crate) mod tests;
