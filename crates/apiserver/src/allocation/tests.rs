//! The allocator by itself: what reservations claim, and when it is free again.

use serde_json::json;

use super::*;

fn allocator() -> ServiceAllocator {
    ServiceAllocator::new("10.0.0.0/24".parse().unwrap(), 30000..=30003)
}

fn service(spec: &Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn settle(reservation: ServiceReservation, revision: u64, service: Option<&Value>) {
    Box::new(reservation).settle(revision, service);
}

fn node_port(port: u16) -> Value {
    json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80, "nodePort": port}]})
}

#[test]
fn a_service_gets_an_address_of_the_range_and_keeps_it() {
    let allocator = allocator();
    let mut one = service(&json!({"ports": [{"port": 80}]}));
    settle(allocator.begin("a", &mut one, None).unwrap(), 5, Some(&one));
    let address: Ipv4Addr = one["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!(allocator.range.contains(address));
    let before = one.clone();
    settle(allocator.begin("a", &mut one, Some(&before)).unwrap(), 6, Some(&one));
    assert_eq!(one, before);
    let mut other = service(&json!({"clusterIP": address.to_string()}));
    assert_eq!(allocator.begin("b", &mut other, None).err().unwrap().code, 422);
    settle(allocator.begin_deletion("a"), 7, None);
    allocator.begin("b", &mut other, None).unwrap();
}

#[test]
fn every_address_is_allocated_once_and_then_the_range_is_full() {
    let allocator = ServiceAllocator::new("10.0.0.0/28".parse().unwrap(), 30000..=30003);
    let one = |key: u8| allocator.begin(&key.to_string(), &mut service(&json!({})), None);
    let reservations: Vec<_> = (0..14).map(|key| one(key).unwrap()).collect();
    assert_eq!(allocator.in_use().addresses.len(), 14);
    assert_eq!(one(99).err().unwrap().code, 422);
    drop(reservations);
    assert_eq!(allocator.in_use(), InUse::default());
}

#[test]
fn a_refused_service_keeps_nothing() {
    let allocator = allocator();
    settle(
        allocator.begin("a", &mut service(&node_port(30001)), None).unwrap(),
        3,
        Some(&service(&node_port(30001))),
    );
    let before = allocator.in_use();
    for spec in [
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]}),
        json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 99999}]}),
        json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30001}]}),
        json!({"type": "LoadBalancer", "ports": (1..9).map(|port| json!({"port": port})).collect::<Vec<_>>()}),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}),
        json!({"clusterIP": "11.0.0.1"}),
    ] {
        assert_eq!(allocator.begin("b", &mut service(&spec), None).err().unwrap().code, 422, "{spec}");
        assert_eq!(allocator.in_use(), before, "{spec}");
    }
}

#[test]
fn a_losing_attempt_does_not_free_the_winners_port() {
    let allocator = allocator();
    let (mut winner, mut loser) = (service(&node_port(30001)), service(&node_port(30001)));
    let first = allocator.begin("a", &mut winner, None).unwrap();
    let second = allocator.begin("a", &mut loser, None).unwrap();
    settle(first, 5, Some(&winner));
    drop(second);
    assert_eq!(allocator.in_use().ports, [(30001, "a".to_owned())]);
    let refused = allocator.begin("b", &mut service(&node_port(30001)), None).err().unwrap();
    assert!(refused.message.contains("provided port is already allocated"), "{refused}");
}

#[test]
fn ports_that_a_committed_update_gave_up_are_free() {
    let allocator = allocator();
    let mut old = service(&node_port(30001));
    settle(allocator.begin("a", &mut old, None).unwrap(), 5, Some(&old));
    let mut new = service(&node_port(30002));
    let update = allocator.begin("a", &mut new, Some(&old)).unwrap();
    assert!(allocator.begin("b", &mut service(&node_port(30001)), None).is_err(), "not committed");
    settle(update, 6, Some(&new));
    allocator.begin("b", &mut service(&node_port(30001)), None).unwrap();
}

#[test]
fn load_balancers_may_decline_node_ports_but_not_health_checks() {
    let allocator = allocator();
    let mut balancer = service(&json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "externalTrafficPolicy": "Local", "ports": [{"port": 80}, {"port": 81, "nodePort": 30002}]}));
    let reservation = allocator.begin("a", &mut balancer, None).unwrap();
    let spec = &balancer["spec"];
    assert_eq!((&spec["ports"][0]["nodePort"], &spec["ports"][1]["nodePort"]), (&Value::Null, &json!(30002)));
    assert!(spec["healthCheckNodePort"].is_u64());
    assert_eq!(reservation.claimed.ports.len(), 2);
}

#[test]
fn a_service_keeps_what_is_out_of_a_changed_range() {
    let allocator = allocator();
    let spec = json!({"type": "NodePort", "clusterIP": "11.0.0.9", "clusterIPs": ["11.0.0.9"], "ports": [{"port": 80, "nodePort": 20000}]});
    let old = service(&spec);
    allocator.begin("a", &mut service(&spec), Some(&old)).unwrap();
    assert!(allocator.begin("a", &mut service(&spec), None).is_err());
}
