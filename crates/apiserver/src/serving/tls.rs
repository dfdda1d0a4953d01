//! TLS: protocols, cipher suites and client certificates.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use nave_authn::PeerCertificate;
use nave_certificates::version_one::{verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error as RustlsError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificates::ServingCertificate;
use super::{Protocol, socket::Socket};

/// Maximum number of TLS bytes queued per connection. Allows large responses to be sent in large writes.
const SEND_BUFFER: usize = 256 << 10;
const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// An error while setting up TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain and the key are invalid or do not match.
    #[error("the certificate and its key cannot be used: {0}")]
    Certificate(#[source] RustlsError),
    /// A client CA is invalid.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(#[source] RustlsError),
    /// The TLS library lacks a required feature.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] RustlsError),
}

/// The protocols and cipher suites that the server offers.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// True if TLS 1.2 is refused (`--tls-min-version=VersionTLS13`).
    pub requires_tls13: bool,
    /// The offered cipher suites of TLS 1.2 by their IANA names (`--tls-cipher-suites`); `None` for all. Those of TLS
    /// 1.3 are always offered.
    pub cipher_suites: Option<Vec<String>>,
    /// The offered key exchange groups by their IANA numbers (`--tls-curve-preferences`); `None` for all.
    pub key_exchange_groups: Option<Vec<u16>>,
    /// True if HTTP/2 is offered (`--disable-http2-serving`).
    pub offers_http2: bool,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { requires_tls13: false, cipher_suites: None, key_exchange_groups: None, offers_http2: true }
    }
}

impl TlsSettings {
    /// Returns the names of the cipher suites of TLS 1.2 that the server has.
    pub fn available_suites() -> Vec<&'static str> {
        let suites = aws_lc_rs::default_provider().cipher_suites;
        let tls12 = suites.iter().filter(|suite| suite.tls13().is_none());
        tls12.filter_map(|suite| suite.suite().as_str()).collect()
    }

    /// Returns the IANA numbers of the key exchange groups that the server has.
    pub fn available_groups() -> Vec<u16> {
        aws_lc_rs::default_provider().kx_groups.iter().map(|group| group.name().into()).collect()
    }
}

/// The configuration of TLS handshakes.
#[derive(Clone)]
pub struct Tls {
    pub(super) config: Arc<ArcSwap<ServerConfig>>,
    certificate: Arc<ServingCertificate>,
    settings: Arc<TlsSettings>,
}

/// A connection after its handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<Socket>,
    pub(super) protocol: Protocol,
    pub(super) client_certificate: Option<PeerCertificate>,
}

impl Tls {
    /// Creates a configuration for TLS 1.2 and 1.3. With client CAs, the server requests a client certificate, which is
    /// optional.
    ///
    /// # Errors
    /// A client CA is invalid.
    pub fn new(
        certificate: Arc<ServingCertificate>,
        client_cas: Option<&[CertificateDer<'static>]>,
    ) -> Result<Self, TlsError> {
        Self::with_settings(certificate, client_cas, TlsSettings::default())
    }

    /// As [`Self::new`], with other protocols and cipher suites.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_settings(
        certificate: Arc<ServingCertificate>,
        client_cas: Option<&[CertificateDer<'static>]>,
        settings: TlsSettings,
    ) -> Result<Self, TlsError> {
        let config = Arc::new(ArcSwap::from_pointee(server_config(&certificate, client_cas, &settings)?));
        Ok(Self { config, certificate, settings: Arc::new(settings) })
    }

    /// Replaces the client CAs for subsequent handshakes.
    ///
    /// # Errors
    /// A client CA is invalid; the previous ones are kept.
    pub fn set_client_cas(&self, client_cas: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        self.config.store(Arc::new(server_config(&self.certificate, Some(client_cas), &self.settings)?));
        Ok(())
    }

    pub(super) async fn accept(&self, stream: Socket) -> io::Result<Accepted> {
        if stream.answer_plain_http().await? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "client sent an HTTP request to an HTTPS server",
            ));
        }
        let mut stream = TlsAcceptor::from(self.config.load_full()).accept(stream).await?;
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(SEND_BUFFER));
        let protocol =
            if session.alpn_protocol() == Some(ALPN_HTTP2) { Protocol::Http2 } else { Protocol::Http1 };
        let presented = session.peer_certificates().filter(|chain| !chain.is_empty());
        let client_certificate = presented.map(|chain| {
            PeerCertificate::presented(chain.iter().cloned().map(CertificateDer::into_owned).collect())
        });
        Ok(Accepted { stream, protocol, client_certificate })
    }
}

fn server_config(
    certificate: &Arc<ServingCertificate>,
    client_cas: Option<&[CertificateDer<'static>]>,
    settings: &TlsSettings,
) -> Result<ServerConfig, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(offered) = &settings.cipher_suites {
        provider.cipher_suites.retain(|suite| {
            let name = suite.suite().as_str();
            suite.tls13().is_some() || offered.iter().any(|offered| name == Some(offered))
        });
    }
    if let Some(offered) = &settings.key_exchange_groups {
        provider.kx_groups.retain(|group| offered.contains(&group.name().into()));
    }
    let has_tls12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if settings.requires_tls13 || !has_tls12 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    // As in kube-apiserver, the server prefers the cheapest of the equally strong cipher suites.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?;
    let builder = match client_cas {
        None => builder.with_no_client_auth(),
        Some(cas) => {
            let mut roots = RootCertStore::empty();
            for ca in cas {
                roots.add(ca.clone()).map_err(TlsError::ClientCa)?;
            }
            builder.with_client_cert_verifier(Arc::new(RequestClientCertificate {
                subjects: roots.subjects(),
                algorithms,
            }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificate) as _);
    config.ignore_client_order = true;
    let protocols = if settings.offers_http2 { &[ALPN_HTTP2, ALPN_HTTP1][..] } else { &[ALPN_HTTP1] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Verifies that the client has the key of its certificate. Authentication verifies the issuer for each request. As
/// upstream, an untrusted certificate gets 401, not a failed handshake; a CA that is no longer trusted is rejected on
/// existing connections too. A completed handshake therefore authenticates nobody.
#[derive(Debug)]
struct RequestClientCertificate {
    /// The names of the CAs to send to clients.
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for RequestClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
