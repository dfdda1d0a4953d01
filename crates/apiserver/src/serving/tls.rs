//! TLS: the serving certificate, which may change while the server runs, and the client's certificate.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use nave_authn::{CertificateError, Peer, PeerCertificate};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as RustlsError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Protocol;

/// TLS bytes queued for a connection, so that bulk answers go out in large writes.
const SEND_BUFFER: usize = 256 << 10;
const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain and the key do not make a serving certificate.
    #[error("the certificate and its key cannot be used: {0}")]
    Certificate(#[source] RustlsError),
    /// A client CA cannot be used.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(#[source] RustlsError),
    /// No client CA was given, or one that cannot verify.
    #[error("the client CA cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The library does not support what we need of it.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] RustlsError),
}

/// The certificate the server shows. Replaced, it holds for all handshakes from then on.
#[derive(Debug)]
pub struct ServingCertificate(ArcSwap<CertifiedKey>);

impl ServingCertificate {
    /// Takes a certificate with its chain, and its key.
    ///
    /// # Errors
    /// The key is of an unknown kind, or not the certificate's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(certified_key(chain, key)?)))
    }

    /// Replaces the certificate.
    ///
    /// # Errors
    /// As for [`Self::new`]; the certificate held before stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified_key(chain, key)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(TlsError::Certificate)
}

/// The server's side of TLS handshakes.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    client_ca: Option<Arc<dyn ClientCertVerifier>>,
}

/// A connection after its handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) protocol: Protocol,
    pub(super) client_certificate: Option<Peer>,
}

impl Tls {
    /// TLS 1.2 and 1.3 with this certificate. With client CAs, clients are asked for a certificate, and may present
    /// none.
    ///
    /// # Errors
    /// A client CA cannot be used.
    pub fn new(
        certificate: Arc<ServingCertificate>,
        client_cas: Option<&[CertificateDer<'static>]>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client_ca = client_cas.map(|cas| client_verifier(cas, &provider)).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match &client_ca {
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(AskOnly(verifier.clone()))),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), client_ca })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let mut stream = self.acceptor.accept(stream).await?;
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(SEND_BUFFER));
        let protocol =
            if session.alpn_protocol() == Some(ALPN_HTTP2) { Protocol::Http2 } else { Protocol::Http1 };
        let presented = session.peer_certificates().unwrap_or_default();
        let client_certificate = self.client_ca.as_ref().zip(presented.split_first());
        let client_certificate = client_certificate
            .map(|(ca, (certificate, chain))| read_client_certificate(&**ca, certificate, chain));
        Ok(Accepted { stream, protocol, client_certificate })
    }
}

fn client_verifier(
    cas: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone()).map_err(TlsError::ClientCa)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?)
}

fn read_client_certificate(
    ca: &dyn ClientCertVerifier,
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
) -> Peer {
    ca.verify_client_cert(certificate, chain, UnixTime::now())
        .map_err(|error| CertificateError::Untrusted(error.to_string()))?;
    PeerCertificate::from_verified(certificate)
}

/// Has the client prove that it owns the certificate it presents, and leaves the question who signed it until after
/// the handshake, so that the answer to a certificate that is not believed is 401, as upstream, and not a broken
/// connection. The handshake alone therefore lets nobody in: only [`read_client_certificate`] makes a user of it.
#[derive(Debug)]
struct AskOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
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
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
