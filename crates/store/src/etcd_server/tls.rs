//! TLS with clients. Files are read for each connection, so that renewed certificates need no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nave_certificates::version_one;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pem::{authorities, certificates, in_file};

/// The files for TLS (PEM).
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// The configuration of the last files that could be used.
    usable: Mutex<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Reads the files. With `client_ca`, clients need a certificate of one of its CAs.
    ///
    /// # Errors
    /// Names the file and the reason.
    pub fn new(certificate: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Result<Self, String> {
        let config = config(&certificate, &key, client_ca.as_deref())?;
        Ok(Self { certificate, key, client_ca, usable: Mutex::new(Arc::new(config)) })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        match config(&self.certificate, &self.key, self.client_ca.as_deref()) {
            Ok(config) => *self.usable.lock() = Arc::new(config),
            Err(error) => {
                tracing::warn!(error, "TLS files of the etcd endpoint cannot be used, keeping the last ones");
            }
        }
        let config = Arc::clone(&self.usable.lock());
        TlsAcceptor::from(config).accept(stream).await.map_err(|error| error.to_string())
    }
}

fn config(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = ClientVerifier::new(file, Arc::clone(&provider))?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
    let certified = version_one::certified_key(certificates(certificate)?, private, &provider);
    let certified = certified.map_err(|error| in_file(certificate, &error))?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Verifies the certificates of clients, also those of version 1, which etcd accepts.
#[derive(Debug)]
struct ClientVerifier {
    usual: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    fn new(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let algorithms = provider.signature_verification_algorithms;
        let roots = Arc::new(authorities(file)?);
        let usual = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        let usual = usual.map_err(|error| in_file(file, &error))?;
        Ok(Self { usual, authorities: certificates(file)?, algorithms })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match version_one::verify_client(certificate, &self.authorities, &self.algorithms, now) {
            Some(verified) => verified.map(|()| ClientCertVerified::assertion()),
            None => self.usual.verify_client_cert(certificate, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        version_one::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        version_one::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
