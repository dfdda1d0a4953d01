//! Webhooks whose address is in an object of the API: conversion and admission (upstream:
//! `apiserver/pkg/util/webhook`).

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;
use lru::LruCache;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;

use crate::client::{self, ClientError, Roots};
use crate::connections::Connections;
use crate::dial::{Dialer, ServiceTarget};
use crate::egress::EgressSelector;
use crate::hook_client::HookClient;
use crate::kubeconfig::{FileError, Identity};
use crate::metrics::CallMetrics;
use crate::service::ServiceResolver;
use crate::users::{HostCredentials, Users};

/// Number of clients that are kept (upstream: `defaultCacheSize`).
const CLIENTS: NonZeroUsize = NonZeroUsize::new(200).expect("not zero");
/// The port of a URL or a service reference without a port.
const HTTPS_PORT: u16 = 443;

/// A `WebhookClientConfig` of `admissionregistration.k8s.io/v1` or `apiextensions.k8s.io/v1`: the address of a webhook
/// and the authorities for its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The address.
    pub address: Address,
    /// The certificate authorities (PEM). If it is empty, those of the operating system.
    pub ca_bundle: Vec<u8>,
}

impl Hash for ClientConfig {
    /// Leaves out the bundle, which is long: it takes part only in the comparison.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.ca_bundle.len().hash(state);
    }
}

/// The address of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An HTTPS URL.
    Url(String),
    /// A service in the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path of the URL, empty or with a leading slash.
        path: String,
        /// The service's port.
        port: u16,
    },
}

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// Neither a service nor a URL is set.
    #[error("webhook configuration must have either service or URL")]
    NoAddress,
    /// The URL is invalid, or its scheme is not HTTPS.
    #[error("Unparsable URL: {0:?}")]
    Url(String),
    /// The bundle contains no certificate.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    CaBundle,
    /// The user of the host cannot be used.
    #[error(transparent)]
    User(FileError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Client(ClientError),
}

impl ClientConfig {
    /// Reads a `clientConfig`.
    ///
    /// # Errors
    /// It has no address, or its bundle is not base64. Validation of the objects of the API refuses both.
    pub fn from_json(config: &Value) -> Result<Self, ClientConfigError> {
        let text = |place: &Value, field: &str| place[field].as_str().unwrap_or_default().to_owned();
        let address = if let service @ Value::Object(_) = &config["service"] {
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            Address::Service {
                namespace: text(service, "namespace"),
                name: text(service, "name"),
                path: text(service, "path"),
                port: port.filter(|port| *port != 0).unwrap_or(HTTPS_PORT),
            }
        } else {
            Address::Url(config["url"].as_str().ok_or(ClientConfigError::NoAddress)?.to_owned())
        };
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let mut ca_bundle = BASE64_STANDARD.decode(bundle).map_err(|_| ClientConfigError::CaBundle)?;
        if ca_bundle.iter().all(u8::is_ascii_whitespace) {
            ca_bundle.clear();
        }
        Ok(Self { address, ca_bundle })
    }

    fn uri(&self) -> Result<Uri, ClientConfigError> {
        let text = match &self.address {
            Address::Url(url) => url.clone(),
            Address::Service { namespace, name, path, port } => {
                format!("https://{name}.{namespace}.svc:{port}{path}")
            }
        };
        let uri: Option<Uri> = text.parse().ok();
        uri.filter(|uri| uri.scheme_str() == Some("https")).ok_or(ClientConfigError::Url(text))
    }

    /// Returns the configuration of another webhook of the same server, without a path.
    fn of_server(&self, uri: &Uri) -> Self {
        let address = match &self.address {
            Address::Url(_) => Address::Url(format!(
                "https://{}",
                uri.authority().map_or("", |authority| authority.as_str())
            )),
            Address::Service { namespace, name, port, .. } => {
                let (namespace, name) = (namespace.clone(), name.clone());
                Address::Service { namespace, name, path: String::new(), port: *port }
            }
        };
        Self { address, ca_bundle: self.ca_bundle.clone() }
    }

    /// Returns the authorities for the certificate.
    ///
    /// # Errors
    /// The bundle contains no certificate.
    pub fn roots(&self) -> Result<Roots, ClientConfigError> {
        if self.ca_bundle.is_empty() {
            return Ok(Roots::System);
        }
        let found: Vec<_> = CertificateDer::pem_slice_iter(&self.ca_bundle).filter_map(Result::ok).collect();
        if found.is_empty() { Err(ClientConfigError::CaBundle) } else { Ok(Roots::Custom(found)) }
    }
}

