//! The CAs of client certificates, and their publication to extension servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;
use nave_apiserver::cluster_authentication::{ClusterAuthentication, RequestHeader};
use nave_authn::ClientCa;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::watch;

use super::ServeError;
use super::certificates::Certificates;
use crate::flags::{Config, FlagError, Proxy};
use crate::pki::FRONT_PROXY_CLIENT;

const PROXY_CA: &str = "requestheader-client-ca-file";

/// The CAs of client certificates, for users and front proxies.
pub(super) struct ClientCas {
    /// The CAs of users; `None` if no client certificates of users are accepted.
    pub(super) users: Option<Arc<ClientCa>>,
    /// The CAs of front proxies, with their file.
    proxies: Option<(PathBuf, Arc<ClientCa>)>,
    published: watch::Sender<ClusterAuthentication>,
}

impl ClientCas {
    /// Reads the CA files.
    pub(super) fn open(config: &Config, certificates: &Certificates) -> Result<Self, ServeError> {
        let cas = certificates.client_cas()?;
        let users = if cas.is_empty() { None } else { Some(Arc::new(ClientCa::new(cas)?)) };
        let proxy = config.authentication.proxy.as_ref();
        let proxies = proxy.map(|proxy| {
            let ca = ClientCa::new(read_cas(PROXY_CA, &proxy.ca_file)?)?;
            Ok::<_, ServeError>((proxy.ca_file.clone(), Arc::new(ca)))
        });
        let request_header = match (proxy, certificates.front_proxy()) {
            (Some(proxy), _) => request_header(proxy),
            (None, Some(_)) => own_request_header(),
            (None, None) => RequestHeader::default(),
        };
        let published = ClusterAuthentication { request_header, ..ClusterAuthentication::default() };
        let cas = Self { users, proxies: proxies.transpose()?, published: watch::Sender::new(published) };
        cas.publish(certificates)?;
        Ok(cas)
    }

    /// Rereads the CA files; returns whether a CA changed.
    pub(super) fn refresh(&self, certificates: &Certificates) -> Result<bool, ServeError> {
        let mut changed = false;
        if let Some(users) = &self.users {
            changed |= users.replace(certificates.client_cas()?)?;
        }
        if let Some((file, ca)) = &self.proxies {
            changed |= ca.replace(read_cas(PROXY_CA, file)?)?;
        }
        self.publish(certificates)?;
        Ok(changed)
    }

    /// Returns all CAs. The handshake offers them to clients.
    pub(super) fn all(&self) -> Vec<CertificateDer<'static>> {
        let proxies = self.proxies.iter().flat_map(|(_, ca)| ca.certificates());
        let users = self.users.iter().flat_map(|ca| ca.certificates());
        users.chain(proxies).collect()
    }

    /// Returns the CAs of front proxies.
    pub(super) fn proxies(&self) -> Option<Arc<ClientCa>> {
        self.proxies.as_ref().map(|(_, ca)| Arc::clone(ca))
    }

    /// Subscribes to the published CAs.
    pub(super) fn subscribe(&self) -> watch::Receiver<ClusterAuthentication> {
        self.published.subscribe()
    }

    fn publish(&self, certificates: &Certificates) -> Result<(), ServeError> {
        let proxies = match (&self.proxies, certificates.front_proxy()) {
            (Some((_, ca)), _) => ca.certificates(),
            (None, Some(proxy)) => {
                let own = CertificateDer::pem_slice_iter(proxy.ca.certificate.as_bytes());
                let own = own.collect::<Result<Vec<_>, _>>();
                own.map_err(|error| FlagError::new("data-dir", error.to_string()))?
            }
            (None, None) => Vec::new(),
        };
        self.published.send_if_modified(|published| {
            let mut next = published.clone();
            next.client_ca = self.users.as_ref().map(|ca| ca.certificates()).unwrap_or_default();
            next.request_header.ca = proxies;
            let is_changed = next != *published;
            *published = next;
            is_changed
        });
        Ok(())
    }
}

/// Returns the settings for this server as the front proxy, without certificates.
fn own_request_header() -> RequestHeader {
    let header = |name: &str| vec![name.to_owned()];
    RequestHeader {
        ca: Vec::new(),
        allowed_names: header(FRONT_PROXY_CLIENT),
        username_headers: header("X-Remote-User"),
        uid_headers: header("X-Remote-Uid"),
        group_headers: header("X-Remote-Group"),
        extra_headers_prefix: header("X-Remote-Extra-"),
    }
}

/// Converts the front proxy settings, without certificates.
fn request_header(proxy: &Proxy) -> RequestHeader {
    let headers = |names: &[HeaderName]| names.iter().map(|name| canonical(name.as_str())).collect();
    RequestHeader {
        ca: Vec::new(),
        allowed_names: proxy.allowed_names.clone(),
        username_headers: headers(&proxy.headers.user),
        uid_headers: headers(&proxy.headers.uid),
        group_headers: headers(&proxy.headers.group),
        extra_headers_prefix: proxy.headers.extra_prefix.iter().map(|prefix| canonical(prefix)).collect(),
    }
}

/// Returns the canonical form of a header name: `X-Remote-User`.
fn canonical(name: &str) -> String {
    let mut begins = true;
    let cased = name.chars().map(|letter| {
        let cased = if begins { letter.to_ascii_uppercase() } else { letter };
        begins = letter == '-';
        cased
    });
    cased.collect()
}

/// Reads the certificates in a flag's file. The file must contain at least one.
pub(super) fn read_cas(flag: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, FlagError> {
    let wrong = |why: String| FlagError::file(flag, file, why);
    let text = std::fs::read(file).map_err(|why| wrong(why.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|why| wrong(why.to_string()))?;
    if found.is_empty() { Err(wrong("no PEM certificate".to_owned())) } else { Ok(found) }
}
