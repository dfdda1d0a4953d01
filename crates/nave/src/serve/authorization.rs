//! Builds the authorizers that the flags configure, and keeps their data up to date.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use nave_apiserver::admission::AdmissionConfig;
use nave_apiserver::authorization;
use nave_apiserver::server::StartError;
use nave_apiserver::storage::{Following, Storages};
use nave_authz::config::{ConfigFile, Parts};
use nave_authz::node::{Graph, Node};
use nave_authz::rbac::Rbac;
use nave_authz::{Abac, Chain, Metrics};
use nave_machinery::Status;
use nave_webhook::WatchedFiles;
use parking_lot::{Mutex, RwLock};
use prometheus::Registry;

use super::{FILE_CHECK, ServeError, delegation};
use crate::flags::{self, Authorizers, Config, FlagError};

/// The authorizers and their data.
pub(super) struct Authorization {
    /// The authorizers in order.
    pub(super) chain: Chain,
    rbac: Arc<Rbac>,
    graph: Arc<RwLock<Graph>>,
    /// The authorization configuration file, if the flag is set.
    file: Option<(PathBuf, Mutex<ConfigFile>)>,
}

impl Authorization {
    /// Creates the authorizers. They see no objects until [`follow`](Self::follow) has run.
    pub(super) fn open(config: &Config, server: &str, registry: &Registry) -> Result<Self, ServeError> {
        let flags = &config.authorization;
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
            egress: config.egress.control_plane.clone(),
        };
        let (authorizers, file) = match &flags.authorizers {
            Authorizers::Given(given) => {
                let built = given.build(&parts);
                (built.map_err(|why| FlagError::new("authorization-mode", why.to_string()))?, None)
            }
            Authorizers::Delegated(delegated) => (delegation::authorizers(delegated, &metrics)?, None),
            Authorizers::File(path) => {
                let opened = ConfigFile::open(path.clone(), parts, server);
                let (file, authorizers) =
                    opened.map_err(|why| FlagError::file("authorization-config", path, why))?;
                (authorizers, Some((path.clone(), Mutex::new(file))))
            }
        };
        Ok(Self { chain: Chain::new(authorizers, metrics), rbac, graph, file })
    }

    /// Returns whether an authorizer allows every request. Reloads of the configuration file cannot change this.
    pub(super) fn always_allow(&self) -> bool {
        self.chain.authorizers().iter().any(|authorizer| authorizer.kind == "AlwaysAllow")
    }

    /// Returns the configuration of admission plugins. Some plugins check access.
    pub(super) fn admission(&self, flags: &flags::Admission) -> AdmissionConfig {
        AdmissionConfig {
            default_not_ready_toleration_seconds: flags.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: flags.default_unreachable_toleration_seconds,
            ..AdmissionConfig::new(flags.plugins.clone(), Arc::clone(&self.rbac))
        }
    }

    /// Loads the stored objects into the authorizers and keeps them up to date until the result is dropped. Objects that
    /// cannot be read within the stores' time limit are missing at first, so that requests are denied.
    pub(super) async fn follow(&self, storages: &Storages) -> Vec<Following> {
        let mut following = authorization::follow_rbac(storages, &self.rbac);
        following.extend(authorization::follow_nodes(storages, &self.graph));
        let synced = join_all(following.iter().map(Following::synced));
        if tokio::time::timeout(storages.stores().timeouts().initialization, synced).await.is_err() {
            tracing::error!("objects that authorizers need cannot be read");
        }
        following
    }

    /// Reloads the authorization configuration file when it changes.
    pub(super) async fn reload_on_change(&self) -> Infallible {
        let Some((path, file)) = &self.file else { return std::future::pending().await };
        let mut given = WatchedFiles::new(vec![path.clone()]);
        loop {
            tokio::time::sleep(FILE_CHECK).await;
            if !given.changed() {
                continue;
            }
            match file.lock().reload(&self.chain) {
                Ok(true) => tracing::info!(file = %path.display(), "authorization config reloaded"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "authorization config reload failed, keeping the previous one");
                }
            }
        }
    }
}
