//! Endpoints of services in the legacy API: one `Endpoints` object per service (upstream: `endpoint`).

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use nave_client::{Action, Lister, ObjectName};

use crate::api;
use crate::endpoint_slice::endpoints::{self, Family};
use crate::endpoint_slice::{HEADLESS_LABEL, pods_of, watch_pods};
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The maximum number of addresses in an object.
const MAX_ADDRESSES: usize = 1000;
/// Annotation of an object whose addresses were truncated.
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");
/// Label of the objects that this controller manages.
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

pub(crate) const ENDPOINTS: Descriptor = Descriptor {
    name: "endpoints-controller",
    alias: "endpoint",
    service_account: "endpoint-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-endpoint-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, services) = context.controller_for::<Service>("endpoint");
    let pods = builder.informer::<Pod>();
    let existing = builder.informer::<Endpoints>();
    watch_pods(&mut builder, &services, &pods);
    builder.enqueue_objects(&existing);
    builder.run(EndpointsController {
        client: context.client.clone(),
        services: services.lister(),
        pods: pods.lister(),
        existing: existing.lister(),
    })
}

struct EndpointsController {
    client: kube::Client,
    services: Lister<Service>,
    pods: Lister<Pod>,
    existing: Lister<Endpoints>,
}

impl Reconciler for EndpointsController {
    /// Updates the `Endpoints` of a service.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let objects: Api<Endpoints> = Api::namespaced(self.client.clone(), key.namespace());
        let existing = self.existing.get_by_key(&key);
        let Some(service) = self.services.get_by_key(&key) else {
            // Keeps user-created endpoints when the service is deleted.
            if existing.is_some_and(|existing| existing.label(MANAGED_BY.0) == Some(MANAGED_BY.1)) {
                api::ignore_not_found(objects.delete(key.name(), &DeleteParams::default()).await)?;
            }
            return Ok(Action::Done);
        };
        let service = service.decode()?;
        let Some(selector) = endpoints::selector(&service) else { return Ok(Action::Done) };
        let pods = pods_of(&self.pods, key.namespace(), selector)?;
        let (subsets, complete) = subsets(&pods, &service);
        let Some(existing) = existing.map(|existing| existing.decode()).transpose()? else {
            let new = desired(Endpoints::default(), &service, subsets, complete);
            api::ignore_already_exists(objects.create(&PostParams::default(), &new).await)?;
            return Ok(Action::Done);
        };
        let changed = desired(existing.clone(), &service, subsets, complete);
        if changed != existing {
            objects.replace(key.name(), &PostParams::default(), &changed).await?;
        }
        Ok(Action::Done)
    }
}

/// The object with the metadata and subsets of its service. Keeps other metadata.
fn desired(
    mut object: Endpoints,
    service: &Service,
    subsets: Vec<EndpointSubset>,
    complete: bool,
) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let mut annotations = object.metadata.annotations.take().unwrap_or_default();
    if complete {
        annotations.remove(OVER_CAPACITY.0);
    } else {
        annotations.insert(OVER_CAPACITY.0.to_owned(), OVER_CAPACITY.1.to_owned());
    }
    object.metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..object.metadata
    };
    object.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    object
}

/// Groups the addresses of pods by port set. Returns the subsets, and whether they hold all addresses.
fn subsets(pods: &[Pod], service: &Service) -> (Vec<EndpointSubset>, bool) {
    let family = Family::of_service(service).first().copied().unwrap_or(Family::V4);
    let publishes_all = endpoints::publishes_not_ready(service);
    let headless = service.spec.as_ref().is_some_and(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| publishes_all || pod.metadata.deletion_timestamp.is_none()) {
        let Some(endpoint) = endpoints::endpoint(pod, None, service, family) else { continue };
        let ports: Vec<_> = endpoints::ports(pod, service).into_iter().filter_map(port).collect();
        if ports.is_empty() && !headless {
            continue;
        }
        let ready = endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true));
        let subset = by_ports.entry(format!("{ports:?}")).or_default();
        subset.ports = Some(ports).filter(|ports| !ports.is_empty());
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().extend(address(endpoint));
    }
    let mut subsets: Vec<_> = by_ports.into_values().collect();
    let (mut remaining, mut complete) = (MAX_ADDRESSES, true);
    // Ready addresses take precedence when the limit is reached.
    let take_list = |subset: &mut EndpointSubset, ready: bool| {
        if ready { subset.addresses.take() } else { subset.not_ready_addresses.take() }
    };
    for ready in [true, false] {
        for subset in &mut subsets {
            let Some(mut list) = take_list(subset, ready) else { continue };
            list.sort_by(|a, b| key(a).cmp(&key(b)));
            complete &= list.len() <= remaining;
            list.truncate(remaining);
            remaining -= list.len();
            let list = Some(list).filter(|list| !list.is_empty());
            if ready {
                subset.addresses = list;
            } else {
                subset.not_ready_addresses = list;
            }
        }
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, complete)
}

