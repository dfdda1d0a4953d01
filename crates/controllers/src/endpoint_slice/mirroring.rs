//! Mirrors the `Endpoints` of services without a selector into slices (upstream: `endpointslicemirroring`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nave_client::{Action, Lister, Object, ObjectName};

use super::endpoints::Family;
use super::slices::{Plan, identity, port_key};
use super::writer::SliceWriter;
use super::{MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::owners::{controller_reference, is_controlled_by};

/// The value of the label that marks this controller's slices.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of `Endpoints` that are not mirrored.
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of `Endpoints` used as a leader election lock, which are not mirrored.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not copied to slices.
const SKIPPED_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// The maximum number of mirrored addresses per subset: kube-controller-manager's default of
/// `--mirroring-max-endpoints-per-subset`.
const MAX_ADDRESSES: usize = 1000;

pub(crate) const ENDPOINT_SLICE_MIRRORING: Descriptor = Descriptor {
    name: "endpointslice-mirroring-controller",
    alias: "endpointslicemirroring",
    service_account: "endpointslicemirroring-controller",
    on_by_default: true,
    workers: Workers::by_flag("mirroring-concurrent-service-endpoint-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, endpoints) = context.controller_for::<Endpoints>("endpoint_slice_mirroring");
    let services = builder.informer::<Service>();
    let slices = builder.informer::<EndpointSlice>();
    // A service and its endpoints have the same name.
    builder.enqueue_mapped(&services, |service| Some(service.key()));
    let writer = SliceWriter::new(context.client.clone(), &slices, MANAGER);
    builder.add_handler(&slices, writer.handler(builder.queue()));
    builder.run(Mirroring {
        events: context.events.with_component("endpoint-slice-mirroring-controller"),
        endpoints: endpoints.lister(),
        services: services.lister(),
        writer,
    })
}

struct Mirroring {
    events: EventRecorder,
    endpoints: Lister<Endpoints>,
    services: Lister<Service>,
    writer: SliceWriter,
}

impl Reconciler for Mirroring {
    /// Updates the slices of an `Endpoints` object; deletes them if it is not mirrored.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        if let Some(wait) = self.writer.wait(&key) {
            return Ok(Action::RequeueAfter(wait));
        }
        let service = self.services.get_by_key(&key);
        let without_selector =
            service.is_some_and(|service| service.json_at(&["spec", "selector"]).is_none());
        let cached = self.endpoints.get_by_key(&key).filter(|it| without_selector && is_mirrored(it));
        let existing = self.writer.slices_of(&key)?;
        let Some(cached) = cached else {
            self.writer.apply(&key, Plan { delete: existing, ..Plan::default() }).await?;
            self.writer.forget(&key);
            return Ok(Action::Done);
        };
        let endpoints = cached.decode()?;
        let desired = Desired::from_endpoints(&endpoints);
        self.record(&endpoints, &desired);
        let mut plan = plan(&endpoints, existing, desired);
        if cached.is_being_deleted() {
            plan.create.clear();
        }
        self.writer.apply(&key, plan).await?;
        Ok(Action::Done)
    }
}

impl Mirroring {
    fn record(&self, endpoints: &Endpoints, desired: &Desired) {
        let warn = |reason, message: &str| {
            self.events.record(&reference_of(endpoints), EventKind::Warning, reason, message);
        };
        if desired.invalid > 0 {
            let count = desired.invalid;
            let message = format!("Skipped {count} invalid IP addresses when mirroring to EndpointSlices");
            warn("InvalidIPAddress", &message);
        }
        if desired.skipped > desired.invalid {
            let count = desired.skipped;
            let message = format!(
                "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                 {count} addresses were skipped"
            );
            warn("TooManyAddressesToMirror", &message);
        }
    }
}

fn is_mirrored(endpoints: &Object<Endpoints>) -> bool {
    endpoints.label(SKIP_LABEL) != Some("true") && endpoints.annotation(LEADER_ANNOTATION).is_none()
}

/// The desired endpoints by address family and ports.
#[derive(Debug, Default)]
struct Desired {
    groups: BTreeMap<Group, (Vec<EndpointPort>, BTreeMap<Identity, Endpoint>)>,
    /// The number of invalid addresses.
    invalid: usize,
    /// The number of addresses that are not mirrored, for any reason.
    skipped: usize,
}

