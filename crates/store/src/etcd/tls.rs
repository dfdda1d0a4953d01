//! TLS to the members. Files are read for each connection, so that renewed certificates need no restart.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
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
                let key = builder.crypto_provider().key_provider.load_private_key(private);
                let key = key.map_err(|error| in_file(key_file, &error))?;
                let certified = CertifiedKey::new(certificates(certificate)?, key);
                check_key(&certified).map_err(|error| in_file(certificate, &error))?;
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

/// Checks that a key is its certificate's. Certificates of version 1, which etcd accepts, are not read: a wrong key fails
/// the handshake.
fn check_key(certified: &CertifiedKey) -> Result<(), rustls::Error> {
    let first = certified.end_entity_cert()?;
    if is_version_one(first) { Ok(()) } else { certified.keys_match() }
}

/// Returns whether a certificate (DER) has no version, which means version 1: its content begins with the serial number.
fn is_version_one(certificate: &[u8]) -> bool {
    let content = content(certificate).and_then(content);
    content.and_then(<[u8]>::first) == Some(&SERIAL_NUMBER)
}

/// Returns what follows the header of a DER value.
fn content(value: &[u8]) -> Option<&[u8]> {
    let length = *value.get(1)?;
    // A long length is preceded by the number of its bytes.
    let header = if length & 0x80 == 0 { 2 } else { 2 + usize::from(length & 0x7f) };
    value.get(header..)
}

/// The tag of an integer.
const SERIAL_NUMBER: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_certificates_of_version_one() {
        let signed = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        assert!(!is_version_one(signed.cert.der()));
        // A certificate, its content, and the first field: the version 3 or the serial number 7.
        assert!(!is_version_one(&[0x30, 7, 0x30, 5, 0xa0, 3, 2, 1, 2]));
        assert!(is_version_one(&[0x30, 5, 0x30, 3, 2, 1, 7]));
        assert!(is_version_one(&[0x30, 0x82, 1, 0, 0x30, 0x81, 200, 2, 1, 7]));
        for incomplete in [&[][..], &[0x30], &[0x30, 0x82], &[0x30, 2, 0x30, 0]] {
            assert!(!is_version_one(incomplete), "{incomplete:?}");
        }
    }
}
