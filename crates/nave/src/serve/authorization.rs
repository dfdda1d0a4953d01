//! Who may do what: the authorizers that the flags ask for, and what else goes with them.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use nave_apiserver::admission::AdmissionConfig;
use nave_apiserver::authorization;
use nave_apiserver::server::StartError;
use nave_apiserver::storage::{Following, Storages};
use nave_authz::config::{ConfigFile, Parts};
use nave_authz::node::{Graph, Node};
use nave_authz::rbac::Rbac;
use nave_authz::{Abac, Chain, Metrics};
use nave_machinery::Status;
use nave_webhook::Watched;
use parking_lot::{Mutex, RwLock};
use prometheus::Registry;

use super::{FILE_CHECK, ServeError};
use crate::flags::{self, Authorizers, FlagError};

/// The authorizers, and what they decide by.
pub(super) struct Authorization {
    /// The authorizers in order.
    pub(super) chain: Chain,
    rbac: Arc<Rbac>,
    graph: Arc<RwLock<Graph>>,
    /// The file that says who is asked, if there is one.
    file: Option<(PathBuf, Mutex<ConfigFile>)>,
}

impl Authorization {
    /// Makes the authorizers. They know of no objects until [`follow`](Self::follow) has run.
    pub(super) fn open(
        flags: &flags::Authorization,
        server: &str,
        registry: &Registry,
    ) -> Result<Self, ServeError> {
        let (rbac, graph) = (Arc::new(Rbac::default()), Arc::new(RwLock::new(Graph::default())));
        let metrics = Metrics::new(registry).map_err(StartError::Metrics)?;
        let abac = flags.policy_file.as_ref().map(|file| {
            let read = Abac::from_file(file);
            read.map_err(|why| FlagError::file("authorization-policy-file", file, why))
        });
        let node =
            Node::new(Arc::clone(&graph)).map_err(|error| StartError::Bootstrap(Status::internal(error)))?;
        let parts = Parts {
            rbac: Arc::clone(&rbac),
            node: Arc::new(node),
            abac: abac.transpose()?.map(Arc::new),
            metrics: metrics.clone(),
        };
        let (links, file) = match &flags.authorizers {
            Authorizers::Given(given) => {
                let built = given.build(&parts);
                (built.map_err(|why| FlagError::new("authorization-mode", why.to_string()))?, None)
            }
            Authorizers::File(path) => {
                let opened = ConfigFile::open(path.clone(), parts, server);
                let (file, links) =
                    opened.map_err(|why| FlagError::file("authorization-config", path, why))?;
                (links, Some((path.clone(), Mutex::new(file))))
            }
        };
        Ok(Self { chain: Chain::new(links, metrics), rbac, graph, file })
    }

    /// Whether an authorizer allows every request. A configuration file cannot change that while the server runs.
    pub(super) fn always_allow(&self) -> bool {
        self.chain.links().iter().any(|link| link.kind == "AlwaysAllow")
    }

    /// The admission plugins, some of which ask for rights.
    pub(super) fn admission(&self, flags: &flags::Admission) -> AdmissionConfig {
        AdmissionConfig {
            default_not_ready_toleration_seconds: flags.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: flags.default_unreachable_toleration_seconds,
            ..AdmissionConfig::new(flags.plugins.clone(), Arc::clone(&self.rbac))
        }
    }

    /// Brings the authorizers up to date with what is stored, and keeps them so for as long as the outcome lives.
    pub(super) async fn follow(&self, storages: &Storages) -> Vec<Following> {
        let mut following = authorization::follow_rbac(storages, &self.rbac);
        following.extend(authorization::follow_nodes(storages, &self.graph));
        for one in &following {
            one.synced().await;
        }
        following
    }

    /// Takes in what changes in the file that says who is asked.
    pub(super) async fn keep_up(&self) -> Infallible {
        let Some((path, file)) = &self.file else { return std::future::pending().await };
        let mut given = Watched::new(vec![path.clone()]);
        loop {
            tokio::time::sleep(FILE_CHECK).await;
            if !given.changed() {
                continue;
            }
            match file.lock().reload(&self.chain) {
                Ok(true) => tracing::info!(file = %path.display(), "asking other authorizers"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "asking the same authorizers as before");
                }
            }
        }
    }
}
