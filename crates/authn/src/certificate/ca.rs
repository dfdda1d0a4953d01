//! The authorities whose client certificates are believed; they can change while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::CertificateError;

/// Why certificates cannot be authorities.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// One of them is damaged.
    #[error("a certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// There is none.
    #[error("{0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Authorities for client certificates. Replaced, they hold for the next request of every connection.
#[derive(Debug)]
pub struct ClientCa(ArcSwap<Authorities>);

/// One set of authorities; a verdict is about one of these.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// Believes what one of these has signed.
    ///
    /// # Errors
    /// There is none, or one cannot be used.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, ClientCaError> {
        Ok(Self(ArcSwap::from_pointee(Authorities::new(certificates)?)))
    }

    /// Believes these from now on, and says whether they are others than before.
    ///
    /// # Errors
    /// As for [`Self::new`]; those before stay.
    pub fn replace(&self, certificates: Vec<CertificateDer<'static>>) -> Result<bool, ClientCaError> {
        if self.0.load().certificates == certificates {
            return Ok(false);
        }
        self.0.store(Arc::new(Authorities::new(certificates)?));
        Ok(true)
    }

    /// The authorities' certificates, of which clients are told.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().certificates.clone()
    }

    pub(super) fn current(&self) -> Arc<Authorities> {
        self.0.load_full()
    }
}

impl Authorities {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, ClientCaError> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { certificates, verifier })
    }

    /// Whether a certificate leads here, is for client authentication, and is valid now, as is its chain.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), CertificateError> {
        let (certificate, intermediates) = chain.split_first().ok_or(CertificateError::Malformed)?;
        let verified = self.verifier.verify_client_cert(certificate, intermediates, UnixTime::now());
        verified.map(drop).map_err(|error| CertificateError::Untrusted(error.to_string()))
    }
}
