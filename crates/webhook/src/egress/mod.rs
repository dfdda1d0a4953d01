//! `EgressSelectorConfiguration`: the ways to the cluster's nodes, to other control plane servers and to etcd (upstream:
//! `apiserver/pkg/server/egressselector`).

mod connect;
pub(crate) mod packets;
mod stream;
mod tunnel;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

pub use self::connect::ConnectProxy;
pub use self::stream::EgressStream;
pub use self::tunnel::GrpcProxy;
use crate::client::{ClientError, Roots, Tls};
use crate::tcp::{self, AddressPolicy, ConnectError};

/// The ways to the three kinds of destinations.
#[derive(Clone, Debug, Default)]
pub struct EgressSelector {
    /// Nodes, pods and services.
    pub cluster: Egress,
    /// Webhooks with a URL, and other API servers.
    pub control_plane: Egress,
    /// etcd.
    pub etcd: Egress,
}

/// A way to destinations.
#[derive(Clone, Debug, Default)]
pub enum Egress {
    /// Destinations are dialled directly.
    #[default]
    Direct,
    /// Destinations are dialled by a proxy.
    Proxy(Arc<ConnectProxy>),
    /// Destinations are dialled by a konnectivity proxy.
    Tunnel(Arc<GrpcProxy>),
}

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The file is not YAML with the fields of the configuration.
    #[error("not an EgressSelectorConfiguration: {0}")]
    Malformed(String),
    /// The file has another kind or version.
    #[error("unexpected config type {0}, Kind={1}")]
    Kind(String, String),
    /// The destinations have an unknown name.
    #[error("egressSelections: {0:?} is not one of cluster, controlplane, etcd")]
    Name(String),
    /// The destinations occur twice.
    #[error("egressSelections: {0:?} occurs twice")]
    Duplicate(String),
    /// The transport does not fit the protocol.
    #[error("egressSelections: {0:?}: {1}")]
    Transport(String, &'static str),
    /// The protocol does not exist.
    #[error("egressSelections: {0:?}: unknown proxyProtocol {1:?}")]
    Protocol(String, String),
    /// A file of the TLS configuration cannot be used.
    #[error("egressSelections: {name:?}: {}: {why}", .file.display())]
    File {
        /// The destinations.
        name: String,
        /// The file.
        file: PathBuf,
        /// The error.
        why: String,
    },
    /// TLS to the proxy cannot be set up.
    #[error("egressSelections: {0:?}: {1}")]
    Tls(String, ClientError),
}

impl EgressSelector {
    /// Reads a file with a configuration, and the files of certificates that it names.
    ///
    /// # Errors
    /// A file is invalid, or the configuration selects a protocol that is not supported.
    pub fn from_file(file: &Path) -> Result<Self, EgressError> {
        Self::parse(&std::fs::read_to_string(file)?)
    }

    fn parse(document: &str) -> Result<Self, EgressError> {
        let read = serde_saphyr::from_str::<Configuration>(document);
        let configuration = read.map_err(|error| EgressError::Malformed(error.to_string()))?;
        let Configuration { api_version, kind, egress_selections } = configuration;
        if kind != "EgressSelectorConfiguration" || !VERSIONS.contains(&api_version.as_str()) {
            return Err(EgressError::Kind(api_version, kind));
        }
        let mut selector = Self::default();
        let mut seen = BTreeSet::new();
        for Selection { name, connection } in egress_selections {
            let name = name.to_ascii_lowercase();
            if !seen.insert(name.clone()) {
                return Err(EgressError::Duplicate(name));
            }
            let place = match name.as_str() {
                "cluster" => &mut selector.cluster,
                "controlplane" => &mut selector.control_plane,
                "etcd" => &mut selector.etcd,
                _ => return Err(EgressError::Name(name)),
            };
            *place = connection.egress(&name)?;
        }
        Ok(selector)
    }
}

