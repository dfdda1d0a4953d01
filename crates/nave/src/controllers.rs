//! `nave controllers`: runs the controllers as a separate process against any cluster. If several processes run, only
//! one is active.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use nave_authn::certificates_to_pem;
use nave_client::leader_election::{ConfigError, Ended, LeaderElectionConfig, LeaderElector};
use nave_client::workqueue::WorkqueueMetrics;
use nave_client::{FactoryConfig, SharedInformerFactory, record};
use nave_controllers::frame::{self, CertificateSigner, Clients, TokenGenerator};
use nave_supervisor::RestartMetrics;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::flags::{ControllersConfig, FlagError};
use crate::health::Health;
use crate::signals::Signals;
use crate::signing::FileSigner;
use crate::tokens::SecretTokens;

/// The reasons why the controllers cannot start or must stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllersError {
    /// A flag's file cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// The leader election settings contradict each other.
    #[error("leader election: {0}")]
    Election(#[from] ConfigError),
    /// The health address cannot be bound.
    #[error("cannot listen on {0}: {1} (--healthz-bind-address)")]
    Health(SocketAddr, #[source] io::Error),
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Another process is the leader now.
    #[error("leader election lost")]
    Lost,
    /// The operating system denied a resource.
    #[error("operating system error: {0}")]
    System(#[from] io::Error),
}

/// Runs the controllers until a signal arrives or leadership is lost.
pub(crate) async fn run(mut config: ControllersConfig) -> Result<(), ControllersError> {
    let mut signals = Signals::new()?;
    let user = OneUser::read(&config).await?;
    let registry = Registry::new();
    config.settings.metrics = Some(WorkqueueMetrics::register(&registry)?);
    registry.register(Box::new(RestartMetrics::new(config.settings.supervisor.clone())?))?;
    let (events, writer) = record::recorder(COMPONENT, user.client.clone());
    let led = CancellationToken::new();
    let written = tokio::spawn(writer.run(led.clone()));
    let elector = match config.election.clone() {
        Some(election) => {
            let election = LeaderElectionConfig { identity: identity(), events: Some(events), ..election };
            Some(Arc::new(LeaderElector::new(user.client.clone(), election)?))
        }
        None => None,
    };
    let health = health(config.health, Health { elector: elector.clone(), registry }).await?;

    let stop = CancellationToken::new();
    let lead = async {
        let ended = lead(elector, &user, &config, &stop).await;
        led.cancel();
        // A panic in the task must not end the process.
        let _ = written.await;
        ended
    };
    let stop_signal = async {
        signals.next().await;
        stop.cancel();
        signals.next().await;
    };
    tokio::select! {
        ended = lead => ended,
        // A second signal skips the graceful shutdown.
        () = stop_signal => Ok(()),
        never = health => match never {},
    }
}

/// The component name in leader election events.
const COMPONENT: &str = "kube-controller-manager";

/// Runs the controllers while this process is the leader, or until it stops if leader election is disabled.
async fn lead(
    elector: Option<Arc<LeaderElector>>,
    user: &OneUser,
    config: &ControllersConfig,
    stop: &CancellationToken,
) -> Result<(), ControllersError> {
    let work = async |stop: CancellationToken| work(user, config, stop).await;
    let Some(elector) = elector else {
        work(stop.clone()).await;
        return Ok(());
    };
    match elector.run(stop.clone(), work).await {
        // Another process is the leader now, so this process must stop immediately.
        Ended::Lost => Err(ControllersError::Lost),
        Ended::Stopped | Ended::Finished => Ok(()),
    }
}

/// Serves the health endpoint if it is enabled, and prints its address.
async fn health(
    wanted: Option<SocketAddr>,
    health: Health,
) -> Result<impl Future<Output = std::convert::Infallible>, ControllersError> {
    let listener = match wanted {
        None => None,
        Some(address) => {
            let wrong = |error| ControllersError::Health(address, error);
            let listener = TcpListener::bind(address).await.map_err(wrong)?;
            let address = listener.local_addr().map_err(wrong)?;
            crate::output::print(&format!("health http://{address}/healthz\n"));
            Some(listener)
        }
    };
    Ok(async move {
        match listener {
            Some(listener) => health.serve(listener).await,
            None => std::future::pending().await,
        }
    })
}

/// Runs the controllers until `stop` is cancelled.
async fn work(user: &OneUser, config: &ControllersConfig, stop: CancellationToken) {
    let supervisor = config.settings.supervisor.clone();
    let factory = FactoryConfig { supervisor, ..FactoryConfig::default() };
    let informers = SharedInformerFactory::with_config(user.client.clone(), factory);
    let running =
        frame::start(config.controllers.selected(), user, &informers, &config.settings, stop.clone());
    tracing::info!("controllers started");
    stop.cancelled().await;
    running.shutdown().await;
    informers.shutdown().await;
}

/// Creates the clients of all controllers, as the user of the kubeconfig.
struct OneUser {
    client: kube::Client,
    root_ca: Option<Arc<str>>,
    tokens: Option<Arc<SecretTokens>>,
    signer: Arc<FileSigner>,
}

impl OneUser {
    async fn read(config: &ControllersConfig) -> Result<Self, FlagError> {
        let wrong = |why: &dyn std::fmt::Display| FlagError::file("kubeconfig", &config.kubeconfig, why);
        // Fails if another part of the process has already installed a provider; both install the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = Kubeconfig::read_from(&config.kubeconfig).map_err(|why| match &why {
            // The text of `why` would repeat the path.
            KubeconfigError::ReadConfig(error, _) => wrong(error),
            why => wrong(why),
        })?;
        let loaded = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let loaded = loaded.map_err(|why| wrong(&why))?;
        let root_ca = loaded.root_cert.as_ref().map(|certificates| certificates_to_pem(certificates).into());
        let key = config.private_key_file.as_deref();
        let tokens = key.map(|file| SecretTokens::with_key("service-account-private-key-file", file));
        let tokens = tokens.transpose()?.map(Arc::new);
        let signer = Arc::new(FileSigner::new(config.signing.clone()));
        Ok(Self {
            client: kube::Client::try_from(loaded).map_err(|why| wrong(&why))?,
            root_ca,
            tokens,
            signer,
        })
    }
}

impl Clients for OneUser {
    fn client(&self, _: &str) -> kube::Client {
        self.client.clone()
    }

    fn root_ca(&self) -> Option<Arc<str>> {
        self.root_ca.clone()
    }

    fn tokens(&self) -> Option<Arc<dyn TokenGenerator>> {
        Some(self.tokens.clone()? as _)
    }

    fn signer(&self) -> Option<Arc<dyn CertificateSigner>> {
        Some(Arc::clone(&self.signer) as _)
    }
}

/// Returns a unique identity: the host name and a random suffix.
pub(crate) fn identity() -> String {
    let host = rustix::system::uname();
    format!("{}_{}", host.nodename().to_string_lossy(), uuid::Uuid::new_v4())
}
