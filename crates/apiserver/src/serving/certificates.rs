//! The serving certificates, which can be replaced while the server runs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nave_certificates::version_one;
use nave_machinery::names;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::TlsError;

/// The serving certificate, and others for single server names. A replacement applies to subsequent handshakes.
#[derive(Debug)]
pub struct ServingCertificate {
    default: ArcSwap<CertifiedKey>,
    /// The certificates of lowercase server names. A name may begin with `*.`.
    named: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

/// A certificate for clients that ask for one of its server names (SNI, `--tls-sni-cert-key`).
#[derive(Debug)]
pub struct NamedCertificate {
    /// The certificate chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// The server names, perhaps with a wildcard as first label. If empty, the names in the certificate.
    pub names: Vec<String>,
}

impl ServingCertificate {
    /// Creates a serving certificate from its chain and key.
    ///
    /// # Errors
    /// The key has an unknown type or does not match the certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let default = ArcSwap::from_pointee(certified_key(chain, key)?);
        Ok(Self { default, named: ArcSwap::default() })
    }

    /// Replaces the certificate.
    ///
    /// # Errors
    /// See [`Self::new`]; on error, the previous certificate is kept.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        self.default.store(Arc::new(certified_key(chain, key)?));
        Ok(())
    }

    /// Replaces the certificates for server names. As upstream, names in flags take precedence over names in
    /// certificates, and earlier certificates over later ones.
    ///
    /// # Errors
    /// A key has an unknown type or does not match its certificate; the previous certificates are kept. The index of the
    /// certificate is the first part.
    pub fn replace_named(&self, certificates: Vec<NamedCertificate>) -> Result<(), (usize, TlsError)> {
        let (mut given, mut contained) = (HashMap::new(), HashMap::new());
        for (index, NamedCertificate { chain, key, names }) in certificates.into_iter().enumerate() {
            let in_certificate = chain.first().map(names_in).unwrap_or_default();
            let certified = Arc::new(certified_key(chain, key).map_err(|error| (index, error))?);
            let (names, map) =
                if names.is_empty() { (in_certificate, &mut contained) } else { (names, &mut given) };
            for name in names {
                map.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&certified));
            }
        }
        contained.extend(given);
        self.named.store(Arc::new(contained));
        Ok(())
    }

    /// Returns the certificate for a server name: that of the name itself, of the name with a wildcard as first label, or
    /// the default.
    fn for_name(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let named = self.named.load();
        let found = name.filter(|_| !named.is_empty()).and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            named.get(&name).or_else(|| named.get(&wildcard()?)).cloned()
        });
        found.unwrap_or_else(|| self.default.load_full())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.for_name(hello.server_name()))
    }
}

/// Returns the names in a certificate: the common name if it is a DNS name, and the alternative DNS names. Clients do not
/// ask for IP addresses.
fn names_in(certificate: &CertificateDer<'static>) -> Vec<String> {
    let Ok((_, read)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let is_name = |name: &str| {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        plain.parse::<IpAddr>().is_err() && names::is_dns1123_subdomain(plain).is_empty()
    };
    let common = read.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut found: Vec<String> = common.filter(|name| is_name(name)).map(str::to_owned).collect();
    let alternative = read.subject_alternative_name().ok().flatten();
    found.extend(alternative.iter().flat_map(|names| &names.value.general_names).filter_map(
        |name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        },
    ));
    found
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    version_one::certified_key(chain, key, &aws_lc_rs::default_provider()).map_err(TlsError::Certificate)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn pair(common: &str, alternative: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = alternative.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let certificate = params.self_signed(&key).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn named(
        pair: &(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
        names: &[&str],
    ) -> NamedCertificate {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        NamedCertificate { chain: pair.0.clone(), key: pair.1.clone_key(), names }
    }

    #[test]
    fn the_certificate_follows_the_server_name() {
        let default = pair("default", &[]);
        let (first, second) =
            (pair("*.first.test", &["alt.test"]), pair("10.0.0.1", &["second.test", "alt.test"]));
        let given = pair("given", &["unused.test"]);
        let serving = ServingCertificate::new(default.0.clone(), default.1.clone_key()).unwrap();
        let all =
            vec![named(&first, &[]), named(&second, &[]), named(&given, &["Given.test", "a.first.test"])];
        serving.replace_named(all).unwrap();
        for (name, expected) in [
            (None, &default),
            (Some("other.test"), &default),
            (Some("first.test"), &default),
            (Some("B.First.test"), &first),
            (Some("b.c.first.test"), &default),
            (Some("a.first.test"), &given),
            (Some("alt.test"), &first),
            (Some("second.test"), &second),
            (Some("10.0.0.1"), &default),
            (Some("given.test"), &given),
            (Some("unused.test"), &default),
        ] {
            assert_eq!(serving.for_name(name).cert, expected.0, "{name:?}");
        }
        let wrong = NamedCertificate { key: default.1.clone_key(), ..named(&first, &[]) };
        let (index, _) = serving.replace_named(vec![named(&second, &[]), wrong]).unwrap_err();
        assert_eq!(index, 1);
        assert_eq!(serving.for_name(Some("given.test")).cert, given.0, "the previous certificates are kept");
        serving.replace_named(Vec::new()).unwrap();
        assert_eq!(serving.for_name(Some("given.test")).cert, default.0);
    }
}
