//! The certificates in use: the server's own certificates and those in flags.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nave_apiserver::serving::{NamedCertificate, ServingCertificate};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ServeError;
use super::client_cas::read_cas;
use crate::{
    flags::{Config, Credentials, FlagError, NamedPair},
    pki::{self, FrontProxy, Pair, Pki},
};

/// The certificates in use.
pub(super) struct Certificates {
    config: Config,
    /// The server's own CA and certificates, if it has them.
    own: Option<Pki>,
    /// The serving certificate: the server's own or the one in the flags.
    pair: Pair,
    /// The certificates for single server names, in the order of the flags.
    named: Vec<Pair>,
    serving: Arc<ServingCertificate>,
}

impl Certificates {
    /// Reads the certificates in the flags, and reads or creates the server's own.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let now = SystemTime::now();
        let own = match config.credentials {
            Credentials::OwnAuthority => {
                Some(Pki::open(config.data_dir.join("pki"), own_addresses(config), now)?)
            }
            Credentials::SelfSigned => None,
        };
        if let (true, Some((certificate, key))) = (config.creates_serving_pair, &config.serving_pair) {
            pki::ensure_self_signed(certificate, key, &own_addresses(config), now)
                .map_err(|error| FlagError::new("cert-dir", error.to_string()))?;
        }
        let pair = load_pair(config, own.as_ref())?;
        let (chain, key) = decode(config, &pair)?;
        let serving = ServingCertificate::new(chain, key).map_err(|why| unusable(config, why))?;
        let named = load_named(config)?;
        replace_named(&serving, config, &named)?;
        Ok(Self { config: config.clone(), own, pair, named, serving: Arc::new(serving) })
    }

    /// Renews certificates that are due and reloads changed files. Returns whether the kubeconfig must be rewritten.
    /// New connections use the new certificate.
    pub(super) fn refresh(&mut self, now: SystemTime) -> Result<bool, ServeError> {
        let renewed = self.own.as_mut().map_or(Ok(false), |own| own.renew(now))?;
        let pair = load_pair(&self.config, self.own.as_ref())?;
        let is_new = pair != self.pair;
        if is_new {
            let (chain, key) = decode(&self.config, &pair)?;
            self.serving.replace(chain, key).map_err(|why| unusable(&self.config, why))?;
            self.pair = pair;
            tracing::info!("serving certificate reloaded");
        }
        let named = load_named(&self.config)?;
        if named != self.named {
            replace_named(&self.serving, &self.config, &named)?;
            self.named = named;
            tracing::info!("certificates for server names reloaded");
        }
        Ok(renewed || is_new)
    }

    /// Returns the files in flags.
    pub(super) fn given(&self) -> Vec<PathBuf> {
        let pair = self.config.serving_pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        let named = self.config.named_pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        let authentication = &self.config.authentication;
        let cas = authentication
            .client_ca_file
            .iter()
            .chain(authentication.proxy.as_ref().map(|proxy| &proxy.ca_file));
        let kubelet = &self.config.kubelet;
        let proxy_pair = self.config.aggregation.client_pair.iter();
        let proxy_pair = proxy_pair.flat_map(|(certificate, key)| [certificate, key]);
        let kubelet_pair = kubelet.client_pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        pair.chain(named)
            .chain(cas)
            .chain(proxy_pair)
            .chain(kubelet_pair)
            .chain(&kubelet.ca_file)
            .chain(&self.config.peers.ca_file)
            .cloned()
            .collect()
    }

    pub(super) fn serving(&self) -> Arc<ServingCertificate> {
        self.serving.clone()
    }

    /// Returns the administrator's client certificate that the server created.
    pub(super) fn admin(&self) -> Option<&Pair> {
        self.own.as_ref().map(|own| &own.admin)
    }

    /// Returns the client certificate for kubelets that the server created.
    pub(super) fn kubelet_client(&self) -> Option<&Pair> {
        self.own.as_ref().map(|own| &own.kubelet_client)
    }

    /// Returns the certificates for aggregated servers that the server created; `None` if flags replace them.
    pub(super) fn front_proxy(&self) -> Option<&FrontProxy> {
        let is_given = self.config.aggregation.client_pair.is_some();
        let has_others = self.config.authentication.proxy.is_some();
        let own = self.own.as_ref().filter(|_| !is_given && !has_others);
        own.map(|own| &own.front_proxy)
    }

    /// Returns the CA with which clients verify the server: the server's own CA, or the certificate in the flags,
    /// because its CA is unknown.
    pub(super) fn server_ca(&self) -> &str {
        self.issuing_ca().unwrap_or(&self.pair.certificate)
    }

    /// Returns the server's own CA, if it issues the serving certificate.
    pub(super) fn issuing_ca(&self) -> Option<&str> {
        let own = self.own.as_ref().filter(|_| self.config.serving_pair.is_none())?;
        Some(&own.ca.certificate)
    }

    /// Returns the CAs of client certificates.
    pub(super) fn client_cas(&self) -> Result<Vec<CertificateDer<'static>>, ServeError> {
        let own =
            self.own.iter().flat_map(|own| CertificateDer::pem_slice_iter(own.ca.certificate.as_bytes()));
        let own = own.collect::<Result<Vec<_>, _>>();
        let mut cas = own.map_err(|why| FlagError::new("data-dir", why.to_string()))?;
        if let Some(file) = &self.config.authentication.client_ca_file {
            cas.extend(read_cas("client-ca-file", file)?);
        }
        Ok(cas)
    }
}

