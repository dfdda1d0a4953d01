//! The controllers within the server's process: each acts as its service account, through every stage of the pipeline,
//! and all read the server's own watch caches.

use std::sync::Arc;

use nave_apiserver::server::ApiServer;
use nave_apiserver::storage::Storages;
use nave_client::{InProcess, SharedInformerFactory};
use nave_controllers::frame::{self, Clients};
use nave_machinery::GroupVersionResource;
use nave_machinery::user::UserInfo;
use tokio_util::sync::CancellationToken;

use crate::flags::Controllers;

/// The controllers that run, with their informers.
pub(super) struct InProcessControllers {
    running: frame::Running,
    informers: SharedInformerFactory,
}

/// Starts the controllers that were asked for. They come up in their own time: nothing waits for them.
pub(super) fn start(wanted: &Controllers, api: &ApiServer, storages: &Storages) -> InProcessControllers {
    let storages = storages.clone();
    let cacher = move |resource: &GroupVersionResource| storages.cacher(resource).map(Arc::clone);
    let informers = SharedInformerFactory::new(InProcess(cacher));
    let controllers = nave_controllers::CONTROLLERS
        .iter()
        .filter(|controller| wanted.runs(&[controller.name, controller.alias], controller.on_by_default));
    let clients = Local(api.clone());
    let running = frame::start(controllers, &clients, &informers, CancellationToken::new());
    InProcessControllers { running, informers }
}

impl InProcessControllers {
    /// Ends them, once work under way is done.
    pub(super) async fn shutdown(&self) {
        self.running.shutdown().await;
        self.informers.shutdown().await;
    }
}

/// The server, as service accounts of kube-system meet it.
struct Local(ApiServer);

impl Clients for Local {
    fn client(&self, service_account: &str) -> kube::Client {
        let user = UserInfo {
            name: format!("system:serviceaccount:kube-system:{service_account}"),
            groups: ["system:serviceaccounts", "system:serviceaccounts:kube-system"]
                .map(str::to_owned)
                .into(),
            ..UserInfo::default()
        };
        kube::Client::new(self.0.local(user), "default")
    }
}
