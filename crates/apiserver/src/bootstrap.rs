//! The objects a cluster cannot do without: the system's namespaces, the `kubernetes` service, the roles and bindings
//! without which only `system:masters` could do anything, the priorities of what a cluster needs, and what extension
//! servers are told of authentication.

mod rbac;

use std::net::IpAddr;

use futures_util::future::try_join_all;
use futures_util::try_join;
use nave_machinery::{GroupVersionResource, Status, Value, meta, time};
use serde_json::json;

use crate::cluster_authentication::{self, ClusterAuthentication};
use crate::endpoints::Resources;
use crate::internal::InternalWriter;

/// The system's namespaces.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The priorities of what a cluster needs to work.
const PRIORITY_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// What the bootstrap objects are made from.
pub struct Bootstrap {
    /// The address of the `kubernetes` service.
    pub service_address: IpAddr,
    /// The port behind it.
    pub secure_port: u16,
    /// What extension servers are told of authentication.
    pub cluster_authentication: ClusterAuthentication,
}

impl Bootstrap {
    /// Makes those objects that are not there: those that need nothing of each other side by side, so that the store
    /// can commit them together. `allocation` makes what services need.
    ///
    /// # Errors
    /// What kept an object from being stored.
    pub async fn run(
        &self,
        resources: &Resources,
        allocation: impl Future<Output = Result<(), Status>>,
    ) -> Result<(), Status> {
        let namespaces = NAMESPACES.map(|name| {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            create(resources, core("namespaces"), "", namespace)
        });
        try_join!(try_join_all(namespaces), allocation)?;
        let service = create(resources, core("services"), "default", self.service());
        let told = async {
            match cluster_authentication::publish(resources, &self.cluster_authentication).await {
                // Another server over the same store is at it; it is seen to later.
                Err(status) if status.code == 409 => Ok(()),
                outcome => outcome,
            }
        };
        let tracking = create(resources, core("configmaps"), "kube-system", token_tracking());
        let class = |(name, value)| {
            let classes = GroupVersionResource::new("scheduling.k8s.io", "v1", "priorityclasses");
            create(resources, classes, "", priority_class(name, value))
        };
        let classes = try_join_all(PRIORITY_CLASSES.map(class));
        try_join!(service, rbac::run(resources), told, tracking, classes).map(drop)
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": self.service_address.to_string(),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.secure_port}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        })
    }
}

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

fn priority_class(name: &str, value: i64) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": "PreemptLowerPriority",
    })
}

/// Since when it is noted when a token from a secret is used.
fn token_tracking() -> Value {
    let today = time::now().rfc3339().chars().take("2006-01-02".len()).collect::<String>();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": today},
    })
}

/// Creates an object unless there is one of its name.
async fn create(
    resources: &Resources,
    resource: GroupVersionResource,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let Some(endpoint) = resources.endpoint(&resource) else { return Ok(()) };
    let storage = endpoint.storage()?;
    if storage.find(namespace, meta::name(&object)).is_some() {
        return Ok(());
    }
    let writer = InternalWriter::new(endpoint, resources.admission());
    let stored = match writer.create(namespace, object).await {
        Err(status) if status.code == 409 => return Ok(()),
        outcome => outcome?,
    };
    // The next object may need this one: namespaces come before what is in them.
    let revision = meta::resource_version(&stored).parse().unwrap_or(0);
    storage.wait_until(revision).await
}
