//! The controllers in the server's process. Each controller acts as its service account through the whole request
//! pipeline, and all controllers read the server's watch caches.

use std::sync::Arc;

use nave_apiserver::server::ApiServer;
use nave_client::leader_election::{Ended, LeaderElectionConfig, LeaderElector};
use nave_client::workqueue::WorkqueueMetrics;
use nave_client::{FactoryConfig, InProcess, SharedInformerFactory};
use nave_controllers::frame::{self, CertificateSigner, Clients, Descriptor, Settings, TokenGenerator};
use nave_machinery::GroupVersionResource;
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controllers;
use crate::flags::Controllers;
use crate::signing::FileSigner;
use crate::tokens::SecretTokens;

/// The controllers of this process.
pub(super) struct InProcessControllers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts the selected controllers, with an election when this process is the leader. Does not wait for them.
pub(super) fn start(
    wanted: &Controllers,
    election: Option<LeaderElectionConfig>,
    api: &ApiServer,
    root_ca: &str,
    tokens: SecretTokens,
    signer: FileSigner,
    metrics: WorkqueueMetrics,
) -> InProcessControllers {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let clients = Local {
        api: api.clone(),
        root_ca: Arc::from(root_ca),
        tokens: Arc::new(tokens),
        signer: Arc::new(signer),
    };
    let work = Work { selected: wanted.selected().collect(), clients, metrics, started: Mutex::default() };
    if !work.selected.is_empty() {
        tasks.spawn(work.run(election, stop.clone()));
    }
    tasks.close();
    InProcessControllers { tasks, stop }
}

impl InProcessControllers {
    /// Stops the controllers after the work in progress has finished, and releases the leadership.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// The controllers and what they need.
struct Work {
    selected: Vec<&'static Descriptor>,
    clients: Local,
    metrics: WorkqueueMetrics,
    /// The running controllers with their informers.
    started: Mutex<Option<(frame::Running, SharedInformerFactory)>>,
}

impl Work {
    /// Runs the controllers until `stop` is cancelled; with an election, while this process is the leader.
    async fn run(self, election: Option<LeaderElectionConfig>, stop: CancellationToken) {
        let Some(election) = election else { return self.act(stop).await };
        let election = LeaderElectionConfig { identity: controllers::identity(), ..election };
        let elector = match LeaderElector::new(self.clients.client(""), election) {
            Ok(elector) => elector,
            Err(error) => return tracing::error!(%error, "controllers do not run"),
        };
        while elector.run(stop.clone(), |leading| self.act(leading)).await == Ended::Lost {
            tracing::warn!("leadership lost, controllers stop");
            self.finish().await;
        }
    }

    /// Runs the controllers until `stop` is cancelled.
    async fn act(&self, stop: CancellationToken) {
        let api = &self.clients.api;
        let catalogs = api.catalogs().clone();
        // Kinds that controllers deserialize are read in their storage version. For other kinds only metadata is read,
        // which is the same in all versions.
        let cacher = move |resource: &GroupVersionResource| catalogs.cacher(resource);
        let supervisor = api.supervisor().clone();
        let config = FactoryConfig { supervisor: supervisor.clone(), ..FactoryConfig::default() };
        let informers = SharedInformerFactory::with_config(InProcess(cacher), config);
        let metrics = Some(self.metrics.clone());
        let settings = Settings { supervisor, metrics, ..Settings::default() };
        let selected = self.selected.iter().copied();
        let running = frame::start(selected, &self.clients, &informers, &settings, stop.clone());
        *self.started.lock() = Some((running, informers));
        stop.cancelled().await;
        self.finish().await;
    }

    /// Waits until the controllers have stopped.
    async fn finish(&self) {
        let started = self.started.lock().take();
        if let Some((running, informers)) = started {
            running.shutdown().await;
            informers.shutdown().await;
        }
    }
}

/// Returns a client of the local server that acts as the controller manager.
pub(super) fn manager_client(api: &ApiServer) -> kube::Client {
    let name = "system:kube-controller-manager".to_owned();
    kube::Client::new(api.local(UserInfo { name, ..UserInfo::default() }), "default")
}

/// Clients of the local server that act as service accounts of kube-system.
struct Local {
    api: ApiServer,
    root_ca: Arc<str>,
    tokens: Arc<SecretTokens>,
    signer: Arc<FileSigner>,
}

impl Clients for Local {
    fn client(&self, service_account: &str) -> kube::Client {
        if service_account.is_empty() {
            return manager_client(&self.api);
        }
        let user = UserInfo {
            name: format!("system:serviceaccount:kube-system:{service_account}"),
            groups: ["system:serviceaccounts", "system:serviceaccounts:kube-system"]
                .map(str::to_owned)
                .into(),
            ..UserInfo::default()
        };
        kube::Client::new(self.api.local(user), "default")
    }

    fn root_ca(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.root_ca))
    }

    fn tokens(&self) -> Option<Arc<dyn TokenGenerator>> {
        Some(Arc::clone(&self.tokens) as _)
    }

    fn signer(&self) -> Option<Arc<dyn CertificateSigner>> {
        Some(Arc::clone(&self.signer) as _)
    }
}
