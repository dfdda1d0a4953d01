//! The CAs of client certificates, and their publication to extension servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;
use nave_apiserver::cluster_authentication::{ClusterAuthentication, RequestHeader};
use nave_authn::{ClientCa, FrontProxy, ProxyHeaders, ProxyRules};
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
    /// The front proxies.
    proxies: Option<Proxies>,
    /// The settings of the API server that aggregates this one.
    cluster: Option<watch::Receiver<ClusterAuthentication>>,
    /// True if the CAs of users include those in `cluster`.
    users_follow_cluster: bool,
    published: watch::Sender<ClusterAuthentication>,
}

/// The front proxies, and the origin of their CA.
struct Proxies {
    authenticator: Arc<FrontProxy>,
    ca: Arc<ClientCa>,
    /// The CA file; `None` if the settings are those of the API server that aggregates this one.
    file: Option<PathBuf>,
}

impl ClientCas {
    /// Reads the CA files. Settings without a flag are those of `cluster`.
    pub(super) fn open(
        config: &Config,
        certificates: &Certificates,
        cluster: Option<watch::Receiver<ClusterAuthentication>>,
    ) -> Result<Self, ServeError> {
        let users_follow_cluster = cluster.is_some() && config.authentication.client_ca_file.is_none();
        let cas = certificates.client_cas()?;
        let users = match (cas.is_empty(), users_follow_cluster) {
            (false, _) => Some(Arc::new(ClientCa::new(cas)?)),
            (true, true) => Some(Arc::new(ClientCa::empty())),
            (true, false) => None,
        };
        let proxy = config.authentication.proxy.as_ref();
        let proxies = match proxy {
            Some(proxy) => {
                let ca = ClientCa::new(read_cas(PROXY_CA, &proxy.ca_file)?)?;
                let (allowed_names, headers) = (proxy.allowed_names.clone(), proxy.headers.clone());
                Some(Proxies::new(ca, ProxyRules { allowed_names, headers }, Some(proxy.ca_file.clone())))
            }
            None => cluster.as_ref().map(|_| Proxies::new(ClientCa::empty(), ProxyRules::default(), None)),
        };
        let request_header = match (proxy, certificates.front_proxy()) {
            (Some(proxy), _) => request_header(proxy),
            (None, Some(_)) => own_request_header(),
            (None, None) => RequestHeader::default(),
        };
        let published = ClusterAuthentication { request_header, ..ClusterAuthentication::default() };
        let published = watch::Sender::new(published);
        let mut cas = Self { users, proxies, cluster, users_follow_cluster, published };
        cas.refresh(certificates)?;
        Ok(cas)
    }

    /// Rereads the CA files and the settings of the other API server; returns whether a CA changed.
    pub(super) fn refresh(&mut self, certificates: &Certificates) -> Result<bool, ServeError> {
        let mut changed = false;
        let cluster = self.cluster.as_mut().map(|cluster| cluster.borrow_and_update().clone());
        let own = certificates.client_cas()?;
        if let Some(users) = &self.users {
            let of_cluster = cluster.iter().filter(|_| self.users_follow_cluster);
            let of_cluster = of_cluster.flat_map(|cluster| cluster.client_ca.iter().cloned());
            let all: Vec<_> = own.iter().cloned().chain(of_cluster).collect();
            changed |= !all.is_empty() && users.replace(all)?;
        }
        if let Some(proxies) = &self.proxies {
            changed |= match (&proxies.file, &cluster) {
                (Some(file), _) => proxies.ca.replace(read_cas(PROXY_CA, file)?)?,
                (None, Some(cluster)) => proxies.follow(&cluster.request_header)?,
                (None, None) => false,
            };
        }
        self.publish(certificates, own)?;
        Ok(changed)
    }

    /// Returns whether the settings of the other API server have changed since they were read.
    pub(super) fn is_cluster_changed(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.has_changed().unwrap_or_default())
    }

    /// Returns all CAs. The handshake offers them to clients.
    pub(super) fn all(&self) -> Vec<CertificateDer<'static>> {
        let proxies = self.proxies.iter().flat_map(|proxies| proxies.ca.certificates());
        let users = self.users.iter().flat_map(|ca| ca.certificates());
        users.chain(proxies).collect()
    }

    /// Returns the authenticator of front proxies.
    pub(super) fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.proxies.as_ref().map(|proxies| Arc::clone(&proxies.authenticator))
    }

    /// Subscribes to the published CAs.
    pub(super) fn subscribe(&self) -> watch::Receiver<ClusterAuthentication> {
        self.published.subscribe()
    }

    /// Publishes the CAs of this server and those in flags, for the servers that it aggregates.
    fn publish(
        &self,
        certificates: &Certificates,
        users: Vec<CertificateDer<'static>>,
    ) -> Result<(), ServeError> {
        let given = self.proxies.as_ref().filter(|proxies| proxies.file.is_some());
        let proxies = match (given, certificates.front_proxy()) {
            (Some(proxies), _) => proxies.ca.certificates(),
            (None, Some(proxy)) => {
                let own = CertificateDer::pem_slice_iter(proxy.ca.certificate.as_bytes());
                let own = own.collect::<Result<Vec<_>, _>>();
                own.map_err(|error| FlagError::new("data-dir", error.to_string()))?
            }
            (None, None) => Vec::new(),
        };
        self.published.send_if_modified(|published| {
            let mut next = published.clone();
            next.client_ca = users;
            next.request_header.ca = proxies;
            let is_changed = next != *published;
            *published = next;
            is_changed
        });
        Ok(())
    }
}

impl Proxies {
    fn new(ca: ClientCa, rules: ProxyRules, file: Option<PathBuf>) -> Self {
        let ca = Arc::new(ca);
        Self { authenticator: Arc::new(FrontProxy::new(Arc::clone(&ca), rules)), ca, file }
    }

    /// Applies the settings of the other API server, unless it has none; returns whether the CA changed.
    fn follow(&self, settings: &RequestHeader) -> Result<bool, ServeError> {
        if settings.ca.is_empty() {
            return Ok(false);
        }
        self.authenticator.set_rules(proxy_rules(settings));
        Ok(self.ca.replace(settings.ca.clone())?)
    }
}

/// Converts the settings of another API server. Invalid names of headers match no header.
fn proxy_rules(settings: &RequestHeader) -> ProxyRules {
    let names = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    let prefixes = settings.extra_headers_prefix.iter().map(|prefix| prefix.to_lowercase());
    let headers = ProxyHeaders {
        user: names(&settings.username_headers),
        uid: names(&settings.uid_headers),
        group: names(&settings.group_headers),
        extra_prefix: prefixes.filter(|prefix| !prefix.is_empty()).collect(),
    };
    ProxyRules { allowed_names: settings.allowed_names.clone(), headers }
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
