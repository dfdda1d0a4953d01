//! The node ports that a service needs (upstream: `initNodePorts` and `updateNodePorts` in
//! `pkg/registry/core/service/storage`).

use std::collections::HashMap;

use nave_machinery::{FieldPath, Map, Value};

use super::service::text;

/// A port to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A specific port.
    Number(i64),
    /// Any free port.
    Any,
}

/// The ports to claim for a service, with their positions in its spec.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The ports to claim, each with its position in the spec.
    pub(super) wanted: Vec<(Wanted, SpecPosition)>,
    /// Indexes of service ports that share a claimed port, each with the index of that port in `wanted`.
    shared: Vec<(usize, usize)>,
}

/// A position of a port in a service's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpecPosition {
    NodePort(usize),
    HealthCheck,
}

impl SpecPosition {
    pub(super) fn path(self) -> FieldPath {
        let spec = FieldPath::new("spec");
        match self {
            Self::NodePort(index) => spec.child("ports").index(index).child("nodePort"),
            Self::HealthCheck => spec.child("healthCheckNodePort"),
        }
    }
}

impl Plan {
    /// Plans the ports that a service needs in addition to the ports of its old state.
    pub(super) fn new(spec: &Map, old: Option<&Map>) -> Self {
        let mut plan = Self::default();
        if has_node_ports(spec) {
            match old {
                None => plan.add_new(spec),
                Some(old) => plan.add_changed(spec, old),
            }
        }
        if needs_health_check(spec) && !old.is_some_and(needs_health_check) {
            let number = number(spec, "healthCheckNodePort");
            plan.wanted.push((wanted(number), SpecPosition::HealthCheck));
        }
        plan
    }

    /// Writes the claimed ports into the spec. `claimed` has the order of `wanted`.
    pub(super) fn fill(&self, spec: &mut Map, claimed: &[u16]) {
        for ((_, place), port) in self.wanted.iter().zip(claimed) {
            match place {
                SpecPosition::NodePort(index) => set_node_port(spec, *index, *port),
                SpecPosition::HealthCheck => {
                    spec.insert("healthCheckNodePort".to_owned(), (*port).into());
                }
            }
        }
        for (index, position) in &self.shared {
            if let Some(port) = claimed.get(*position) {
                set_node_port(spec, *index, *port);
            }
        }
    }

    /// Plans the ports of a new service. Service ports with the same number, such as DNS over UDP and TCP, share a node
    /// port unless the service requests different ones.
    fn add_new(&mut self, spec: &Map) {
        let allocates = allocates_node_ports(spec);
        let ports: Vec<&Map> = ports(spec).collect();
        let mut requested = HashMap::new();
        for port in ports.iter().filter(|port| number(port, "nodePort") != 0) {
            requested.entry(number(port, "port")).or_insert(number(port, "nodePort"));
        }
        // Maps a service port to the index in `wanted` and to the requested node port, or 0.
        let mut allocated: HashMap<i64, (usize, i64)> = HashMap::new();
        for (index, port) in ports.iter().enumerate() {
            let (service_port, node_port) = (number(port, "port"), number(port, "nodePort"));
            if node_port == 0 && !allocates {
                continue;
            }
            match allocated.get(&service_port) {
                Some((position, _)) if node_port == 0 => self.shared.push((index, *position)),
                Some((_, same)) if *same == node_port => {}
                Some(_) => self.wanted.push((wanted(node_port), SpecPosition::NodePort(index))),
                None => {
                    let number = requested.get(&service_port).copied().unwrap_or_default();
                    allocated.insert(service_port, (self.wanted.len(), number));
                    self.wanted.push((wanted(number), SpecPosition::NodePort(index)));
                }
            }
        }
    }

    fn add_changed(&mut self, spec: &Map, old: &Map) {
        let allocates = allocates_node_ports(spec);
        // Services of other types do not own the node ports in their spec.
        let has_ports = has_node_ports(old);
        let mut had: Vec<i64> =
            ports(old).filter(|_| has_ports).map(|port| number(port, "nodePort")).collect();
        for (index, port) in ports(spec).enumerate() {
            let node_port = number(port, "nodePort");
            if node_port == 0 && !allocates || node_port != 0 && had.contains(&node_port) {
                continue;
            }
            had.push(node_port);
            self.wanted.push((wanted(node_port), SpecPosition::NodePort(index)));
        }
    }
}