impl Egress {
    /// Opens a connection to a host, which is an IP address or a name. `patience` limits the lookup and each address that
    /// is dialled, or all of it through a proxy, which looks up names itself.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        policy: AddressPolicy,
        patience: Duration,
    ) -> Result<EgressStream, ConnectError> {
        match self {
            Self::Direct => tcp::connect(host, port, policy, patience).await.map(EgressStream::Tcp),
            Self::Proxy(proxy) => {
                tcp::check_proxied(host, port, policy)?;
                let connected = tokio::time::timeout(patience, proxy.connect(host, port)).await;
                connected.unwrap_or_else(|_| Err(proxy.timed_out())).map(EgressStream::Proxied)
            }
            Self::Tunnel(proxy) => {
                tcp::check_proxied(host, port, policy)?;
                let destination = connect::destination(host, port);
                // The future of a rare way must not make those of all callers larger.
                let connecting = Box::pin(proxy.connect(&destination));
                let connected = tokio::time::timeout(patience, connecting).await;
                connected.unwrap_or_else(|_| Err(proxy.timed_out())).map(EgressStream::Proxied)
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    proxy_protocol: String,
    #[serde(default)]
    transport: Option<Transport>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transport {
    #[serde(default)]
    tcp: Option<TcpTransport>,
    #[serde(default)]
    uds: Option<UdsTransport>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TcpTransport {
    url: String,
    #[serde(default)]
    tls_config: Option<TlsConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UdsTransport {
    uds_name: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TlsConfig {
    #[serde(default)]
    ca_bundle: PathBuf,
    #[serde(default)]
    client_key: PathBuf,
    #[serde(default)]
    client_cert: PathBuf,
    #[serde(default)]
    tls_server_name: String,
}

impl Connection {
    fn egress(self, name: &str) -> Result<Egress, EgressError> {
        let wrong = |why| Err(EgressError::Transport(name.to_owned(), why));
        match (self.proxy_protocol.as_str(), self.transport) {
            ("Direct", None) => Ok(Egress::Direct),
            ("Direct", Some(_)) => wrong("a direct connection has no transport"),
            ("GRPC" | "HTTPConnect", Some(Transport { tcp: None, uds: Some(uds) }))
                if uds.uds_name.as_os_str().is_empty() =>
            {
                wrong("udsName is required")
            }
            ("GRPC", Some(Transport { tcp: None, uds: Some(uds) })) => {
                Ok(Egress::Tunnel(Arc::new(GrpcProxy::at_socket(uds.uds_name))))
            }
            ("GRPC", _) => wrong("GRPC needs uds as its transport"),
            ("HTTPConnect", Some(Transport { tcp: Some(tcp), uds: None })) => tcp.egress(name),
            ("HTTPConnect", Some(Transport { tcp: None, uds: Some(uds) })) => {
                Ok(Egress::Proxy(Arc::new(ConnectProxy::at_socket(uds.uds_name))))
            }
            ("HTTPConnect", _) => wrong("HTTPConnect needs either tcp or uds as its transport"),
            (other, _) => Err(EgressError::Protocol(name.to_owned(), other.to_owned())),
        }
    }
}

impl TcpTransport {
    fn egress(self, name: &str) -> Result<Egress, EgressError> {
        let wrong = |why| EgressError::Transport(name.to_owned(), why);
        let uri: Uri = self.url.parse().map_err(|_| wrong("the URL is invalid"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let (default_port, tls) = match (uri.scheme_str(), self.tls_config) {
            (Some("http"), None) => (80, None),
            (Some("http"), Some(_)) => return Err(wrong("an http URL has no tlsConfig")),
            (Some("https"), Some(config)) => (443, Some(config.read(name)?)),
            (Some("https"), None) => return Err(wrong("an https URL needs a tlsConfig")),
            _ => return Err(wrong("the URL must begin with http:// or https://")),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let proxy = ConnectProxy::at_host(host, port, tls);
        Ok(Egress::Proxy(Arc::new(proxy.map_err(|error| EgressError::Tls(name.to_owned(), error))?)))
    }
}

impl TlsConfig {
    fn read(self, name: &str) -> Result<Tls, EgressError> {
        let in_file = |file: &Path, error: pem::Error| {
            let why = match error {
                pem::Error::NoItemsFound => "no PEM certificate or key".to_owned(),
                error => error.to_string(),
            };
            EgressError::File { name: name.to_owned(), file: file.to_owned(), why }
        };
        let certificates = |file: &Path| -> Result<Vec<CertificateDer<'static>>, EgressError> {
            let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let found = found.map_err(|error| in_file(file, error))?;
            if found.is_empty() { Err(in_file(file, pem::Error::NoItemsFound)) } else { Ok(found) }
        };
        let key = |file: &Path| PrivateKeyDer::from_pem_file(file).map_err(|error| in_file(file, error));
        let roots = if self.ca_bundle.as_os_str().is_empty() {
            Roots::System
        } else {
            Roots::Custom(certificates(&self.ca_bundle)?)
        };
        let identity = Some((certificates(&self.client_cert)?, key(&self.client_key)?));
        let server_name = Some(self.tls_server_name).filter(|name| !name.is_empty());
        Ok(Tls { roots, identity, server_name })
    }
}

const VERSIONS: [&str; 2] = ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1"];

#[cfg(test)]
mod tests;
