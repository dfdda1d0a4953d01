//! The objects that the server creates and maintains:
//!
//! | object | created | later (upstream) |
//! | --- | --- | --- |
//! | system namespaces | at start | created again when deleted (`systemnamespaces`) |
//! | roles and bindings | at start | at the next start (`rbac/rest`) |
//! | system priority classes | at start | cannot be deleted (`scheduling/rest`) |
//! | [`api_services`] of the built-in groups | at start | at the next start, unless a user manages them (`autoregister`) |
//! | `kubernetes` service, its endpoints and slice with the [`server_addresses`] | at start | every ten seconds (`kubernetesservice`) |
//! | default `ServiceCIDR` | at start | every ten seconds; a difference from the flags is reported, not corrected (`defaultservicecidr`) |
//! | [`identity`] lease of this server | at start | renewed every ten seconds, deleted at the end (`start-kube-apiserver-identity-lease-controller`) |
//! | [address](crate::peers) of this server for its peers | at start | renewed every ten seconds (`peer-endpoint-reconciler-controller`) |
//! | flow schemas and priority levels | at start | every ten seconds, by their annotation (`priority-and-fairness-config-producer`) |
//! | start date of the tracking of secret-based tokens | at start | every ten seconds (`legacytokentracking`) |
//! | authentication settings for extension servers | at start | on each change ([`cluster_authentication`]) |

mod api_services;
mod ensure;
mod flow_control;
mod identity;
mod kubernetes_service;
mod rbac;
mod server_addresses;
mod service_cidr;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::try_join;
use nave_machinery::backoff::Backoff;
use nave_machinery::{GroupVersionResource, Status, Value, meta, time};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::ensure::{core, create, ensure, with_field};
use self::identity::Identity;
pub use self::identity::server_identity;
pub(crate) use self::identity::{LABEL as IDENTITY_LABEL, NAMESPACE as IDENTITY_NAMESPACE};
use self::kubernetes_service::KubernetesService;
use self::service_cidr::DefaultServiceCidr;
use crate::allocation::{Repair, ServiceRanges};
use crate::cluster_authentication::{self, ClusterAuthentication};
use crate::endpoints::Resources;
use crate::peers::{PeerConfig, addresses};

/// The system namespaces.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The system priority classes: name, value, description.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster needs to work and that may run on any of its nodes.",
    ),
    ("system-node-critical", 2_000_001_000, "For pods that a node needs to work and that must stay on it."),
];

/// Time after which a failure of the store at start is final.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pauses between attempts at start.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(5));
/// Interval of the reconciliation.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);

/// The inputs of the bootstrap objects.
pub struct Bootstrap {
    /// Creates the objects that allocations need; `None` for a server without services.
    repair: Option<Arc<Repair>>,
    service_cidr: DefaultServiceCidr,
    service: KubernetesService,
    identity: Identity,
    /// This server's address for peers, which is announced in the store; `None` to announce none.
    announced: Option<SocketAddr>,
}

impl Bootstrap {
    /// Creates the bootstrap of a server on this host, with `advertise` as its address for clients. The `kubernetes`
    /// service has the first address of the ranges; `reconciles_endpoints` keeps its endpoints.
    pub fn new(
        repair: Option<Arc<Repair>>,
        ranges: ServiceRanges,
        advertise: SocketAddr,
        reconciles_endpoints: bool,
        hostname: &str,
    ) -> Self {
        Self {
            repair,
            service_cidr: DefaultServiceCidr::new(ranges),
            service: KubernetesService {
                address: ranges.first(),
                advertise,
                node_port: None,
                reconciles_endpoints,
            },
            identity: Identity::new(hostname, advertise),
            announced: None,
        }
    }

    /// Gives the service `kubernetes` a node port (`--kubernetes-service-node-port`).
    #[must_use]
    pub fn with_node_port(mut self, port: Option<u16>) -> Self {
        self.service.node_port = port;
        self
    }

