//! The `kubernetes` service in the `default` namespace, its endpoints and its endpoint slice with the addresses of all
//! servers that share the store (upstream: `controller/kubernetesservice` and `reconcilers`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nave_machinery::{GroupVersionResource, Status, Value, meta};
use serde_json::json;
use tokio::time::sleep;

use super::ensure::{core, ensure, with_field};
use super::server_addresses;
use crate::endpoints::Resources;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// Label that disables mirroring of the endpoints, because the server creates their slice.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Number of attempts to create the service while its address is allocated.
const START_ATTEMPTS: u32 = 50;
const START_PAUSE: Duration = Duration::from_millis(100);

/// The `kubernetes` service, which pods use to reach the API.
pub(super) struct KubernetesService {
    /// The cluster IP.
    pub(super) address: IpAddr,
    /// The address of this server in the endpoints.
    pub(super) advertise: SocketAddr,
    /// The node port of the service; `None` for a service with a cluster IP only.
    pub(super) node_port: Option<u16>,
    /// True if the server keeps the endpoints (`--endpoint-reconciler-type`).
    pub(super) reconciles_endpoints: bool,
}

impl KubernetesService {
    /// Creates or corrects the service at start. Waits for another server that starts at the same time: it allocates the
    /// address before it creates the service.
    pub(super) async fn start(&self, resources: &Resources) -> Result<(), Status> {
        for _ in 0..START_ATTEMPTS {
            match self.repair(resources).await {
                Err(status) if status.code == 422 => sleep(START_PAUSE).await,
                outcome => return outcome,
            }
        }
        self.repair(resources).await
    }

    /// Corrects the ports and the type of the service at start, as upstream.
    async fn repair(&self, resources: &Resources) -> Result<(), Status> {
        let wanted = self.service();
        let spec = wanted["spec"].clone();
        ensure(resources, core("services"), NAMESPACE, wanted, &|stored| {
            let mut changed = stored.as_value()["spec"].clone();
            for field in ["ports", "type"] {
                changed[field] = spec[field].clone();
            }
            (changed != stored.as_value()["spec"]).then(|| with_field(stored, "spec", changed))
        })
        .await
    }

    /// Creates the service if it is missing, renews the address of this server, and writes the addresses of all servers
    /// into the endpoints and the slice.
    pub(super) async fn reconcile(&self, resources: &Resources) -> Result<(), Status> {
        ensure(resources, core("services"), NAMESPACE, self.service(), &|_| None).await?;
        if !self.publishes_address() {
            return Ok(());
        }
        server_addresses::renew(resources, self.advertise.ip()).await?;
        self.publish(resources).await
    }

    /// Returns whether the endpoints contain the address of this server. Loopback addresses are invalid in endpoints and
    /// unusable on other hosts.
    fn publishes_address(&self) -> bool {
        self.reconciles_endpoints && !self.advertise.ip().is_loopback()
    }

    /// Removes this server from the endpoints and the slice.
    pub(super) async fn withdraw(&self, resources: &Resources) -> Result<(), Status> {
        if !self.publishes_address() {
            return Ok(());
        }
        server_addresses::remove(resources, self.advertise.ip()).await?;
        self.publish(resources).await
    }

    /// Writes the addresses of all servers into the endpoints and the slice.
    async fn publish(&self, resources: &Resources) -> Result<(), Status> {
        let addresses = server_addresses::list(resources, self.advertise.ip()).await?;
        // Clients need an address even if it may not answer.
        if addresses.is_empty() {
            return Ok(());
        }
        let endpoints = self.endpoints(&addresses);
        let subsets = endpoints["subsets"].clone();
        ensure(resources, core("endpoints"), NAMESPACE, endpoints, &|stored| {
            let object = stored.as_value();
            if meta::label(object, SKIP_MIRROR) == Some("true") && object["subsets"] == subsets {
                return None;
            }
            let mut changed = with_field(stored, "subsets", subsets.clone());
            let mut labels = meta::labels(object).cloned().unwrap_or_default();
            labels.insert(SKIP_MIRROR.to_owned(), json!("true"));
            meta::set(&mut changed, "labels", labels.into());
            Some(changed)
        })
        .await?;
        let slice = self.endpoint_slice(&addresses);
        let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
        let required = slice.clone();
        ensure(resources, slices, NAMESPACE, slice, &|stored| {
            let object = stored.as_value();
            let labels = meta::labels(object).cloned().unwrap_or_default();
            let is_right = ["endpoints", "ports"].iter().all(|field| object[*field] == required[*field])
                && Value::from(labels) == required["metadata"]["labels"];
            (!is_right).then(|| {
                let mut changed = with_field(stored, "endpoints", required["endpoints"].clone());
                changed["ports"] = required["ports"].clone();
                meta::set(&mut changed, "labels", required["metadata"]["labels"].clone());
                changed
            })
        })
        .await
    }

    fn service(&self) -> Value {
        let mut port =
            json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.advertise.port()});
        if let Some(node_port) = self.node_port {
            port["nodePort"] = node_port.into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": self.address.to_string(),
                "ipFamilyPolicy": "SingleStack",
                "ports": [port],
                "sessionAffinity": "None",
                "type": if self.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            },
        })
    }

    fn endpoints(&self, addresses: &[String]) -> Value {
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {SKIP_MIRROR: "true"}},
            "subsets": [{
                "addresses": addresses,
                "ports": [{"name": "https", "port": self.advertise.port(), "protocol": "TCP"}],
            }],
        })
    }

    fn endpoint_slice(&self, addresses: &[String]) -> Value {
        let endpoint = |address| json!({"addresses": [address], "conditions": {"ready": true}});
        let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": NAME},
            },
            "addressType": if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": endpoints,
            "ports": [{"name": "https", "port": self.advertise.port(), "protocol": "TCP"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_a_node_port_if_one_is_given() {
        for (node_port, kind) in [(None, "ClusterIP"), (Some(30443), "NodePort")] {
            let service = KubernetesService {
                address: IpAddr::from([10, 0, 0, 1]),
                advertise: SocketAddr::from(([192, 0, 2, 1], 6443)),
                node_port,
                reconciles_endpoints: true,
            };
            let spec = &service.service()["spec"];
            assert_eq!(spec["type"], kind);
            assert_eq!(spec["ports"][0].get("nodePort"), node_port.map(Value::from).as_ref());
        }
    }
}
