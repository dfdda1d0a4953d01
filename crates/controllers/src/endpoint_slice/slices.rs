//! Plans the changes of a service's slices, with as few writes as possible.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpoints::{self, Family};
use crate::owners;

/// The maximum number of endpoints in a slice: kube-controller-manager's default of `--max-endpoints-per-slice`.
const MAX_ENDPOINTS: usize = 100;

/// The writes that update the slices of one address type.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    /// Changed slices.
    pub(super) update: Vec<EndpointSlice>,
    /// Empty slices.
    pub(super) delete: Vec<EndpointSlice>,
}

/// Plans the slices of one address type. `desired` are the endpoints, each with its ports.
pub(super) fn plan(
    service: &Service,
    family: Family,
    existing: &[EndpointSlice],
    desired: Vec<(Vec<EndpointPort>, Endpoint)>,
) -> Plan {
    let mut groups = Groups::new();
    for (ports, endpoint) in desired {
        groups.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new(), Vec::new())).1.push(endpoint);
    }
    let mut plan = Plan::default();
    for slice in existing {
        let ports = slice.ports.as_deref().unwrap_or_default();
        match groups.get_mut(&port_key(ports)) {
            Some((_, _, slices)) => slices.push(slice.clone()),
            None => plan.delete.push(slice.clone()),
        }
    }
    let wanted = endpoints::labels(service);
    for (ports, endpoints, slices) in groups.into_values() {
        plan.group(service, family, &wanted, &ports, endpoints, slices);
    }
    if plan.create.is_empty() && plan.delete.len() == existing.len() {
        plan.keep_placeholder(service, family);
    }
    plan.reuse(service);
    plan
}

/// By encoded ports: the ports, the desired endpoints, and the existing slices.
type Groups = BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>, Vec<EndpointSlice>)>;

impl Plan {
    /// Plans the slices with the same ports.
    fn group(
        &mut self,
        service: &Service,
        family: Family,
        labels: &BTreeMap<String, String>,
        ports: &[EndpointPort],
        endpoints: Vec<Endpoint>,
        slices: Vec<EndpointSlice>,
    ) {
        let mut missing: BTreeMap<_, _> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
        for mut slice in slices {
            let had = slice.endpoints.take().unwrap_or_default();
            let kept: Vec<_> =
                had.iter().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
            let same = kept == had;
            slice.endpoints = Some(kept);
            if endpoint_count(&slice) == 0 && !same {
                self.delete.push(slice);
            } else if !same || slice.metadata.labels.as_ref() != Some(labels) {
                slice.metadata.labels = Some(labels.clone());
                changed.push(slice);
            } else {
                unchanged.push(slice);
            }
        }
        let mut missing: VecDeque<_> = missing.into_values().collect();
        changed.sort_by_key(|slice: &EndpointSlice| std::cmp::Reverse(endpoint_count(slice)));
        for slice in &mut changed {
            fill(slice, &mut missing);
        }
        self.update.append(&mut changed);
        while !missing.is_empty() {
            if let Some(at) = fullest_with_room(&unchanged, missing.len()) {
                let mut slice = unchanged.swap_remove(at);
                fill(&mut slice, &mut missing);
                self.update.push(slice);
            } else {
                let mut slice = empty_slice(service, family, labels.clone(), ports.to_vec());
                fill(&mut slice, &mut missing);
                self.create.push(slice);
            }
        }
    }

    /// A service without endpoints has one empty slice.
    fn keep_placeholder(&mut self, service: &Service, family: Family) {
        let placeholder = empty_slice(service, family, endpoints::labels(service), Vec::new());
        let is_placeholder = |slice: &EndpointSlice| {
            endpoint_count(slice) == 0
                && slice.ports.as_ref().is_none_or(Vec::is_empty)
                && slice.metadata.labels == placeholder.metadata.labels
        };
        match self.delete.as_slice() {
            [only] if is_placeholder(only) => self.delete.clear(),
            _ => self.create.push(placeholder),
        }
    }

    /// Replaces each pair of a deletion and a creation with an update.
    fn reuse(&mut self, service: &Service) {
        let owned = |slice: &EndpointSlice| owners::is_controlled_by(&slice.metadata, &service.metadata);
        while let Some(at) = self.delete.iter().position(owned)
            && let Some(new) = self.create.pop()
        {
            let mut slice = self.delete.remove(at);
            slice.endpoints = new.endpoints;
            slice.ports = new.ports;
            slice.metadata.labels = new.metadata.labels;
            self.update.push(slice);
        }
    }
}

fn fill(slice: &mut EndpointSlice, missing: &mut VecDeque<Endpoint>) {
    let room = MAX_ENDPOINTS.saturating_sub(endpoint_count(slice)).min(missing.len());
    slice.endpoints.get_or_insert_default().extend(missing.drain(..room));
}

