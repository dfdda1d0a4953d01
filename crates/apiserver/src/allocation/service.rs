//! The fields of a service that the allocator reads.

use std::net::IpAddr;

use nave_machinery::{Map, Value, meta};
use serde::{Deserialize, Deserializer};

/// The addresses and ports that are allocated to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allocations {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
}

/// The namespace and name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Allocations {
    /// Reads the allocations of a service. Ignores addresses and ports that the service's type does not have, and
    /// invalid entries.
    ///
    /// # Errors
    /// The service has the wrong structure.
    pub(super) fn from_service<'de, D: Deserializer<'de>>(service: D) -> Result<Self, D::Error> {
        let spec = ServiceView::deserialize(service)?.spec;
        let mut allocations = Self::default();
        if spec.kind != "ExternalName" {
            // Headless services have the string `None` instead of an address.
            let texts = spec.cluster_ips.iter().filter_map(Value::as_str);
            allocations.addresses.extend(texts.filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        let mut numbers = Vec::new();
        if matches!(&*spec.kind, "NodePort" | "LoadBalancer") {
            numbers.extend(spec.ports.iter().filter_map(|port| port.get("nodePort")));
        }
        if spec.kind == "LoadBalancer" && spec.external_traffic_policy == "Local" {
            numbers.push(&spec.health_check_node_port);
        }
        for number in numbers.into_iter().filter_map(|number| u16::try_from(number.as_u64()?).ok()) {
            // Ports with different protocols may share a node port.
            if number != 0 && !allocations.ports.contains(&number) {
                allocations.ports.push(number);
            }
        }
        Ok(allocations)
    }

    /// Removes the allocations that `others` also has.
    pub(super) fn without(mut self, others: &Self) -> Self {
        self.addresses.retain(|address| !others.addresses.contains(address));
        self.ports.retain(|port| !others.ports.contains(port));
        self
    }
}

impl ServiceName {
    pub(super) fn from_service(service: &Value) -> Self {
        Self { namespace: meta::namespace(service).to_owned(), name: meta::name(service).to_owned() }
    }
}

#[derive(Deserialize)]
struct ServiceView {
    #[serde(default)]
    spec: SpecView,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecView {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default, rename = "clusterIPs", deserialize_with = "null_is_empty")]
    cluster_ips: Vec<Value>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<Value>,
    #[serde(default)]
    external_traffic_policy: String,
    #[serde(default)]
    health_check_node_port: Value,
}

pub(super) fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// Returns a string field of a service's spec, or an empty string.
pub(super) fn text<'a>(spec: &'a Map, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the strings of a list in a service's spec.
pub(super) fn texts(spec: &Map, field: &str) -> Vec<String> {
    let list = spec.get(field).and_then(Value::as_array).into_iter().flatten();
    list.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// Returns whether the service is headless.
pub(super) fn is_headless(spec: &Map) -> bool {
    text(spec, "clusterIP") == "None"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_the_type_of_service_has() {
        let spec = |kind: &str| {
            json!({"spec": {"type": kind, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ports": [{"port": 80, "nodePort": 30000}, {"port": 80, "nodePort": 30000, "protocol": "UDP"},
                    {"port": 81}, {"port": 82, "nodePort": 100_000}, {"port": 83, "nodePort": -5}],
                "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}})
        };
        let both = ["10.0.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap());
        for (kind, addresses, ports) in [
            ("ClusterIP", &both[..], &[][..]),
            ("NodePort", &both, &[30000]),
            ("LoadBalancer", &both, &[30000, 30001]),
            ("ExternalName", &[], &[]),
        ] {
            let read = Allocations::from_service(&spec(kind)).unwrap();
            assert_eq!((&*read.addresses, &*read.ports), (addresses, ports), "{kind}");
        }
        for empty in
            [json!({}), json!({"spec": {}}), json!({"spec": {"clusterIPs": ["None"], "ports": null}})]
        {
            assert_eq!(Allocations::from_service(&empty).unwrap(), Allocations::default(), "{empty}");
        }
    }
}