/// Returns the server's addresses: loopback, the bind and advertise addresses, and the service `kubernetes`.
fn own_addresses(config: &Config) -> BTreeSet<IpAddr> {
    let all = [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        config.listen.ip(),
        config.advertise,
        config.service_ranges.first(),
    ];
    all.into_iter().filter(|address| !address.is_unspecified()).collect()
}

fn load_pair(config: &Config, own: Option<&Pki>) -> Result<Pair, FlagError> {
    if let Some(files) = &config.serving_pair {
        return read_pair(files, ("tls-cert-file", "tls-private-key-file"));
    }
    let own = own.map(|own| own.serving.clone());
    own.ok_or_else(|| FlagError::new("tls-cert-file", "required"))
}

const SNI_FLAG: &str = "tls-sni-cert-key";

fn load_named(config: &Config) -> Result<Vec<Pair>, FlagError> {
    let files = config.named_pairs.iter().map(|pair| (pair.certificate.clone(), pair.key.clone()));
    files.map(|files| read_pair(&files, (SNI_FLAG, SNI_FLAG))).collect()
}

/// Replaces the certificates for single server names.
fn replace_named(serving: &ServingCertificate, config: &Config, pairs: &[Pair]) -> Result<(), FlagError> {
    let decoded = pairs.iter().zip(&config.named_pairs).map(|(pair, files)| decode_named(pair, files));
    let decoded = decoded.collect::<Result<_, _>>()?;
    serving.replace_named(decoded).map_err(|(index, error)| match config.named_pairs.get(index) {
        Some(files) => FlagError::file(SNI_FLAG, &files.certificate, error),
        None => FlagError::new(SNI_FLAG, error.to_string()),
    })
}

fn decode_named(pair: &Pair, files: &NamedPair) -> Result<NamedCertificate, FlagError> {
    let in_certificate = |why: String| FlagError::file(SNI_FLAG, &files.certificate, why);
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| in_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(in_certificate("no PEM certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let key = key.map_err(|error| FlagError::file(SNI_FLAG, &files.key, error))?;
    Ok(NamedCertificate { chain, key, names: files.names.clone() })
}

/// Decodes a client certificate and its key. `flags` are those of their files; `None` if the server created them.
pub(super) fn client_identity(
    pair: &Pair,
    flags: Option<(&'static str, &'static str)>,
) -> Result<DecodedPair, FlagError> {
    let (of_certificate, of_key) = flags.unwrap_or(("data-dir", "data-dir"));
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| FlagError::new(of_certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    Ok((chain, key.map_err(|error| FlagError::new(of_key, error.to_string()))?))
}

/// Reads a certificate and its key from the files of flags.
pub(super) fn read_pair(
    files: &(PathBuf, PathBuf),
    flags: (&'static str, &'static str),
) -> Result<Pair, FlagError> {
    let read =
        |flag, path: &Path| std::fs::read_to_string(path).map_err(|error| FlagError::file(flag, path, error));
    Ok(Pair { certificate: read(flags.0, &files.0)?, key: read(flags.1, &files.1)? })
}

type DecodedPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn decode(config: &Config, pair: &Pair) -> Result<DecodedPair, FlagError> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| unusable(config, why))?;
    if chain.is_empty() {
        return Err(unusable(config, "no PEM certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|why| {
        let why = match why {
            pem::Error::NoItemsFound => "no PEM private key".to_owned(),
            why => why.to_string(),
        };
        match &config.serving_pair {
            Some((_, key)) => FlagError::file("tls-private-key-file", key, why),
            None => unusable(config, why),
        }
    })?;
    Ok((chain, key))
}

/// Returns an error that names the source of an invalid serving certificate.
fn unusable(config: &Config, why: impl std::fmt::Display) -> FlagError {
    match &config.serving_pair {
        Some((certificate, _)) => {
            FlagError::file("tls-cert-file", certificate, format_args!("{why} (with --tls-private-key-file)"))
        }
        None => FlagError::new("data-dir", why.to_string()),
    }
}

#[cfg(test)]
mod tests;
