//! The configuration of connections to backends.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use nave_machinery::Status;
use nave_webhook::{AddressPolicy, BackendDialer, BackendTls, ClientError, Roots, Tls};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to kubelets, pods and services.
#[derive(Debug)]
pub struct Backends {
    /// Opens the connections.
    pub dialer: BackendDialer,
    /// The kubelets.
    pub kubelets: Kubelets,
    /// TLS to pods, services and other ports of nodes, whose authorities are unknown, as upstream.
    pub unverified: Option<BackendTls>,
    streams: Arc<Semaphore>,
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
/// The default maximum number of concurrent streams. A stream takes two file descriptors and about 100 KiB.
const STREAMS: usize = 4096;

impl Default for Backends {
    /// Returns upstream's defaults, without TLS.
    fn default() -> Self {
        let kubelets = Kubelets {
            address_types: ADDRESS_TYPES.map(str::to_owned).into(),
            port: KUBELET_PORT,
            tls: Arc::default(),
        };
        Self::new(BackendDialer { policy: AddressPolicy::Remote, timeout: TIMEOUT }, kubelets, None)
    }
}

impl Backends {
    /// Creates the configuration.
    pub fn new(dialer: BackendDialer, kubelets: Kubelets, unverified: Option<BackendTls>) -> Self {
        Self { dialer, kubelets, unverified, streams: Arc::new(Semaphore::new(STREAMS)) }
    }

    /// Returns the configuration of TLS to servers whose certificate is not verified.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn unverified_tls() -> Result<BackendTls, ClientError> {
        BackendTls::new(Tls { roots: Roots::Unchecked, ..Tls::default() })
    }

    /// Sets the maximum number of concurrent streams.
    #[must_use]
    pub fn with_streams(mut self, streams: usize) -> Self {
        self.streams = Arc::new(Semaphore::new(streams));
        self
    }

    /// Takes a place for a stream, which is free again when the permit is dropped.
    ///
    /// # Errors
    /// 429 if no place is free.
    pub(crate) fn admit_stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| Status::too_many_requests("Too many streams, please try again later.", 1))
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
