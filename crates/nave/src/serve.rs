//! Starts and stops the parts of the server in order.
//!
//! Start: data folder → store → keys and certificates → listener → API → kubeconfig → ready → controllers.
//! Stop, on SIGTERM or SIGINT: /readyz fails, the `kubernetes` service loses the address → `--shutdown-delay-duration` →
//! controllers stop → no new connections, watches end, requests in flight complete → etcd's API ends → the store is
//! synced and closed. A second signal exits immediately.

mod aggregation;
mod api;
mod authentication;
mod authorization;
mod backends;
mod certificates;
mod client_cas;
mod controllers;
mod delegation;
mod egress;
mod encryption;
mod etcd_endpoint;
mod memory;
mod peers;
mod published_ca;
mod store;
mod token_tracking;

use std::{
    fs::DirBuilder,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::Request;
use hyper::body::Incoming;
use nave_apiserver::connect::backends::KubeletTls;
use nave_apiserver::server::{ApiServer, StartError};
use nave_apiserver::serving::{
    ConnectionInfo, ConnectionLimits, Limits, Running, Server, ServingMetrics, Tls, TlsError,
};
use nave_audit::Auditor;
use nave_authn::ClientCaError;
use nave_client::workqueue::WorkqueueMetrics;
use nave_store::StoreError;
use nave_webhook::WatchedFiles;
use tokio::sync::Mutex;

use crate::signing::FileSigner;
use crate::tokens::SecretTokens;
use crate::{
    descriptors,
    flags::{Config, Credentials, FlagError},
    kubeconfig, output,
    pki::PkiError,
    signals::Signals,
};
use aggregation::ProxyClient;
use api::{Connections, Opened};
use authentication::ConfigFile;
use certificates::Certificates;
use client_cas::ClientCas;
use controllers::InProcessControllers;
use delegation::ClusterLookup;
use encryption::EncryptionFile;
use etcd_endpoint::EtcdApi;
use peers::PeerTls;
pub(crate) use store::open_embedded;

/// The Kubernetes version of the API.
const KUBERNETES_MINOR: &str = "1.36";
/// The interval between checks of the certificates' validity.
const CERTIFICATE_CHECK: Duration = Duration::from_mins(1);
/// The interval between checks for changes of the files in flags.
const FILE_CHECK: Duration = Duration::from_secs(1);
/// The time to wait at exit until audit events are recorded.
const AUDIT_FLUSH: Duration = Duration::from_secs(10);
/// The exit code that shells use for a process interrupted by SIGINT.
const INTERRUPTED: i32 = 130;

/// The reasons why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A flag's file cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// The server's keys and certificates cannot be used.
    #[error("--data-dir: {0}")]
    Pki(#[from] PkiError),
    /// Another process uses the data folder, or a disk operation of the store failed.
    #[error("--data-dir: {0}")]
    Store(#[from] StoreError),
    /// The store's folder cannot be used.
    #[error("--data-dir: {}: {error}", .folder.display())]
    StoreFolder { folder: PathBuf, error: Arc<io::Error> },
    /// The store's file is damaged.
    #[error(
        "--data-dir: the store in {} is damaged: {why}. Restore a backup, or move it away to start without objects",
        .folder.display()
    )]
    Damaged { folder: PathBuf, why: String },
    /// The etcd cluster cannot be used.
    #[error("--etcd-servers: {0}")]
    Etcd(String),
    /// The API cannot be started.
    #[error("cannot start the API: {0}")]
    Start(#[from] StartError),
    /// The checks of components cannot be set up.
    #[error("cannot set up the checks of components: {0}")]
    ComponentChecks(#[from] nave_webhook::ClientError),
    /// Audit cannot be started.
    #[error(transparent)]
    Audit(#[from] nave_audit::StartError),
    /// The address cannot be bound.
    #[error("cannot listen on {0} (--bind-address, --secure-port)")]
    Listen(io::Error),
    /// The address of etcd's API cannot be bound.
    #[error("cannot listen on {address} (--etcd-listen-address): {error}")]
    ListenForEtcd { address: SocketAddr, error: io::Error },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client CAs cannot be used.
    #[error("--client-ca-file or --requestheader-client-ca-file: {0}")]
    ClientCa(#[from] ClientCaError),
    /// The kubeconfig cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Kubeconfig { path: PathBuf, error: io::Error },
    /// The operating system denied a resource.
    #[error("operating system error: {0}")]
    System(#[from] io::Error),
}

/// Serves until a signal arrives.
pub(crate) async fn serve(config: Config) -> Result<(), ServeError> {
    let started = Instant::now();
    let mut signals = Signals::new()?;
    let descriptors = descriptors::raise_limit();
    create_folder(&config.data_dir)?;
    warn_of_flags_without_effect(&config);

    let metrics = prometheus::Registry::new();
    // Read before the store is awaited, so that an error in the file is reported at once.
    let encryption = EncryptionFile::open(&config, &metrics);
    let Some(encryption) = signals.unless_stopped(encryption).await else { return Ok(()) };
    let encryption = encryption?;
    let Some(store) = signals.unless_stopped(store::open(&config)).await else { return Ok(()) };
    let store::Opened { store, embedded } = store?;
    let etcd_api = EtcdApi::bind(&config, embedded.as_ref()).await?;
    let certificates = Certificates::open(&config)?;
    let keys = authentication::service_account_keys(&config)?;
    let lookup = ClusterLookup::open(&config.authentication);
    let Some(lookup) = signals.unless_stopped(lookup).await else { return Ok(()) };
    let lookup = lookup?;
    let cluster = lookup.as_ref().map(ClusterLookup::subscribe);
    let cas = ClientCas::open(&config, &certificates, cluster)?;
    let proxy_client = ProxyClient::open(&config, &certificates)?;
    let peer_tls = PeerTls::open(&config)?;
    let tls = Tls::with_settings(certificates.serving(), Some(&cas.all()), config.tls.clone())?;
    let limits = limits(&config, descriptors)?;
    let backends = backends::open(&config, &certificates, limits.connections.backends())?;
    let serving = ServingMetrics::new(&metrics).map_err(StartError::Metrics)?;
    let bound = Server::bind(&[config.listen], tls.clone(), limits, serving);
    let server = bound.map_err(ServeError::Listen)?;
    let listening = server.local_addresses()?.first().copied().unwrap_or(config.listen);
    let reachable = SocketAddr::new(config.advertise, listening.port());
    let connections = Connections {
        backends: Arc::clone(&backends),
        proxy: proxy_client.subscribe(),
        peers: peer_tls.as_ref().map(PeerTls::subscribe),
    };
    let opened = Opened { store: Arc::clone(&store), encryption, metrics: metrics.clone() };
    let api = api::start(&config, opened, keys, &cas, connections, reachable);
    let Some(api) = signals.unless_stopped(api).await else { return Ok(()) };
    let mut api = api?;
    let kubeconfig = Kubeconfig { path: config.data_dir.join("admin.kubeconfig"), server: reachable };
    kubeconfig.write(&certificates)?;

    let running = server.start({
        let api = api.server.clone();
        move |request: Request<Incoming>, connection: Arc<ConnectionInfo>| {
            let api = api.clone();
            api.handle(request, connection)
        }
    });
    let revision = store.current_revision().await?;
    match config.credentials {
        Credentials::OwnAuthority => print_addresses(&config, reachable, &kubeconfig.path, revision, started),
        Credentials::SelfSigned => tracing::info!(address = %reachable, "serving"),
    }
    let tokens = SecretTokens(api.issuer.clone());
    let signer = FileSigner::new(config.signing.clone());
    let election = config.election.clone().filter(|_| config.has_shared_store());
    if let Some(own) = certificates.issuing_ca().filter(|_| config.has_shared_store()) {
        let (client, own) = (controllers::manager_client(&api.server), own.to_owned());
        tokio::spawn(async move { published_ca::check(client, &own).await });
    }
    let controllers = controllers::start(
        &config.controllers,
        election,
        &api.server,
        certificates.server_ca(),
        tokens,
        signer,
        WorkqueueMetrics::register(&metrics).map_err(StartError::Metrics)?,
    );

    let authentication = api.authentication.take();
    let task = Mutex::new(RenewalTask {
        config: config.clone(),
        certificates,
        kubeconfig,
        cas,
        tls,
        kubelets: Arc::clone(&backends.kubelets.tls),
        proxy_client,
        peer_tls,
        authentication,
    });
    let used = Mutex::new(api.used);
    let supervisor = api.server.supervisor();
    let renew = || run_renewals(&task);
    let reload = || api.authorization.reload_on_change();
    let reload_encryption = || api.encryption.reload_on_change();
    let follow = || delegation::follow(lookup.as_ref());
    let track = || token_tracking::record_uses(&api.server, &used);
    let mut etcd_api = pin!(etcd_api.serve());
    tokio::select! {
        () = signals.next() => {}
        never = supervisor.supervise("certificate renewal", "", renew) => match never {},
        never = api.server.run_background_tasks(memory::is_short) => match never {},
        never = supervisor.supervise("authorization reload", "", reload) => match never {},
        never = supervisor.supervise("encryption config reload", "", reload_encryption) => match never {},
        never = supervisor.supervise("client CA lookup", "", follow) => match never {},
        never = supervisor.supervise("token tracking", "", track) => match never {},
        never = &mut etcd_api => match never {},
    }
    tokio::select! {
        () = stop(&config, &api.server, api.audit.as_deref(), &controllers, &running) => {}
        // Other servers use the store until this one has drained.
        never = &mut etcd_api => match never {},
        () = signals.next() => {
            tracing::warn!("second signal received, exiting");
            std::process::exit(INTERRUPTED)
        }
    }
    // Every commit was synced before it was acknowledged, so dropping only stops the writer and unlocks the folder.
    drop((api.server, controllers, running, store));
    Ok(())
}

fn warn_of_flags_without_effect(config: &Config) {
    if !config.without_effect.is_empty() {
        tracing::warn!(flags = config.without_effect.join(" "), "flags without effect");
    }
    if let Some(gates) = config.apis.feature_gates.changed() {
        tracing::warn!(gates, "feature gates without effect");
    }
    if config.apis.emulates_older {
        tracing::warn!(
            "--emulated-version has no effect: the server has the behaviour of {KUBERNETES_MINOR}"
        );
    }
}

fn limits(config: &Config, descriptors: u64) -> Result<Limits, FlagError> {
    let mut limits =
        Limits { connections: ConnectionLimits::for_descriptors(descriptors), ..Limits::default() };
    let total = limits.connections.total;
    if config.connections_per_address > total {
        let why = format!(
            "the limit of {descriptors} open files allows {total} connections; raise it (ulimit -n), or choose at most {total}"
        );
        return Err(FlagError::new("max-connections-per-address", why));
    }
    if config.http2_streams != 0 {
        limits.http2_streams = config.http2_streams;
    }
    if config.connections_per_address != 0 {
        limits.connections.per_address = config.connections_per_address;
    }
    limits.shares_port = config.shares_port;
    Ok(limits)
}

fn create_folder(path: &Path) -> Result<(), FlagError> {
    let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(path) else { return Ok(()) };
    let file = path.ancestors().find(|place| place.exists() && !place.is_dir());
    let why = match file {
        Some(file) if file == path => "is a file, not a folder".to_owned(),
        Some(file) => format!("{} is a file, not a folder", file.display()),
        None => format!("cannot create the folder: {error}"),
    };
    Err(FlagError::file("data-dir", path, why))
}

/// The administrator's kubeconfig, which a server without an own CA does not write: its path and the server's address.
struct Kubeconfig {
    path: PathBuf,
    server: SocketAddr,
}

impl Kubeconfig {
    fn write(&self, certificates: &Certificates) -> Result<(), ServeError> {
        let Some(admin) = certificates.admin() else { return Ok(()) };
        kubeconfig::write(&self.path, self.server, certificates.server_ca(), admin)
            .map_err(|error| ServeError::Kubeconfig { path: self.path.clone(), error })
    }
}

/// Prints the server's address and the kubeconfig.
fn print_addresses(config: &Config, server: SocketAddr, kubeconfig: &Path, revision: u64, started: Instant) {
    let (version, ready) = (env!("CARGO_PKG_VERSION"), started.elapsed().as_millis());
    let kubeconfig = kubeconfig.display();
    let lines = format!(
        "nave {version} (Kubernetes {KUBERNETES_MINOR}) serving https://{server}  (ready in {ready} ms)\n\
         {}\n\
         kubeconfig {kubeconfig}\n\
         try        KUBECONFIG={kubeconfig} kubectl get namespaces\n",
        store::location(config, revision)
    );
    output::print(&lines);
}

/// The files that are checked while the server runs.
struct RenewalTask {
    config: Config,
    certificates: Certificates,
    kubeconfig: Kubeconfig,
    cas: ClientCas,
    tls: Tls,
    /// TLS to kubelets.
    kubelets: Arc<KubeletTls>,
    /// The client certificate for aggregated servers.
    proxy_client: ProxyClient,
    /// TLS to other API servers of the cluster.
    peer_tls: Option<PeerTls>,
    authentication: Option<ConfigFile>,
}

impl RenewalTask {
    /// Renews certificates that are due and reloads changed files.
    fn refresh(&mut self) -> Result<(), ServeError> {
        if self.certificates.refresh(SystemTime::now())? {
            self.kubeconfig.write(&self.certificates)?;
        }
        if self.cas.refresh(&self.certificates)? {
            self.tls.set_client_cas(&self.cas.all())?;
            tracing::info!("client CA reloaded");
        }
        backends::reload(&self.config, &self.certificates, &self.kubelets)?;
        self.proxy_client.reload(&self.config, &self.certificates)?;
        self.peer_tls.as_mut().map_or(Ok(()), |tls| tls.reload(&self.config))
    }
}

/// Checks the certificates at an interval, and immediately when a file in a flag changes. Logs and retries failures.
async fn run_renewals(task: &Mutex<RenewalTask>) -> std::convert::Infallible {
    let mut task = task.lock().await;
    let mut given = WatchedFiles::new(task.certificates.given());
    let configured = task.authentication.iter().map(|file| file.path.clone());
    let mut configured = WatchedFiles::new(configured.collect());
    let mut checked = Instant::now();
    loop {
        tokio::time::sleep(FILE_CHECK).await;
        if configured.changed()
            && let Some(file) = &task.authentication
        {
            file.reload();
        }
        if given.changed() || task.cas.is_cluster_changed() || checked.elapsed() >= CERTIFICATE_CHECK {
            checked = Instant::now();
            if let Err(error) = task.refresh() {
                tracing::error!(%error, "certificate renewal failed");
            }
        }
    }
}

async fn stop(
    config: &Config,
    api: &ApiServer,
    audit: Option<&Auditor>,
    controllers: &InProcessControllers,
    running: &Running,
) {
    tracing::info!("shutdown started");
    api.turn_unready();
    api.withdraw_address().await;
    let lifecycle = &config.lifecycle;
    tokio::time::sleep(lifecycle.shutdown_delay).await;
    controllers.shutdown().await;
    if lifecycle.sends_retry_after {
        // Requests end by their deadlines.
        let limit = tokio::time::timeout(config.request_timeout, api.refuse_requests()).await;
        tracing::info!(completed = limit.is_ok(), "new requests are refused, requests in flight have ended");
    }
    api.end_watches();
    let drained = running.shutdown(config.request_timeout.max(lifecycle.watch_grace)).await;
    tracing::info!(%drained, "all connections closed");
    if let Some(audit) = audit
        && tokio::time::timeout(AUDIT_FLUSH, audit.flush()).await.is_err()
    {
        tracing::error!(events = audit.pending(), "audit events lost: the backends are too slow");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::flags::{Cli, Task};

    fn config(arguments: &[&str]) -> Config {
        let arguments = ["nave"].iter().chain(arguments);
        match Cli::read(arguments).unwrap().validate().unwrap() {
            Task::Serve(config) => *config,
            _ => panic!("these are flags of serve"),
        }
    }

    #[test]
    fn rejects_a_file_as_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = create_folder(&file).unwrap_err().to_string();
        assert_eq!(error, format!("--data-dir: {}: is a file, not a folder", file.display()));
        let error = create_folder(&file.join("data")).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is a file", file.display())), "{error}");
        assert!(create_folder(&folder.path().join("a/b")).is_ok());
    }

    #[test]
    fn rejects_more_connections_than_file_descriptors() {
        let flag = |count: usize| format!("--max-connections-per-address={count}");
        let total = ConnectionLimits::for_descriptors(1024).total;
        assert!(limits(&config(&[&flag(total)]), 1024).is_ok());
        let error = limits(&config(&[&flag(total + 1)]), 1024).unwrap_err().to_string();
        assert!(error.contains("ulimit -n") && error.contains(&total.to_string()), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_store_that_is_released_soon() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[&format!("--data-dir={}", folder.path().display())]);
        let first = store::open(&config).await.unwrap();
        let releasing = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(store::open(&config), releasing);
        assert!(second.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn distinguishes_damaged_store_from_store_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[&format!("--data-dir={}", folder.path().display())]);
        let store = store::open(&config).await.unwrap();
        let in_use = store::open(&config).await.err().unwrap();
        assert!(matches!(in_use, ServeError::Store(StoreError::Locked { .. })), "{in_use}");
        drop(store);
        let file = folder.path().join("store/store.redb");
        let bytes = fs::read(&file).unwrap();
        let mut overwritten = bytes.clone();
        overwritten[4096..].fill(0xa5);
        for damaged in [b"hello".to_vec(), bytes[..5000].to_vec(), overwritten] {
            fs::write(&file, damaged).unwrap();
            let error = store::open(&config).await.err().unwrap().to_string();
            assert!(error.contains("is damaged") && error.contains("move it away"), "{error}");
        }
        fs::write(&file, bytes).unwrap();
        assert!(store::open(&config).await.is_ok());
    }
}
