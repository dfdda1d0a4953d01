//! The CAs of client certificates, which can be replaced while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use nave_certificates::version_one;
use rustls::RootCertStore;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::CertificateError;

/// The reasons why certificates cannot be used as client CAs.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// One of the certificates is malformed.
    #[error("a certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// The list of certificates is empty.
    #[error("{0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A client CA bundle. After a replacement, the new bundle applies to the next request of every connection.
#[derive(Debug)]
pub struct ClientCa(ArcSwap<Authorities>);

/// One version of the bundle. Cached verification results refer to the version they were computed with.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// `None` if the bundle is empty.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCa {
    /// Trusts certificates signed by one of `certificates`.
    ///
    /// # Errors
    /// The list is empty, or a certificate cannot be used.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, ClientCaError> {
        Ok(Self(ArcSwap::from_pointee(Authorities::new(certificates)?)))
    }

    /// Trusts no certificate until the bundle is replaced.
    pub fn empty() -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self(ArcSwap::from_pointee(Authorities { certificates: Vec::new(), verifier: None, algorithms }))
    }

    /// Returns whether no certificate is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.load().certificates.is_empty()
    }

    /// Replaces the bundle; returns whether it has changed.
    ///
    /// # Errors
    /// As for [`Self::new`]; the previous bundle stays in effect.
    pub fn replace(&self, certificates: Vec<CertificateDer<'static>>) -> Result<bool, ClientCaError> {
        if self.0.load().certificates == certificates {
            return Ok(false);
        }
        self.0.store(Arc::new(Authorities::new(certificates)?));
        Ok(true)
    }

    /// The certificates of the bundle. The TLS handshake sends their names to clients.
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
        let provider = aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider)).build()?;
        Ok(Self { certificates, verifier: Some(verifier), algorithms })
    }

    /// Verifies that a chain leads to a CA of the bundle, is valid now, and is for client authentication. A certificate of
    /// version 1 must be signed by a CA of the bundle itself.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), CertificateError> {
        let (certificate, intermediates) = chain.split_first().ok_or(CertificateError::Malformed)?;
        let verifier = self.verifier.as_ref().ok_or(CertificateError::NoAuthority)?;
        let now = UnixTime::now();
        let verified = version_one::verify_client(certificate, &self.certificates, &self.algorithms, now)
            .unwrap_or_else(|| verifier.verify_client_cert(certificate, intermediates, now).map(drop));
        verified.map_err(|error| CertificateError::Untrusted(error.to_string()))
    }
}
