//! Who may do what: the authorizers that the flags ask for, and what else goes with them.

use std::sync::Arc;

use nave_apiserver::admission::{Plugin, RbacEscalation};
use nave_apiserver::authorization;
use nave_apiserver::server::StartError;
use nave_apiserver::storage::{Following, Storages};
use nave_authz::rbac::{self, Rbac};
use nave_authz::{Chain, Link, Metrics};
use nave_machinery::GroupVersionResource;

/// The authorizers, before there is a server.
pub(super) struct Authorization {
    /// The authorizers in order.
    pub(super) chain: Chain,
    rbac: Arc<Rbac>,
}

impl Authorization {
    pub(super) fn new() -> Result<Self, StartError> {
        let rbac = Arc::new(Rbac::default());
        let link = Link {
            kind: "RBAC",
            name: "rbac".into(),
            authorizer: Arc::clone(&rbac) as _,
            resolver: Some(Arc::clone(&rbac) as _),
        };
        Ok(Self { chain: Chain::new(vec![link], Metrics::new()?), rbac })
    }

    /// The admission plugins that keep rights from being widened.
    pub(super) fn plugins(&self, storages: &Storages) -> Vec<Box<dyn Plugin>> {
        let storage = |resource| storages.get(&GroupVersionResource::new(rbac::GROUP, "v1", resource));
        let mut plugins: Vec<Box<dyn Plugin>> = Vec::new();
        if let (Some(roles), Some(cluster_roles)) = (storage("roles"), storage("clusterroles")) {
            plugins.push(Box::new(RbacEscalation {
                rbac: Arc::clone(&self.rbac),
                authorization: self.chain.clone(),
                roles: Arc::clone(roles),
                cluster_roles: Arc::clone(cluster_roles),
            }));
        }
        plugins
    }

    /// Brings the authorizers up to date with what is stored, and keeps them so for as long as the outcome lives.
    pub(super) async fn follow(&self, storages: &Storages) -> Vec<Following> {
        let following = authorization::follow_rbac(storages, &self.rbac);
        for one in &following {
            one.synced().await;
        }
        following
    }
}