/// The address type and the encoded ports of a slice.
type Group = (&'static str, String);
/// The identity of an endpoint across updates.
type Identity = (Vec<String>, Option<String>);

impl Desired {
    fn from_endpoints(endpoints: &Endpoints) -> Self {
        let mut desired = Self::default();
        for subset in endpoints.subsets.iter().flatten() {
            desired.add(subset);
        }
        desired
    }

    fn add(&mut self, subset: &EndpointSubset) {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut added = 0;
        for (address, ready) in ready.chain(unready) {
            if added == MAX_ADDRESSES {
                self.skipped += 1;
            } else if let Some((family, endpoint)) = endpoint(address, ready) {
                let group = (family.as_str(), port_key(&ports));
                let (_, endpoints) =
                    self.groups.entry(group).or_insert_with(|| (ports.clone(), BTreeMap::new()));
                endpoints.insert(identity(&endpoint), endpoint);
                added += 1;
            } else {
                self.invalid += 1;
                self.skipped += 1;
            }
        }
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(Family, Endpoint)> {
    let ip = address.ip.parse::<IpAddr>().ok()?.to_canonical();
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        ..Endpoint::default()
    };
    Some((if ip.is_ipv4() { Family::V4 } else { Family::V6 }, endpoint))
}

/// Plans the writes that result in one slice per address family and set of ports.
fn plan(endpoints: &Endpoints, existing: Vec<EndpointSlice>, desired: Desired) -> Plan {
    let mut plan = Plan::default();
    let mut by_group: BTreeMap<(String, String), Vec<EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        let ports = port_key(slice.ports.as_deref().unwrap_or_default());
        by_group.entry((slice.address_type.clone(), ports)).or_default().push(slice);
    }
    for ((family, key), (ports, held)) in desired.groups {
        let mut slices = by_group.remove(&(family.to_owned(), key)).unwrap_or_default().into_iter();
        let desired_slice = slice(endpoints, family, ports, held.into_values().take(MAX_ADDRESSES).collect());
        match slices.next() {
            Some(first) if is_up_to_date(&first, &desired_slice, endpoints) => {}
            Some(first) => plan.update.push(with_contents_of(first, desired_slice)),
            None => plan.create.push(desired_slice),
        }
        plan.delete.extend(slices);
    }
    plan.delete.extend(by_group.into_values().flatten());
    reuse(&mut plan);
    plan
}

/// Replaces each pair of a deletion and a creation with an update.
fn reuse(plan: &mut Plan) {
    for new in std::mem::take(&mut plan.create) {
        match plan.delete.iter().position(|old| old.address_type == new.address_type) {
            Some(at) => plan.update.push(with_contents_of(plan.delete.remove(at), new)),
            None => plan.create.push(new),
        }
    }
}

/// The existing slice with the contents of the new slice.
fn with_contents_of(old: EndpointSlice, new: EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta {
        name: old.metadata.name,
        generate_name: old.metadata.generate_name,
        uid: old.metadata.uid,
        resource_version: old.metadata.resource_version,
        ..new.metadata
    };
    EndpointSlice { metadata, ..new }
}

fn is_up_to_date(old: &EndpointSlice, new: &EndpointSlice, endpoints: &Endpoints) -> bool {
    let held = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter().flatten();
        endpoints.map(|endpoint| (identity(endpoint), endpoint.clone())).collect::<BTreeMap<_, _>>()
    };
    let annotations = |slice: &EndpointSlice| slice.metadata.annotations.clone().unwrap_or_default();
    old.metadata.labels == new.metadata.labels
        && annotations(old) == annotations(new)
        && is_controlled_by(&old.metadata, &endpoints.metadata)
        && held(old) == held(new)
}

