//! The configuration of connections to backends.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use nave_machinery::Status;
use nave_machinery::user::UserInfo;
use nave_streams::idle::IDLE;
use nave_webhook::{AddressPolicy, BackendDialer, BackendTls, ClientError, Egress, Roots, Tls};

use super::log_usage::LogUsage;
pub use super::places::ConnectionCounts;
use super::places::{Place, Places};

/// Connections to kubelets, pods and services.
#[derive(Debug)]
pub struct Backends {
    /// Opens the connections.
    pub dialer: BackendDialer,
    /// The kubelets.
    pub kubelets: Kubelets,
    /// TLS to pods, services and other ports of nodes, whose authorities are unknown, as upstream.
    pub unverified: Option<BackendTls>,
    /// Counts the requests of logs.
    pub(crate) log_usage: LogUsage,
    /// The limits.
    pub(crate) limits: BackendLimits,
    places: Arc<Places>,
}

/// The limits of connections to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendLimits {
    /// The numbers of open connections.
    pub connections: ConnectionCounts,
    /// Time without any byte after which a stream is ended (`--stream-idle-timeout`).
    pub stream_idle: Duration,
    /// Bytes per second of a stream in each direction (`--max-connection-bytes-per-sec`); `None` for no limit.
    pub stream_rate: Option<NonZeroU64>,
    /// Memory of the documents of all aggregated servers, in bytes.
    pub aggregated_documents: usize,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            connections: ConnectionCounts { total: CONNECTIONS, per_host: None, per_user: None },
            stream_idle: IDLE,
            stream_rate: None,
            aggregated_documents: AGGREGATED_DOCUMENTS,
        }
    }
}

/// The addresses of kubelets and TLS to them.
#[derive(Debug)]
pub struct Kubelets {
    /// The types of node addresses, the preferred first (`--kubelet-preferred-address-types`).
    pub address_types: Vec<String>,
    /// The port of kubelets that do not report one (`--kubelet-port`).
    pub port: u16,
    /// TLS to kubelets; changes when certificates are renewed.
    pub tls: Arc<KubeletTls>,
}

/// TLS to kubelets, which can be replaced. Used by connections that are opened afterwards.
#[derive(Debug, Default)]
pub struct KubeletTls {
    verified: ArcSwapOption<BackendTls>,
    /// For logs with `insecureSkipTLSVerifyBackend`.
    unverified: ArcSwapOption<BackendTls>,
}

/// The default of `--kubelet-preferred-address-types`.
pub const ADDRESS_TYPES: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
/// The default of `--kubelet-port`.
pub const KUBELET_PORT: u16 = 10250;
/// The default of `--kubelet-timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The default maximum number of open connections. Each takes a file descriptor, and about 100 KiB if it is a stream.
const CONNECTIONS: usize = 4096;
/// The default of `--max-aggregated-documents-bytes`.
pub const AGGREGATED_DOCUMENTS: usize = 128 << 20;

impl Default for Backends {
    /// Returns upstream's defaults, without TLS.
    fn default() -> Self {
        let kubelets = Kubelets {
            address_types: ADDRESS_TYPES.map(str::to_owned).into(),
            port: KUBELET_PORT,
            tls: Arc::default(),
        };
        let dialer =
            BackendDialer { policy: AddressPolicy::Remote, timeout: TIMEOUT, egress: Egress::Direct };
        Self::new(dialer, kubelets, None)
    }
}

impl Backends {
    /// Creates the configuration.
    pub fn new(dialer: BackendDialer, kubelets: Kubelets, unverified: Option<BackendTls>) -> Self {
        let limits = BackendLimits::default();
        let places = Arc::new(Places::new(limits.connections));
        Self { dialer, kubelets, unverified, log_usage: LogUsage::default(), limits, places }
    }

    /// Returns the configuration of TLS to servers whose certificate is not verified.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn unverified_tls() -> Result<BackendTls, ClientError> {
        BackendTls::new(Tls { roots: Roots::Unchecked, ..Tls::default() })
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: BackendLimits) -> Self {
        self.places = Arc::new(Places::new(limits.connections));
        self.limits = limits;
        self
    }

    /// Takes a place for a user's connection to a host.
    ///
    /// # Errors
    /// 429 if no place is free, or the host or the user has its share.
    pub(crate) fn place(&self, host: &str, user: &UserInfo) -> Result<Place, Status> {
        self.places.take(host, Some(&user.name))
    }

    /// Takes a place for a user's stream to a host.
    ///
    /// # Errors
    /// See [`Self::place`].
    pub(super) fn stream_place(&self, host: &str, user: &UserInfo) -> Result<Place, Status> {
        self.place(host, user).map(|place| place.with_rate(self.limits.stream_rate))
    }

    /// Takes a place for a connection of this server, or one that requests of several users share.
    ///
    /// # Errors
    /// 429 if no place is free, or the host has its share.
    pub(crate) fn shared_place(&self, host: &str) -> Result<Place, Status> {
        self.places.take(host, None)
    }
}

impl KubeletTls {
    /// Replaces the configurations: with and without verification of the kubelet's certificate.
    pub fn replace(&self, verified: BackendTls, unverified: BackendTls) {
        self.verified.store(Some(Arc::new(verified)));
        self.unverified.store(Some(Arc::new(unverified)));
    }

    /// Returns the current configuration.
    ///
    /// # Errors
    /// 500 if the server has none.
    pub(super) fn current(&self, verify: bool) -> Result<BackendTls, Status> {
        let tls = if verify { &self.verified } else { &self.unverified };
        let tls = tls.load_full().map(|tls| BackendTls::clone(&tls));
        tls.ok_or_else(|| Status::internal("TLS to kubelets is not configured"))
    }
}
