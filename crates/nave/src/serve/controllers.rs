//! The controllers in the server's process. Each controller acts as its service account through the whole request
//! pipeline, and all controllers read the server's watch caches.

use std::sync::Arc;

use nave_apiserver::server::ApiServer;
use nave_client::{FactoryConfig, InProcess, SharedInformerFactory};
use nave_controllers::frame::{self, CertificateSigner, Clients, Settings, TokenGenerator};
use nave_machinery::GroupVersionResource;
use nave_machinery::user::UserInfo;
use tokio_util::sync::CancellationToken;

use crate::flags::Controllers;
use crate::signing::FileSigner;
use crate::tokens::SecretTokens;

/// The running controllers, with their informers.
pub(super) struct InProcessControllers {
    running: frame::Running,
    informers: SharedInformerFactory,
}

/// Starts the selected controllers. Does not wait for them to become ready.
pub(super) fn start(
    wanted: &Controllers,
    api: &ApiServer,
    root_ca: &str,
    tokens: SecretTokens,
    signer: FileSigner,
) -> InProcessControllers {
    let catalogs = api.catalogs().clone();
    // Kinds that controllers deserialize are read in their storage version. For other kinds only metadata is read,
    // which is the same in all versions.
    let cacher = move |resource: &GroupVersionResource| catalogs.cacher(resource);
    let supervisor = api.supervisor().clone();
    let config = FactoryConfig { supervisor: supervisor.clone(), ..FactoryConfig::default() };
    let informers = SharedInformerFactory::with_config(InProcess(cacher), config);
    let clients = Local {
        api: api.clone(),
        root_ca: Arc::from(root_ca),
        tokens: Arc::new(tokens),
        signer: Arc::new(signer),
    };
    let settings = Settings { supervisor, ..Settings::default() };
    let running = frame::start(wanted.selected(), &clients, &informers, &settings, CancellationToken::new());
    InProcessControllers { running, informers }
}

impl InProcessControllers {
    /// Stops the controllers after the work in progress has finished.
    pub(super) async fn shutdown(&self) {
        self.running.shutdown().await;
        self.informers.shutdown().await;
    }
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
            let name = "system:kube-controller-manager".to_owned();
            return kube::Client::new(self.api.local(UserInfo { name, ..UserInfo::default() }), "default");
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