fn has_node_ports(spec: &Map) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn wanted(number: i64) -> Wanted {
    if number == 0 { Wanted::Any } else { Wanted::Number(number) }
}

fn allocates_node_ports(spec: &Map) -> bool {
    let declines = spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    text(spec, "type") == "NodePort" || !declines
}

fn needs_health_check(spec: &Map) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn ports(spec: &Map) -> impl Iterator<Item = &Map> {
    spec.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Returns a number field, or 0.
fn number(map: &Map, field: &str) -> i64 {
    map.get(field).and_then(Value::as_i64).unwrap_or_default()
}

fn set_node_port(spec: &mut Map, index: usize, port: u16) {
    let list = spec.get_mut("ports").and_then(Value::as_array_mut);
    if let Some(fields) = list.and_then(|list| list.get_mut(index)).and_then(Value::as_object_mut) {
        fields.insert("nodePort".to_owned(), port.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the ports to claim, with 0 for any free port, and the completed spec. Free ports are numbered from
    /// 31000.
    fn planned(spec: &Value, old: Option<&Value>) -> (Vec<i64>, Value) {
        let Value::Object(mut spec) = spec.clone() else { panic!("a spec") };
        let plan = Plan::new(&spec, old.and_then(Value::as_object));
        let number = |wanted: Wanted| if let Wanted::Number(number) = wanted { number } else { 0 };
        let wanted: Vec<i64> = plan.wanted.iter().map(|(wanted, _)| number(*wanted)).collect();
        let mut next = 31_000..;
        let claimed: Vec<u16> = wanted
            .iter()
            .map(|number| if *number == 0 { next.next().unwrap() } else { u16::try_from(*number).unwrap() })
            .collect();
        plan.fill(&mut spec, &claimed);
        let ports: Vec<_> = ports(&spec).map(number_of).collect();
        (wanted, json!([ports, spec.get("healthCheckNodePort")]))
    }

    fn number_of(port: &Map) -> i64 {
        number(port, "nodePort")
    }

    #[test]
    fn a_new_service_gets_the_ports_of_its_type() {
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": 80, "nodePort": 30001}]);
        let balancer = |more: Value| {
            let mut spec = json!({"type": "LoadBalancer", "ports": ports});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let local = json!({"externalTrafficPolicy": "Local"});
        let declined = json!({"allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local"});
        for (spec, wanted, filled) in [
            (json!({"type": "ClusterIP", "ports": [{"port": 80}]}), vec![], json!([[0], null])),
            (
                json!({"type": "NodePort", "ports": ports, "externalTrafficPolicy": "Local"}),
                vec![0, 30001],
                json!([[31000, 31000, 30001], null]),
            ),
            (balancer(json!({})), vec![0, 30001], json!([[31000, 31000, 30001], null])),
            (balancer(local), vec![0, 30001, 0], json!([[31000, 31000, 30001], 31001])),
            (balancer(declined), vec![30001, 0], json!([[0, 0, 30001], 31000])),
            (
                json!({"type": "NodePort", "ports": [{"port": 53}, {"port": 53, "nodePort": 30005}]}),
                vec![30005],
                json!([[30005, 30005], null]),
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 53, "nodePort": 30005}, {"port": 53, "nodePort": 30006}]}),
                vec![30005, 30006],
                json!([[30005, 30006], null]),
            ),
        ] {
            assert_eq!(planned(&spec, None), (wanted, filled), "{spec}");
        }
    }

    #[test]
    fn an_update_claims_only_new_ports() {
        let old = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
        let with = |ports: Value| json!({"type": "NodePort", "ports": ports});
        for (spec, wanted) in [
            (old.clone(), vec![]),
            (with(json!([{"port": 80, "nodePort": 30002}])), vec![30002]),
            (with(json!([{"port": 80, "nodePort": 30001}, {"port": 81}])), vec![0]),
            (
                with(
                    json!([{"port": 80, "nodePort": 30002}, {"port": 80, "protocol": "UDP", "nodePort": 30002}]),
                ),
                vec![30002],
            ),
            (json!({"type": "ClusterIP", "ports": [{"port": 80}]}), vec![]),
        ] {
            assert_eq!(planned(&spec, Some(&old)).0, wanted, "{spec}");
        }
        // A service of a type without node ports does not own the ports in its spec.
        for kind in ["ExternalName", "ClusterIP"] {
            let mut before = old.clone();
            before["type"] = json!(kind);
            assert_eq!(planned(&old, Some(&before)).0, [30001], "{kind}");
        }
    }
}
