//! `nave controllers`: the controllers as a process of their own, for any cluster. Of several such processes one works.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use nave_authn::certificates_to_pem;
use nave_client::leader_election::{ConfigError, Ended, LeaderElectionConfig, LeaderElector};
use nave_client::workqueue::WorkqueueMetrics;
use nave_client::{FactoryConfig, SharedInformerFactory, record};
use nave_controllers::frame::{self, CertificateSigner, Clients, Descriptor, TokenGenerator};
use nave_supervisor::RestartMetrics;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::flags::{Controllers, ControllersConfig, FlagError};
use crate::health::Health;
use crate::signals::Signals;
use crate::signing::FileSigner;
use crate::tokens::SecretTokens;

/// Why the controllers could not run, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllersError {
    /// A flag's file cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// The times of the election do not fit together.
    #[error("leader election: {0}")]
    Election(#[from] ConfigError),
    /// The address for health cannot be listened on.
    #[error("cannot listen on {0}: {1} (--healthz-bind-address)")]
    Health(SocketAddr, #[source] io::Error),
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Another process leads now.
    #[error("leader election lost")]
    Lost,
    /// The operating system refuses something the process needs.
    #[error("the operating system refuses what the process needs: {0}")]
    System(#[from] io::Error),
}

/// Runs the controllers until a signal asks to stop, or another process leads.
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
        // It ends by itself; a defect of its own is not this one's end.
        let _ = written.await;
        ended
    };
    let asked_to_stop = async {
        signals.next().await;
        stop.cancel();
        signals.next().await;
    };
    tokio::select! {
        ended = lead => ended,
        // A second signal does not wait for what is under way.
        () = asked_to_stop => Ok(()),
        never = health => match never {},
    }
}

/// In whose name the election's events are.
const COMPONENT: &str = "kube-controller-manager";

/// Runs the controllers while this process leads, or for as long as it may where there is no election.
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
        // What another process does now must not be done here too: end at once.
        Ended::Lost => Err(ControllersError::Lost),
        Ended::Stopped | Ended::Finished => Ok(()),
    }
}

/// Serves health where it is wanted, and says where.
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
    let running = frame::start(chosen(&config.controllers), user, &informers, &config.settings, stop.clone());
    tracing::info!("controllers started");
    stop.cancelled().await;
    running.shutdown().await;
    informers.shutdown().await;
}

/// The controllers that a list asks for.
pub(crate) fn chosen(wanted: &Controllers) -> impl Iterator<Item = &'static Descriptor> {
    let runs = |controller: &&Descriptor| {
        wanted.runs(&[controller.name, controller.alias], controller.on_by_default)
    };
    nave_controllers::CONTROLLERS.iter().filter(runs)
}

/// All controllers act as the kubeconfig's user.
struct OneUser {
    client: kube::Client,
    root_ca: Option<Arc<str>>,
    tokens: Option<Arc<SecretTokens>>,
    signer: Arc<FileSigner>,
}

impl OneUser {
    async fn read(config: &ControllersConfig) -> Result<Self, FlagError> {
        let wrong = |why: &dyn std::fmt::Display| FlagError::file("kubeconfig", &config.kubeconfig, why);
        // Another part of the process may have set it already; both set the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = Kubeconfig::read_from(&config.kubeconfig).map_err(|why| wrong(&why))?;
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

/// A name that no other process has: the host's, and chance.
fn identity() -> String {
    let host = rustix::system::uname();
    format!("{}_{}", host.nodename().to_string_lossy(), uuid::Uuid::new_v4())
}
