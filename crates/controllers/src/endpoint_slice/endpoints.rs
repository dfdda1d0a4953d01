//! Pods as endpoints of services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// Label of a node: its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// An IP family, named as in slices and services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address types of a service's slices. A service without `ipFamilies` has the family of its cluster IP.
    pub(crate) fn of_service(service: &Service) -> Vec<Self> {
        let Some(spec) = &service.spec else { return vec![Self::V4] };
        let families: Vec<_> =
            spec.ip_families.iter().flatten().filter_map(|family| Self::parse(family)).collect();
        if !families.is_empty() {
            return families;
        }
        match spec.cluster_ip.as_deref() {
            Some(ip) if ip.contains(':') => vec![Self::V6],
            _ => vec![Self::V4],
        }
    }

    /// The name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.as_str() == text)
    }

    fn contains(self, address: &str) -> bool {
        address.contains(':') == (self == Self::V6)
    }
}

/// The selector of a service; `None` if the service has no selector or is an `ExternalName`.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    spec.selector.as_ref().filter(|_| spec.type_.as_deref() != Some("ExternalName"))
}

/// Returns whether a pod can be an endpoint: it has an address and is not terminal.
pub(crate) fn is_eligible(pod: &Pod) -> bool {
    !pods::is_terminal(pod) && ips(pod).next().is_some()
}

/// The endpoint of a pod; `None` if it has no address of the family.
pub(crate) fn endpoint(
    pod: &Pod,
    node: Option<&Node>,
    service: &Service,
    family: Family,
) -> Option<Endpoint> {
    let addresses: Vec<String> = ips(pod).filter(|ip| family.contains(ip)).map(str::to_owned).collect();
    if addresses.is_empty() {
        return None;
    }
    let publishes_all = publishes_not_ready(service);
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned());
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: pods::node_name(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    })
}

/// Returns whether the service publishes pods that are not ready.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// Resolves the ports of a service for a pod, sorted. Omits ports that the pod does not have.
pub(crate) fn ports(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let wanted = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |wanted: &ServicePort| {
        Some(EndpointPort {
            name: Some(wanted.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, wanted)?),
            protocol: Some(protocol(wanted).to_owned()),
            app_protocol: wanted.app_protocol.clone(),
        })
    };
    let mut ports: Vec<_> = wanted.filter_map(port).collect();
    ports.sort_by(|a, b| (&a.name, &a.protocol, a.port).cmp(&(&b.name, &b.protocol, b.port)));
    ports
}

/// The pod's port number for a service port.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => return Some(*number),
        None | Some(IntOrString::Int(_)) => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    // Sidecar containers also serve traffic.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|candidate| {
            candidate.name.as_ref() == Some(name)
                && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port)
        })
        .map(|found| found.container_port)
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The host name of a pod in the DNS records of a headless service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here =
        spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|name| here && !name.is_empty())
}

fn ips(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref()).filter(|ips| !ips.is_empty());
    let one = status.and_then(|status| status.pod_ip.as_deref()).filter(|ip| all.is_none() && !ip.is_empty());
    all.into_iter().flatten().map(|ip| ip.ip.as_str()).chain(one)
}

