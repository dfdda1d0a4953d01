//! TLS with clients. Files are read for each connection, so that renewed certificates need no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
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
            let roots = Arc::new(authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| in_file(file, &error))?)
        }
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
    let config = builder.with_single_cert(certificates(certificate)?, private);
    let mut config = config.map_err(|error| in_file(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