    /// Announces the server to its peers.
    #[must_use]
    pub(crate) fn with_peers(mut self, peers: &PeerConfig) -> Self {
        self.identity.advertise = peers.advertise.unwrap_or(self.identity.advertise);
        self.announced = peers.announced;
        self
    }

    /// Returns the name of this server's identity lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity.name
    }

    /// Announces the address of this server to its peers, or renews it.
    async fn announce(&self, resources: &Resources) -> Result<(), Status> {
        match self.announced {
            Some(address) => addresses::renew(resources, self.identity(), address).await,
            None => Ok(()),
        }
    }

    /// Creates the missing objects. Tries again for some time if the store does not answer or the outcome of a write is
    /// unknown: objects that exist are not written again.
    ///
    /// # Errors
    /// An object cannot be stored.
    pub async fn run(
        &self,
        resources: &Resources,
        cluster_authentication: &ClusterAuthentication,
    ) -> Result<(), Status> {
        until_stored(|| self.create_missing(resources, cluster_authentication)).await
    }

    /// Creates the missing objects. Independent objects are created concurrently, so that the store can commit them
    /// together.
    async fn create_missing(
        &self,
        resources: &Resources,
        cluster_authentication: &ClusterAuthentication,
    ) -> Result<(), Status> {
        let allocation = async {
            match &self.repair {
                Some(repair) => repair.start().await,
                None => Ok(()),
            }
        };
        try_join!(namespaces(resources), allocation)?;
        let authentication_config_map = async {
            match cluster_authentication::publish(resources, cluster_authentication).await {
                // Another server that shares the store is creating the config map; the reconciliation updates it later.
                Err(status) if status.code == 409 => Ok(()),
                // The stored config map cannot be read, for example because its encryption key is missing.
                Err(status) if status.code == 500 => {
                    let error = &status.message;
                    tracing::error!(
                        error,
                        "config map kube-system/extension-apiserver-authentication not written"
                    );
                    Ok(())
                }
                outcome => outcome,
            }
        };
        let class = |(name, value, description)| {
            let classes = GroupVersionResource::new("scheduling.k8s.io", "v1", "priorityclasses");
            create(resources, classes, "", priority_class(name, value, description))
        };
        let classes = try_join_all(PRIORITY_CLASSES.map(class));
        // The futures of writes are large, so they are boxed.
        let service = Box::pin(async {
            self.service.start(resources).await?;
            self.service.reconcile(resources).await
        });
        let identity = Box::pin(async {
            // Peers that see the lease look for the address.
            self.announce(resources).await?;
            self.identity.renew(resources).await
        });
        let tracking = token_tracking(resources);
        let api_services = api_services::run(resources);
        let flow_control = Box::pin(flow_control::run(resources));
        try_join!(
            flow_control,
            service,
            rbac::run(resources),
            authentication_config_map,
            tracking,
            classes,
            identity,
            api_services
        )?;
        if let Err(status) = self.service_cidr.report(resources).await {
            tracing::warn!(error = status.message, "the default ServiceCIDR cannot be checked");
        }
        Ok(())
    }

    /// Creates the default `ServiceCIDR` if it is missing, and reports a difference from the flags.
    async fn reconcile_service_cidr(&self, resources: &Resources) -> Result<(), Status> {
        if let Some(repair) = &self.repair {
            repair.sync_default_cidr().await?;
        }
        self.service_cidr.report(resources).await
    }

    /// Reconciles the objects periodically: recreates deleted objects and reverts changes that are not allowed. Never
    /// returns.
    pub(crate) async fn reconcile_periodically(&self, resources: &Resources) -> Infallible {
        let mut ticks = interval(RECONCILE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick completes immediately, and the objects were just created.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.reconcile(resources).await;
        }
    }

    /// Removes this server from the endpoints of the `kubernetes` service, and from what its peers see. A failure only
    /// logs: addresses and leases expire.
    pub(crate) async fn withdraw_address(&self, resources: &Resources) {
        if let Err(status) = self.service.withdraw(resources).await {
            tracing::warn!(error = status.message, "the address of this server cannot be removed");
        }
        if let Err(status) = Box::pin(self.identity.release(resources)).await {
            tracing::warn!(error = status.message, "the identity lease of this server cannot be deleted");
        }
        if self.announced.is_some()
            && let Err(status) = addresses::remove(resources, self.identity()).await
        {
            tracing::warn!(error = status.message, "the address for peers cannot be removed");
        }
    }

    /// Reconciles the objects once. Failures are retried in the next round.
    pub(crate) async fn reconcile(&self, resources: &Resources) {
        for (what, outcome) in [
            ("system namespaces", namespaces(resources).await),
            ("default ServiceCIDR", self.reconcile_service_cidr(resources).await),
            ("kubernetes service", self.service.reconcile(resources).await),
            ("token tracking", token_tracking(resources).await),
            ("flow schemas and priority levels", flow_control::run(resources).await),
            ("address for peers", self.announce(resources).await),
            ("identity lease", self.identity.renew(resources).await),
            ("expired identity leases", self.identity.remove_expired(resources).await),
        ] {
            if let Err(status) = outcome {
                tracing::warn!(what, error = status.message, "bootstrap reconciliation failed");
            }
        }
    }
}