/// The labels of a service's slices.
pub(crate) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !super::OWN_LABELS.contains(&key.as_str()));
    if is_headless(service) {
        labels.insert(super::HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(super::SERVICE_LABEL.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(super::MANAGED_BY_LABEL.to_owned(), super::MANAGER.to_owned());
    labels
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": "u"},
            "spec": {"nodeName": "node", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}
            ]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}]}
        });
        merge(&mut pod, change);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(into: &mut Value, change: Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                for (key, value) in change {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, change) => *into = change,
        }
    }

    fn service(spec: &Value) -> Service {
        let service =
            json!({"metadata": {"name": "svc", "namespace": "ns", "labels": {"a": "b"}}, "spec": spec});
        serde_json::from_value(service).unwrap()
    }

    #[test]
    fn conditions_depend_on_readiness_and_deletion() {
        let plain = service(&json!({}));
        let publishes = service(&json!({"publishNotReadyAddresses": true}));
        let not_ready = json!({"status": {"conditions": []}});
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let cases = [
            (json!({}), &plain, (true, true, false)),
            (not_ready.clone(), &plain, (false, false, false)),
            (deleting.clone(), &plain, (false, true, true)),
            (not_ready, &publishes, (true, false, false)),
            (deleting, &publishes, (true, true, true)),
        ];
        for (change, service, (ready, serving, terminating)) in cases {
            let found = endpoint(&pod(change.clone()), None, service, Family::V4).unwrap();
            let wanted = EndpointConditions {
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
            };
            assert_eq!(found.conditions, Some(wanted), "{change}");
        }
    }

    #[test]
    fn endpoint_has_node_zone_and_hostname() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": "z"}}}),
        )
        .unwrap();
        let named = pod(json!({"spec": {"hostname": "a-0", "subdomain": "svc"}}));
        let found = endpoint(&named, Some(&node), &service(&json!({})), Family::V6).unwrap();
        let wanted = json!({
            "addresses": ["fd00::1"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "a-0", "nodeName": "node", "zone": "z",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": "a", "uid": "u"}
        });
        assert_eq!(serde_json::to_value(found).unwrap(), wanted);
        let v4 = pod(json!({"status": {"podIPs": [{"ip": "10.0.0.1"}]}}));
        assert!(endpoint(&v4, None, &service(&json!({})), Family::V6).is_none());
    }

    #[test]
    fn terminal_pods_and_pods_without_address_are_not_eligible() {
        assert!(is_eligible(&pod(json!({}))));
        assert!(is_eligible(&pod(json!({"status": {"podIPs": null}}))));
        assert!(!is_eligible(&pod(json!({"status": {"phase": "Failed"}}))));
        assert!(!is_eligible(&pod(json!({"status": {"podIP": null, "podIPs": null}}))));
    }

    #[test]
    fn resolves_ports_by_number_and_name() {
        let service = service(&json!({"ports": [
            {"name": "z", "port": 80},
            {"name": "y", "port": 80, "targetPort": 9000, "appProtocol": "h2c"},
            {"name": "x", "port": 80, "targetPort": "web"},
            {"name": "w", "port": 53, "targetPort": "dns", "protocol": "UDP"},
            {"name": "v", "port": 53, "targetPort": "dns"}
        ]}));
        let found = serde_json::to_value(ports(&pod(json!({})), &service)).unwrap();
        let wanted = json!([
            {"name": "w", "port": 53, "protocol": "UDP"},
            {"name": "x", "port": 8080, "protocol": "TCP"},
            {"name": "y", "port": 9000, "protocol": "TCP", "appProtocol": "h2c"},
            {"name": "z", "port": 80, "protocol": "TCP"}
        ]);
        assert_eq!(found, wanted);
    }

    #[test]
    fn slices_have_labels_of_the_service_and_their_own() {
        let mut headless = service(&json!({"clusterIP": "None"}));
        headless.metadata.labels = Some(
            [("a", "b"), (super::super::MANAGED_BY_LABEL, "me")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        let wanted = json!({
            "a": "b",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": "svc",
            "service.kubernetes.io/headless": ""
        });
        assert_eq!(serde_json::to_value(labels(&headless)).unwrap(), wanted);
    }

    #[test]
    fn families_default_to_that_of_the_cluster_ip() {
        let families = |spec: Value| Family::of_service(&service(&spec));
        assert_eq!(families(json!({"ipFamilies": ["IPv6", "IPv4"]})), [Family::V6, Family::V4]);
        assert_eq!(families(json!({"clusterIP": "fd00::10"})), [Family::V6]);
        assert_eq!(families(json!({"clusterIP": "None"})), [Family::V4]);
    }
}
