//! TLS of the servers in the tests.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::ok;

/// Returns the configuration of a server with a certificate for `name`, signed by the files `ca.crt` and `ca.key` in
/// the folder. The server accepts only clients of `client_ca`.
pub(crate) fn server_config(ca: &Path, name: &str, client_ca: CertificateDer<'static>) -> ServerConfig {
    let read = |file: &str| ok(std::fs::read_to_string(ca.join(file)), "the CA");
    let (certificate, key) = (read("ca.crt"), read("ca.key"));
    let issuer = ok(Issuer::from_ca_cert_pem(&certificate, ok(KeyPair::from_pem(&key), "the CA")), "the CA");
    let mut params = ok(CertificateParams::new(vec![name.to_owned()]), "the certificate");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = ok(KeyPair::generate(), "the key");
    let leaf = ok(params.signed_by(&key, &issuer), "the certificate");
    let mut roots = RootCertStore::empty();
    ok(roots.add(client_ca), "the client CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = ok(builder, "TLS").with_client_cert_verifier(ok(verifier.build(), "the client CA"));
    let key = ok(PrivateKeyDer::try_from(key.serialize_der()), "the key");
    ok(builder.with_single_cert(vec![leaf.der().clone()], key), "TLS")
}