/// Creates the clients of webhooks and keeps those that were used last. Webhooks of the same server and with the same
/// authorities share connections. A changed configuration has a client of its own, so it applies to the next call.
pub struct ClientManager {
    resolver: Arc<ServiceResolver>,
    users: Option<Users>,
    metrics: Option<CallMetrics>,
    egress: EgressSelector,
    clients: Mutex<LruCache<ClientConfig, HookClient>>,
    /// The connections of the clients, by the configuration without a path.
    connections: Mutex<LruCache<ClientConfig, Weak<Connections>>>,
}

impl ClientManager {
    /// Creates a manager without clients.
    pub fn new(resolver: ServiceResolver) -> Self {
        Self {
            resolver: Arc::new(resolver),
            users: None,
            metrics: None,
            egress: EgressSelector::default(),
            clients: Mutex::new(LruCache::new(CLIENTS)),
            connections: Mutex::new(LruCache::new(CLIENTS)),
        }
    }

    /// Records the calls of all clients.
    #[must_use]
    pub fn with_metrics(mut self, metrics: CallMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sets the ways to services and to the hosts of URLs.
    #[must_use]
    pub fn with_egress(mut self, egress: EgressSelector) -> Self {
        self.egress = egress;
        self
    }

    /// Creates a manager without clients that resolves services in the same way. Its clients authenticate as `users`.
    #[must_use]
    pub fn with_users(&self, users: Users) -> Self {
        Self {
            resolver: Arc::clone(&self.resolver),
            users: Some(users),
            metrics: self.metrics.clone(),
            egress: self.egress.clone(),
            clients: Mutex::new(LruCache::new(CLIENTS)),
            connections: Mutex::new(LruCache::new(CLIENTS)),
        }
    }

    /// Returns the client of a configuration.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn client(&self, config: &ClientConfig) -> Result<HookClient, ClientConfigError> {
        if let Some(client) = self.clients.lock().get(config) {
            return Ok(client.clone());
        }
        let uri = config.uri()?;
        let host = match &config.address {
            Address::Url(_) => uri.host().unwrap_or_default().to_owned(),
            Address::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        };
        let credentials = match &self.users {
            Some(users) => {
                let port = uri.port_u16().unwrap_or(HTTPS_PORT);
                users.for_host(&host, port).map_err(ClientConfigError::User)?
            }
            None => HostCredentials::default(),
        };
        let HostCredentials { identity, authorization } = credentials;
        let connections = self.connections(config, &uri, &host, identity)?;
        let client = HookClient::new(connections, uri, authorization, self.metrics.clone());
        let client = client.map_err(ClientConfigError::Client)?;
        self.clients.lock().put(config.clone(), client.clone());
        Ok(client)
    }

    /// Returns the connections to the server of a configuration.
    fn connections(
        &self,
        config: &ClientConfig,
        uri: &Uri,
        host: &str,
        identity: Option<Identity>,
    ) -> Result<Arc<Connections>, ClientConfigError> {
        let server = config.of_server(uri);
        if let Some(connections) = self.connections.lock().get(&server).and_then(Weak::upgrade) {
            return Ok(connections);
        }
        let (mut server_name, mut service) = (None, None);
        if let Address::Service { namespace, name, port, .. } = &config.address {
            let invalid = |_| ClientConfigError::Client(ClientError::ServerName(host.to_owned()));
            server_name = Some(ServerName::try_from(host.to_owned()).map_err(invalid)?);
            let resolver = Arc::clone(&self.resolver);
            let (namespace, name) = (Arc::from(namespace.as_str()), Arc::from(name.as_str()));
            service = Some(ServiceTarget { resolver, namespace, name, port: *port });
        }
        let egress = if service.is_some() { &self.egress.cluster } else { &self.egress.control_plane };
        let dialer = Dialer::new(service, egress.clone());
        let tls = client::config(config.roots()?, identity).map_err(ClientConfigError::Client)?;
        let connections = Arc::new(Connections::new(dialer, tls, server_name));
        self.connections.lock().put(server, Arc::downgrade(&connections));
        Ok(connections)
    }
}
