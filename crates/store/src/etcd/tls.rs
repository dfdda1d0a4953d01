//! TLS to the members. Files are read for each connection, so that renewed certificates need no restart.

use std::path::PathBuf;
use std::sync::Arc;

use nave_certificates::version_one;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::MemberStream;
use crate::pem::{authorities, certificates, in_file};

/// The files for TLS (PEM).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CAs of the members' certificates; the system's CAs if `None`.
    pub ca: Option<PathBuf>,
    /// The certificate of this client and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads the files and checks that they can be used.
    ///
    /// # Errors
    /// Names the file and the reason.
    pub fn check(&self) -> Result<(), String> {
        self.config().map(drop)
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: Box<dyn MemberStream>,
    ) -> Result<TlsStream<Box<dyn MemberStream>>, String> {
        let config = self.config()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| error.to_string())
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key_file)) => {
                let private =
                    PrivateKeyDer::from_pem_file(key_file).map_err(|error| in_file(key_file, &error))?;
                let chain = certificates(certificate)?;
                let certified = version_one::certified_key(chain, private, builder.crypto_provider());
                let certified = certified.map_err(|error| in_file(certificate, &error))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(file) = &self.ca else {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        authorities(file)
    }
}