fn address(endpoint: Endpoint) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: endpoint.addresses.into_iter().next()?,
        hostname: endpoint.hostname,
        node_name: endpoint.node_name,
        target_ref: endpoint.target_ref,
    })
}

fn port(port: k8s_openapi::api::discovery::v1::EndpointPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        port: port.port?,
        name: port.name.filter(|name| !name.is_empty()),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    })
}

fn key(address: &EndpointAddress) -> (&str, Option<&str>) {
    (&address.ip, address.target_ref.as_ref().and_then(|target| target.uid.as_deref()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(change: &[(&str, Value)]) -> Service {
        let mut service = json!({"metadata": {"name": "svc", "namespace": "ns", "labels": {"a": "b"}},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        for (field, value) in change {
            service["spec"][field] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn pod(at: usize, ready: bool) -> Pod {
        let ready = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{at}"), "namespace": "ns", "uid": format!("u{at}")},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", at / 250, at % 250),
                "conditions": [{"type": "Ready", "status": ready}]}
        }))
        .unwrap()
    }

    #[test]
    fn sorts_pods_into_ready_and_not_ready_addresses() {
        let mut leaving = pod(3, true);
        leaving.metadata =
            serde_json::from_value(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})).unwrap();
        let (existing, complete) =
            subsets(&[pod(2, true), pod(1, true), pod(4, false), leaving], &service(&[]));
        let address = |at: usize| {
            json!({"ip": format!("10.0.0.{at}"), "nodeName": "n",
                "targetRef": {"kind": "Pod", "namespace": "ns", "name": format!("p{at}"), "uid": format!("u{at}")}})
        };
        let desired = json!([{"addresses": [address(1), address(2)], "notReadyAddresses": [address(4)],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}]);
        assert_eq!((serde_json::to_value(existing).unwrap(), complete), (desired, true));
        let (existing, _) = subsets(&[pod(1, false)], &service(&[("publishNotReadyAddresses", json!(true))]));
        assert!(existing[0].addresses.is_some() && existing[0].not_ready_addresses.is_none());
    }

    #[test]
    fn headless_service_needs_no_ports() {
        let (existing, _) =
            subsets(&[pod(1, true)], &service(&[("ports", json!([])), ("clusterIP", json!("None"))]));
        assert!(existing[0].ports.is_none() && existing[0].addresses.as_ref().unwrap().len() == 1);
    }

    #[test]
    fn keeps_ready_addresses_when_truncating() {
        let pods: Vec<_> = (0..MAX_ADDRESSES + 10).map(|at| pod(at, at >= 20)).collect();
        let (existing, complete) = subsets(&pods, &service(&[]));
        assert!(!complete);
        let lengths = [&existing[0].addresses, &existing[0].not_ready_addresses]
            .map(|list| list.as_ref().unwrap().len());
        assert_eq!(lengths, [MAX_ADDRESSES - 10, 10]);
        let object = desired(Endpoints::default(), &service(&[]), existing, complete);
        assert_eq!(
            object.metadata.annotations.as_ref().unwrap()["endpoints.kubernetes.io/over-capacity"],
            "truncated"
        );
        let object = desired(object, &service(&[]), Vec::new(), true);
        assert!(object.metadata.annotations.is_none() && object.subsets.is_none());
    }

    #[test]
    fn unchanged_endpoints_are_not_written() {
        let (existing, complete) = subsets(&[pod(1, true)], &service(&[]));
        let object = desired(Endpoints::default(), &service(&[]), existing.clone(), complete);
        assert_eq!(desired(object.clone(), &service(&[]), existing, complete), object);
        assert_eq!(object.metadata.labels.unwrap().len(), 2);
    }
}
