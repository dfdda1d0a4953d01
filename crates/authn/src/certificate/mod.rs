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

/// The attribute of a subject that holds the user's uid.
const UID_OID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);
/// Verdicts kept for a connection: one an authority in use, and one of each before.
const MAX_VERDICTS: usize = 4;

/// Why a client certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It does not lead to the client CA, is not for client authentication, or is not valid now.
    #[error("{0}")]
    Untrusted(String),
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its subject cannot be read.
    #[error("the certificate's subject cannot be read: {0}")]
    Subject(#[from] NameError),
    /// Its time is over, or has not begun.
    #[error("the certificate is not valid at this time")]
    NotNow,
    /// It is not one of the proxy's.
    #[error("x509: subject with cn={0} is not in the allowed list")]
    Name(String),
}

/// The certificate that the client of a connection has presented and proved to own. Who has signed it is looked into
/// when a request first asks, and again when the authorities change; what it says is read once.
#[derive(Debug)]
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    subject: OnceLock<Result<Subject, CertificateError>>,
    verdicts: Mutex<Vec<Verdict>>,
}

/// What one set of authorities makes of a certificate.
type Verdict = (Arc<Authorities>, Result<(), CertificateError>);

/// What a certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The common name; empty if there is none.
    pub(crate) name: String,
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl PeerCertificate {
    /// A certificate with the chain it came with, the certificate first. The caller has verified that the client
    /// holds its key.
    pub fn presented(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, subject: OnceLock::new(), verdicts: Mutex::default() }
    }

    /// What the certificate says, if these authorities vouch for it now.
    ///
    /// # Errors
    /// They do not, it is not valid at this time, or it cannot be read.
    pub(crate) fn verified_by(&self, ca: &ClientCa, now: SystemTime) -> Result<&Subject, CertificateError> {
        self.verdict(ca.current())?;
        let subject = self.subject.get_or_init(|| Subject::read(&self.chain));
        let subject = subject.as_ref().map_err(Clone::clone)?;
        // A connection can live longer than its certificate.
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

/// Takes the user of the connection's client certificate.
pub struct ClientCertificates {
    ca: Arc<ClientCa>,
    metrics: Option<Arc<Metrics>>,
}

impl ClientCertificates {
    /// Believes what `ca` has signed.
    pub fn new(ca: Arc<ClientCa>) -> Self {
        Self { ca, metrics: None }
    }

    /// The same, which counts.
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
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

fn system_time(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
pub(crate) mod tests;