fn endpoint_count(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

/// The fullest slice that can take `count` more endpoints.
fn fullest_with_room(slices: &[EndpointSlice], count: usize) -> Option<usize> {
    let fits = slices.iter().enumerate().filter(|(_, slice)| endpoint_count(slice) + count <= MAX_ENDPOINTS);
    fits.max_by_key(|(_, slice)| endpoint_count(slice)).map(|(at, _)| at)
}

fn empty_slice(
    service: &Service,
    family: Family,
    labels: BTreeMap<String, String>,
    ports: Vec<EndpointPort>,
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        endpoints: Some(Vec::new()),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owners::controller_reference("v1", "Service", &service.metadata)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}

/// The identity of an endpoint across updates.
pub(super) fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    (addresses, endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

pub(super) fn port_key(ports: &[EndpointPort]) -> String {
    let key = |port: &EndpointPort| {
        format!(
            "{:?}{:?}{:?}{:?}",
            port.name.as_deref().unwrap_or_default(),
            port.protocol,
            port.port,
            port.app_protocol
        )
    };
    let mut keys: Vec<_> = ports.iter().map(key).collect();
    keys.sort();
    keys.concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn service() -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "svc", "namespace": "ns", "uid": "s"}, "spec": {}}),
        )
        .unwrap()
    }

    fn endpoint(at: u32, ready: bool) -> Endpoint {
        serde_json::from_value(json!({
            "addresses": [format!("10.0.{}.{}", at / 250, at % 250)],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": format!("p{at}"), "uid": format!("u{at}")}
        }))
        .unwrap()
    }

    fn port(number: i32) -> Vec<EndpointPort> {
        vec![EndpointPort { port: Some(number), ..EndpointPort::default() }]
    }

    /// The slices after applying a plan; new slices get a name.
    fn apply(mut slices: Vec<EndpointSlice>, plan: &Plan, names: &mut u32) -> Vec<EndpointSlice> {
        for slice in &plan.update {
            let old = slices.iter_mut().find(|old| old.metadata.name == slice.metadata.name).unwrap();
            *old = slice.clone();
        }
        slices.retain(|slice| !plan.delete.iter().any(|gone| gone.metadata.name == slice.metadata.name));
        for slice in &plan.create {
            *names += 1;
            let mut slice = slice.clone();
            slice.metadata.name = Some(format!("svc-{names}"));
            slices.push(slice);
        }
        slices
    }

    fn after(
        slices: Vec<EndpointSlice>,
        desired: Vec<(Vec<EndpointPort>, Endpoint)>,
    ) -> (Plan, Vec<EndpointSlice>) {
        let plan = plan(&service(), Family::V4, &slices, desired);
        let slices = apply(slices, &plan, &mut 0);
        (plan, slices)
    }

    #[test]
    fn service_without_pods_has_one_empty_slice() {
        let (plan, slices) = after(Vec::new(), Vec::new());
        assert_eq!((plan.create.len(), endpoint_count(&slices[0])), (1, 0));
        assert_eq!(slices[0].metadata.generate_name.as_deref(), Some("svc-"));
        assert_eq!(slices[0].metadata.owner_references.as_ref().unwrap()[0].kind, "Service");
        let (plan, slices) = after(slices, Vec::new());
        assert_eq!(plan, Plan::default());
        let (plan, slices) = after(slices, vec![(port(80), endpoint(1, true))]);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        let (plan, slices) = after(slices, Vec::new());
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        assert!(endpoint_count(&slices[0]) == 0 && slices[0].ports.as_ref().unwrap().is_empty());
    }

    #[test]
    fn one_changed_pod_is_one_write() {
        let desired =
            |ready| (0..250).map(|at| (port(80), endpoint(at, at != 7 || ready))).collect::<Vec<_>>();
        let (plan, slices) = after(Vec::new(), desired(true));
        assert_eq!(plan.create.len(), 3);
        let (plan, slices) = after(slices, desired(false));
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        let (plan, slices) = after(slices, desired(false).into_iter().skip(1).collect());
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        let mut more = desired(false);
        more.push((port(80), endpoint(300, true)));
        let (plan, slices) = after(slices, more);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        assert_eq!(slices.iter().map(endpoint_count).sum::<usize>(), 251);
    }

    #[test]
    fn pods_with_different_ports_are_in_different_slices() {
        let desired = vec![(port(80), endpoint(1, true)), (port(81), endpoint(2, true))];
        let (_, slices) = after(Vec::new(), desired);
        assert_eq!(slices.len(), 2);
    }

    proptest! {
        /// For any previous slices, the result has each endpoint once, with its ports, and planning again yields no
        /// writes.
        #[test]
        fn slices_have_the_desired_endpoints(
            rounds in proptest::collection::vec(
                proptest::collection::btree_map(0u32..400, (any::<bool>(), 80i32..82), 0..400), 1..5),
        ) {
            let (mut slices, mut names) = (Vec::new(), 0);
            for round in rounds {
                let desired: Vec<_> =
                    round.iter().map(|(at, (ready, number))| (port(*number), endpoint(*at, *ready))).collect();
                let first = plan(&service(), Family::V4, &slices, desired.clone());
                slices = apply(slices, &first, &mut names);
                prop_assert_eq!(plan(&service(), Family::V4, &slices, desired.clone()), Plan::default());
                let mut found: Vec<_> = slices
                    .iter()
                    .flat_map(|slice| slice.endpoints.iter().flatten().map(|it| (slice.ports.clone().unwrap(), it.clone())))
                    .map(|it| format!("{it:?}"))
                    .collect();
                let mut wanted: Vec<_> = desired.iter().map(|it| format!("{it:?}")).collect();
                found.sort();
                wanted.sort();
                prop_assert_eq!(found, wanted);
                prop_assert!(slices.iter().all(|slice| endpoint_count(slice) <= MAX_ENDPOINTS));
                prop_assert!(!slices.is_empty());
            }
        }
    }
}