/// Repeats an attempt while the store does not answer or the outcome is unknown.
async fn until_stored<A>(attempt: impl Fn() -> A) -> Result<(), Status>
where
    A: Future<Output = Result<(), Status>>,
{
    let (end, mut pauses) = (Instant::now() + PATIENCE, RETRY.pauses());
    loop {
        match attempt().await {
            Err(status) if matches!(status.code, 503 | 504) && Instant::now() < end => {
                tracing::warn!(error = status.message, "bootstrap objects are not stored yet");
                tokio::time::sleep(pauses.next_pause()).await;
            }
            outcome => return outcome,
        }
    }
}

/// Creates the system namespaces.
async fn namespaces(resources: &Resources) -> Result<(), Status> {
    let namespaces = NAMESPACES.map(|name| {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(resources, core("namespaces"), "", namespace)
    });
    try_join_all(namespaces).await.map(drop)
}

fn priority_class(name: &str, value: i64, description: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    })
}

/// Records the date since which the use of secret-based tokens has been tracked. Replaces an invalid date with the
/// current date.
async fn token_tracking(resources: &Resources) -> Result<(), Status> {
    const DATE: usize = "2006-01-02".len();
    let today: String = time::now().rfc3339().chars().take(DATE).collect();
    let is_date =
        |since: &str| since.len() == DATE && time::Timestamp::parse(&format!("{since}T00:00:00Z")).is_some();
    let config_map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": today},
    });
    ensure(resources, core("configmaps"), "kube-system", config_map, &|stored| {
        let since = meta::str_at(stored.as_value(), &["data", "since"]).unwrap_or_default();
        (!is_date(since)).then(|| with_field(stored, "data", json!({"since": today})))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nave_machinery::Reason;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_some_time_for_the_store() {
        let unknown = || Status::failure(504, Reason::Timeout, "the outcome of the write is unknown");
        let refused = || Status::failure(500, Reason::InternalError, "refused");
        let unavailable = || Status::service_unavailable("no server");
        for (failures, failure, expected) in [
            (0, unknown(), Ok(())),
            (5, unknown(), Ok(())),
            (5, unavailable(), Ok(())),
            (1, refused(), Err(500)),
            (usize::MAX, unavailable(), Err(503)),
        ] {
            let (attempts, started) = (Cell::new(0), Instant::now());
            let outcome = until_stored(|| {
                attempts.set(attempts.get() + 1);
                std::future::ready(if attempts.get() > failures { Ok(()) } else { Err(failure.clone()) })
            });
            assert_eq!(outcome.await.map_err(|status| status.code), expected, "{failures} {failure:?}");
            assert!(started.elapsed() < PATIENCE * 2);
            assert_eq!(attempts.get() > 2, failures > 2, "{failures} {failure:?}");
        }
    }
}
