//! The certificates in use: the server's own, and those given by flags.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nave_apiserver::serving::ServingCertificate;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::ServeError;
use super::client_cas::read_cas;
use crate::{
    flags::{Config, FlagError},
    pki::{Pair, Pki},
};

/// The certificates in use.
pub(super) struct Certificates {
    config: Config,
    own: Pki,
    /// What is shown to clients: the own pair, or the one given.
    shown: Pair,
    serving: Arc<ServingCertificate>,
}

impl Certificates {
    /// Reads the certificates given, and reads or makes the own ones.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let own = Pki::open(config.data_dir.join("pki"), own_addresses(config), SystemTime::now())?;
        let shown = shown_pair(config, &own)?;
        let (chain, key) = decode(&shown).map_err(|why| unusable(config, why))?;
        let serving = ServingCertificate::new(chain, key).map_err(|why| unusable(config, why))?;
        Ok(Self { config: config.clone(), own, shown, serving: Arc::new(serving) })
    }

    /// Renews what is due, takes what is new in the files given, and says whether the kubeconfig is to be written
    /// anew. Connections made from now on see the new certificate.
    pub(super) fn refresh(&mut self, now: SystemTime) -> Result<bool, ServeError> {
        let renewed = self.own.renew(now)?;
        let shown = shown_pair(&self.config, &self.own)?;
        if shown == self.shown {
            return Ok(renewed);
        }
        let (chain, key) = decode(&shown).map_err(|why| unusable(&self.config, why))?;
        self.serving.replace(chain, key).map_err(|why| unusable(&self.config, why))?;
        self.shown = shown;
        tracing::info!("serving with a new certificate");
        Ok(true)
    }

    /// The files given by flags.
    pub(super) fn given(&self) -> Vec<PathBuf> {
        let pair = self.config.serving_pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        let authentication = &self.config.authentication;
        let cas = authentication
            .client_ca_file
            .iter()
            .chain(authentication.proxy.as_ref().map(|proxy| &proxy.ca_file));
        pair.chain(cas).cloned().collect()
    }

    pub(super) fn serving(&self) -> Arc<ServingCertificate> {
        self.serving.clone()
    }

    pub(super) fn admin(&self) -> &Pair {
        &self.own.admin
    }

    /// What clients check the server with: the own CA, or, as nothing else is known, the certificate given.
    pub(super) fn server_ca(&self) -> &str {
        if self.config.serving_pair.is_some() { &self.shown.certificate } else { &self.own.ca.certificate }
    }

    /// The CAs whose client certificates are believed.
    pub(super) fn client_cas(&self) -> Result<Vec<CertificateDer<'static>>, ServeError> {
        let own =
            CertificateDer::pem_slice_iter(self.own.ca.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let mut cas = own.map_err(|why| FlagError::new("data-dir", why.to_string()))?;
        if let Some(file) = &self.config.authentication.client_ca_file {
            cas.extend(read_cas("client-ca-file", file)?);
        }
        Ok(cas)
    }
}

/// Where clients reach the server: this machine, the addresses listened on and told, the service `kubernetes`.
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

fn shown_pair(config: &Config, own: &Pki) -> Result<Pair, FlagError> {
    let Some((certificate, key)) = &config.serving_pair else {
        return Ok(own.serving.clone());
    };
    let read =
        |flag, path: &Path| std::fs::read_to_string(path).map_err(|why| FlagError::file(flag, path, why));
    Ok(Pair { certificate: read("tls-cert-file", certificate)?, key: read("tls-private-key-file", key)? })
}

type Decoded = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn decode(pair: &Pair) -> Result<Decoded, rustls_pki_types::pem::Error> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?))
}

/// Says where the serving certificate that cannot be used comes from.
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