fn slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    held: Vec<Endpoint>,
) -> EndpointSlice {
    let owner = &endpoints.metadata;
    let name = owner.name.clone().unwrap_or_default();
    let mut labels = owner.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    let mut annotations = owner.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !SKIPPED_ANNOTATIONS.contains(&key.as_str()));
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(held),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_reference("v1", "Endpoints", owner)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: &Value) -> Endpoints {
        let annotations = json!({"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let metadata = json!({"name": "ext", "namespace": "ns", "uid": "u", "labels": {"app": "x"},
            "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    }

    /// Applies the plan and checks that planning again yields no writes.
    fn mirrored(endpoints: &Endpoints, existing: Vec<EndpointSlice>) -> Vec<EndpointSlice> {
        let mut slices = existing.clone();
        let plan = plan(endpoints, existing, Desired::from_endpoints(endpoints));
        let gone = |slice: &EndpointSlice, others: &[EndpointSlice]| {
            others.iter().any(|other| other.metadata.name == slice.metadata.name)
        };
        slices.retain(|slice| !gone(slice, &plan.delete) && !gone(slice, &plan.update));
        slices.extend(plan.update);
        for (at, mut slice) in plan.create.into_iter().enumerate() {
            slice.metadata.name = Some(format!("new-{at}"));
            slices.push(slice);
        }
        let again = super::plan(endpoints, slices.clone(), Desired::from_endpoints(endpoints));
        assert_eq!(again, Plan::default());
        slices
    }

    fn addresses(slice: &EndpointSlice) -> Vec<&str> {
        slice.endpoints.iter().flatten().map(|endpoint| endpoint.addresses[0].as_str()).collect()
    }

    #[test]
    fn mirrors_addresses_by_family_and_ports() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "hostname": "h"}, {"ip": "fd00::1"}],
             "notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 443}]},
            {"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 80, "name": "http"}]}
        ]);
        let slices = mirrored(&endpoints(&subsets), vec![]);
        let all: Vec<_> = slices.iter().map(|it| (it.address_type.as_str(), addresses(it))).collect();
        assert_eq!(
            all,
            [
                ("IPv4", vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
                ("IPv4", vec!["10.0.0.9"]),
                ("IPv6", vec!["fd00::1"])
            ]
        );
        let first = &slices[0];
        let ready = |at: usize| first.endpoints.as_ref().unwrap()[at].conditions.as_ref().unwrap().ready;
        assert_eq!((ready(0), ready(2)), (Some(true), Some(false)));
        let labels = first.metadata.labels.as_ref().unwrap();
        assert_eq!((labels["app"].as_str(), labels[SERVICE_LABEL].as_str()), ("x", "ext"));
        assert_eq!(labels[MANAGED_BY_LABEL], MANAGER);
        assert_eq!(first.metadata.annotations.as_ref().unwrap().len(), 1);
        assert_eq!(first.ports.as_ref().unwrap()[0].name.as_deref(), Some(""));
    }

    #[test]
    fn updates_slices_when_endpoints_change() {
        let of = |ip: &str, port: i32| json!([{"addresses": [{"ip": ip}], "ports": [{"port": port}]}]);
        let slices = mirrored(&endpoints(&of("10.0.0.1", 443)), vec![]);
        for (subsets, expected) in [
            (of("10.0.0.2", 443), vec!["10.0.0.2"]),
            // Different ports need a different slice; the existing slice is reused.
            (of("10.0.0.1", 444), vec!["10.0.0.1"]),
        ] {
            let changed = mirrored(&endpoints(&subsets), slices.clone());
            assert_eq!(changed.len(), 1);
            assert_eq!(changed[0].metadata.name, slices[0].metadata.name);
            assert_eq!(addresses(&changed[0]), expected);
        }
        assert_eq!(mirrored(&endpoints(&json!(null)), slices.clone()).len(), 0);

        let mut again = endpoints(&of("10.0.0.1", 443));
        again.metadata.uid = Some("another life".to_owned());
        let changed = mirrored(&again, slices.clone());
        assert!(is_controlled_by(&changed[0].metadata, &again.metadata));
        let mut labelled = endpoints(&of("10.0.0.1", 443));
        labelled.metadata.labels = None;
        assert_eq!(mirrored(&labelled, slices)[0].metadata.labels.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn skips_invalid_and_excess_addresses() {
        let many: Vec<_> =
            (0..1002).map(|at| json!({"ip": format!("10.0.{}.{}", at / 250, at % 250)})).collect();
        let desired =
            Desired::from_endpoints(&endpoints(&json!([{"addresses": many, "ports": [{"port": 1}]}])));
        assert_eq!((desired.skipped, desired.invalid), (2, 0));
        let desired = Desired::from_endpoints(&endpoints(&json!([{"addresses": [{"ip": "nowhere"}]}])));
        assert_eq!((desired.skipped, desired.invalid), (1, 1));
    }

    #[test]
    fn does_not_mirror_locks_and_labeled_endpoints() {
        let is_mirrored =
            |metadata: Value| is_mirrored(&Object::from_value(&json!({"metadata": metadata})).unwrap());
        assert!(is_mirrored(json!({"name": "a"})));
        assert!(!is_mirrored(json!({"name": "a", "labels": {SKIP_LABEL: "true"}})));
        assert!(!is_mirrored(json!({"name": "a", "annotations": {LEADER_ANNOTATION: "{}"}})));
    }
}
