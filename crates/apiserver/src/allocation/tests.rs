//! Tests of the allocator on its own store.

use std::collections::BTreeSet;
use std::time::Duration;

use super::addresses::{FAMILY_LABEL, MANAGER_LABEL};
use nave_resources::{Registry, storage_key};
use nave_store::embedded::{Embedded, Options};
use nave_store::{Range, Store, Txn};

use super::*;
use crate::storage::{ReservationOutcome, WatchCacheSizes};

/// A store, and the servers that share it.
struct Fixture {
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

/// The allocator of a server.
struct Server {
    allocator: Arc<ServiceAllocator>,
    repair: Repair,
    storages: Storages,
}

const PORTS: RangeInclusive<u16> = 30_000..=30_003;
const GRACE: Duration = Duration::from_mins(1);

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap());
        Self { store, _folder: folder }
    }

    async fn server(&self, ranges: &str, ports: RangeInclusive<u16>) -> Server {
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, Arc::clone(&self.store), &WatchCacheSizes::default());
        storages.wait_ready().await;
        let allocator =
            ServiceAllocator::new(&storages, ranges.parse().unwrap(), ports, &prometheus::Registry::new())
                .unwrap()
                .unwrap();
        let repair = Repair::new(Arc::clone(&allocator), GRACE);
        repair.start().await.unwrap();
        Server { allocator, repair, storages }
    }

    /// Returns the allocated addresses, each with its service.
    async fn addresses(&self) -> Vec<String> {
        let found = self.store.range(Range::all("/registry/ipaddresses/")).await.unwrap();
        found.items.iter().map(|kv| kv.key.rsplit('/').next().unwrap().to_owned()).collect()
    }
}

impl Server {
    async fn ports(&self) -> Vec<u16> {
        let ports = &self.allocator.ports;
        let stored = ports.read().await.unwrap();
        stored.bitmap.offsets().map(|offset| ports.port(offset)).collect()
    }

    async fn begin(
        &self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Box<ServiceReservation>, Status> {
        self.allocator.begin(service, old, false).await.map(Box::new)
    }

    /// Allocates the addresses and ports of a service, and stores the service.
    async fn create(&self, service: &mut Value) -> Result<(), Status> {
        let reservation = self.begin(service, None).await?;
        self.store("services", service).await;
        reservation.complete(ReservationOutcome::Committed(Some(service))).await;
        Ok(())
    }

    async fn delete(&self, service: &Value) {
        self.remove("services", meta::namespace(service), meta::name(service)).await;
        let reservation = Box::new(self.allocator.begin_deletion(service));
        reservation.complete(ReservationOutcome::Committed(None)).await;
    }

    fn storage(&self, resource: &str) -> &Arc<ResourceStorage> {
        let group = if resource == "services" { "" } else { "networking.k8s.io" };
        self.storages.get(&GroupVersionResource::new(group, "v1", resource)).unwrap()
    }

    async fn store(&self, resource: &str, object: &Value) {
        let storage = self.storage(resource);
        let namespace = Some(meta::namespace(object)).filter(|namespace| !namespace.is_empty());
        let key = storage_key(storage.def(), namespace, meta::name(object)).unwrap();
        let value = storage.codec().encode(object).unwrap();
        self.storages.store().txn(Txn::put(key, value)).await.unwrap();
        storage.latest().await.unwrap();
    }

    async fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let storage = self.storage(resource);
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let key = storage_key(storage.def(), namespace, name).unwrap();
        self.storages.store().txn(Txn::delete(key)).await.unwrap();
        storage.latest().await.unwrap();
    }

    async fn address(&self, name: &str) -> Option<Value> {
        let storage = self.storage("ipaddresses");
        let key = storage_key(storage.def(), None, name).unwrap();
        storage.get_latest(&key).await.unwrap().map(|it| storage.codec().parse_cached(&it).unwrap())
    }
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

fn node_port(name: &str, port: u16) -> Value {
    let spec = json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"],
        "ports": [{"port": 80, "nodePort": port}]});
    service(name, &spec)
}

fn message(refused: Result<(), Status>) -> String {
    refused.unwrap_err().message
}

fn cidr(name: &str, cidr: &str, ready: Option<&str>) -> Value {
    let conditions = ready.map(|status| {
        json!({"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "", "message": ""})
    });
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "spec": {"cidrs": [cidr]}, "status": {"conditions": conditions.into_iter().collect::<Vec<_>>()}})
}

#[tokio::test]
async fn an_address_object_outlives_its_service_on_both_ends() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let mut one = service("one", &json!({"ports": [{"port": 80}]}));
    let reservation = server.begin(&mut one, None).await.unwrap();
    let address = one["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(one["spec"]["clusterIPs"], json!([address]));
    let object = server.address(&address).await.unwrap();
    assert_eq!(
        object["metadata"]["labels"],
        json!({FAMILY_LABEL: "IPv4", MANAGER_LABEL: "ipallocator.k8s.io"})
    );
    let parent = json!({"resource": "services", "namespace": "ns", "name": "one"});
    assert_eq!(object["spec"]["parentRef"], parent);
    server.store("services", &one).await;
    reservation.complete(ReservationOutcome::Committed(Some(&one))).await;
    let revision = fixture.store.current_revision().await.unwrap();
    let before = one.clone();
    let update = server.begin(&mut one, Some(&before)).await.unwrap();
    update.complete(ReservationOutcome::Committed(Some(&one))).await;
    assert_eq!((&one, fixture.store.current_revision().await.unwrap()), (&before, revision), "nothing to do");
    let mut other = service("other", &json!({"clusterIP": address, "clusterIPs": [address]}));
    let refused = message(server.create(&mut other).await);
    assert!(
        refused.ends_with(&format!("failed to allocate IP {address}: provided IP is already allocated")),
        "{refused}"
    );
    server.delete(&one).await;
    assert_eq!(fixture.addresses().await, [] as [&str; 0]);
    server.create(&mut other).await.unwrap();
    assert_eq!(fixture.addresses().await, [address]);
}

#[tokio::test]
async fn every_address_is_allocated_once_and_then_the_range_is_full() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/28", PORTS).await;
    let mut reservations = Vec::new();
    for name in 0..14 {
        let mut one = service(&name.to_string(), &json!({}));
        reservations.push(server.begin(&mut one, None).await.unwrap());
    }
    assert_eq!(fixture.addresses().await.into_iter().collect::<BTreeSet<_>>().len(), 14);
    let full = server.create(&mut service("full", &json!({}))).await.unwrap_err();
    assert_eq!(full.code, 500);
    assert!(
        full.message.ends_with(r#"failed to allocate a serviceIP for Service "full": range is full"#),
        "{full}"
    );
    // A new range is used even if its controller has not reported a condition yet.
    server.store("servicecidrs", &cidr("more", "10.9.0.0/29", None)).await;
    server.create(&mut service("more", &json!({}))).await.unwrap();
    for reservation in reservations {
        reservation.complete(ReservationOutcome::Committed(None)).await;
    }
    assert_eq!(fixture.addresses().await.len(), 1);
}

#[tokio::test]
async fn only_ranges_that_are_ready_and_stay_are_used() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/28", PORTS).await;
    let mut ending = cidr("ending", "10.3.0.0/24", Some("True"));
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for object in [
        cidr("unready", "10.1.0.0/24", Some("False")),
        cidr("unknown", "10.2.0.0/24", Some("Unknown")),
        cidr("ready", "10.4.0.0/24", Some("True")),
        cidr("silent", "10.5.0.0/24", None),
        cidr("large", "fd00::/48", Some("True")),
        ending,
    ] {
        server.store("servicecidrs", &object).await;
    }
    for (address, is_allocated) in [
        ("10.1.0.5", false),
        ("10.2.0.5", false),
        ("10.3.0.5", false),
        ("10.4.0.5", true),
        ("10.5.0.5", true),
    ] {
        let spec = json!({"clusterIP": address, "clusterIPs": [address]});
        let outcome = server.create(&mut service("s", &spec)).await;
        assert_eq!(outcome.is_ok(), is_allocated, "{address}");
        if !is_allocated {
            let wanted = format!(
                "failed to allocate IP {address}: the provided network does not match the current range"
            );
            assert!(message(outcome).ends_with(&wanted));
        }
    }
}

#[tokio::test]
async fn dual_stack_services_have_an_address_of_each_family() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24,fd00::/108", PORTS).await;
    let mut two = service("two", &json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"}));
    server.create(&mut two).await.unwrap();
    let addresses: BTreeSet<String> =
        texts(two["spec"].as_object().unwrap(), "clusterIPs").into_iter().collect();
    assert_eq!(addresses, fixture.addresses().await.into_iter().collect());
    assert_eq!(two["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let mut one = two.clone();
    one["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    let update = server.begin(&mut one, Some(&two)).await.unwrap();
    update.complete(ReservationOutcome::Committed(Some(&one))).await;
    assert_eq!(fixture.addresses().await, [one["spec"]["clusterIP"].as_str().unwrap()]);
    let mut external = one.clone();
    external["spec"] = json!({"type": "ExternalName", "externalName": "a.example.com"});
    let update = server.begin(&mut external, Some(&one)).await.unwrap();
    update.complete(ReservationOutcome::Committed(Some(&external))).await;
    assert_eq!(fixture.addresses().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_rejected_service_releases_its_claims() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    server.create(&mut node_port("a", 30_001)).await.unwrap();
    let range = "provided port is not in the valid range. The range of valid ports is 30000-30003";
    for (spec, why) in [
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]}), range),
        (json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 99_999}]}), range),
        (json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": -5}]}), range),
        (
            json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30_001}]}),
            "spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated",
        ),
        (
            json!({"type": "LoadBalancer", "ports": (1..9).map(|port| json!({"port": port})).collect::<Vec<_>>()}),
            "failed to allocate a nodePort: range is full",
        ),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_001}),
            "failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated",
        ),
        (json!({"clusterIP": "11.0.0.1", "clusterIPs": ["11.0.0.1"]}), "does not match the current range"),
        (
            json!({"clusterIP": "bogus", "clusterIPs": ["bogus"]}),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        let refused = message(server.create(&mut service("b", &spec)).await);
        assert!(refused.ends_with(why), "{spec}: {refused}");
        // Dropped claims are released in order, before the next claims are answered.
        server
            .create(&mut service(
                "c",
                &json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}, {"port": 3}]}),
            ))
            .await
            .unwrap();
        let created = service("c", &json!({}));
        let created = server.storage("services").find("ns", meta::name(&created)).unwrap();
        let created = server.storage("services").codec().parse_cached(&created).unwrap();
        server.delete(&created).await;
        assert_eq!(server.ports().await, [30_001], "{spec}");
    }
}

#[tokio::test]
async fn a_committed_update_frees_released_ports() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let (mut old, mut new) = (node_port("a", 30_001), node_port("a", 30_002));
    server.create(&mut old).await.unwrap();
    let update = server.begin(&mut new, Some(&old)).await.unwrap();
    assert!(server.begin(&mut node_port("b", 30_001), None).await.is_err(), "not committed");
    update.complete(ReservationOutcome::Committed(Some(&new))).await;
    let taken = server.begin(&mut node_port("b", 30_001), None).await.unwrap();
    // The retry claims the same port.
    drop(taken);
    server.create(&mut node_port("b", 30_001)).await.unwrap();
    assert_eq!(server.ports().await, [30_001, 30_002]);
}

#[tokio::test]
async fn ports_of_a_type_without_ports_are_neither_claimed_nor_freed() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    server.create(&mut node_port("owner", 30_001)).await.unwrap();
    let named = |port: i64| {
        service(
            "thief",
            &json!({"type": "ExternalName", "externalName": "a.example.com",
            "ports": [{"port": 80, "nodePort": port}], "healthCheckNodePort": port}),
        )
    };
    for port in [30_001, 100_000, -5] {
        let mut thief = named(port);
        server.create(&mut thief).await.unwrap();
        let mut changed = thief.clone();
        changed["spec"]["type"] = json!("NodePort");
        let refused = server.begin(&mut changed, Some(&thief)).await.map(drop).unwrap_err();
        assert_eq!(refused.code, 422, "{refused}");
        server.delete(&thief).await;
        assert_eq!(server.ports().await, [30_001], "{port}");
        // The addresses of a service are read even if one of its ports is invalid.
        let mut odd = changed;
        odd["spec"]["clusterIP"] = json!("10.0.0.9");
        odd["spec"]["clusterIPs"] = json!(["10.0.0.9"]);
        server.store("services", &odd).await;
        server.repair.run_once(Duration::ZERO).await.unwrap();
        server.repair.run_once(Duration::ZERO).await.unwrap();
        assert_eq!(fixture.addresses().await, ["10.0.0.9"], "{port}");
        server.remove("services", "ns", "thief").await;
        server.repair.run_once(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_attempt_claims_the_same_address() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    for _ in 0..50 {
        let mut one = service("a", &json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]}));
        drop(server.begin(&mut one, None).await.unwrap());
    }
}

#[tokio::test]
async fn a_late_outcome_frees_no_ports() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let mut one = service("a", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_001}]}));
    let reservation = server.begin(&mut one, None).await.unwrap();
    reservation.complete(ReservationOutcome::Found(None)).await;
    assert_eq!((fixture.addresses().await.len(), server.ports().await), (0, vec![30_001]));
}

#[tokio::test]
async fn dry_runs_claim_nothing() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let mut stored = node_port("a", 30_001);
    server.create(&mut stored).await.unwrap();
    let revision = fixture.store.current_revision().await.unwrap();
    let address = &stored["spec"]["clusterIP"];
    let taken = json!({"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]});
    assert!(server.allocator.begin(&mut service("b", &taken), None, true).await.is_ok());
    let spec =
        json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30_002}, {"port": 82}]});
    let mut dry = service("b", &spec);
    drop(server.allocator.begin(&mut dry, None, true).await.unwrap());
    let ports: Vec<_> = (0..3).map(|index| &dry["spec"]["ports"][index]["nodePort"]).collect();
    assert_eq!(
        (&dry["spec"]["clusterIP"], ports),
        (&json!("10.0.0.0"), vec![&json!(32_769), &json!(30_002), &json!(32_770)])
    );
    assert!(server.allocator.begin(&mut node_port("b", 30_001), None, true).await.is_err());
    assert_eq!(fixture.store.current_revision().await.unwrap(), revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_store_allocate_nothing_twice() {
    let fixture = Fixture::new();
    let ports = 30_000..=30_199;
    let (one, other) =
        tokio::join!(fixture.server("10.0.0.0/24", ports.clone()), fixture.server("10.0.0.0/24", ports));
    let create = async |server: &Server, name: usize| {
        let mut created = service(&name.to_string(), &json!({"type": "NodePort", "ports": [{"port": 80}]}));
        server.create(&mut created).await.map(|()| created)
    };
    let creates = (0..200).map(|name| create(if name % 2 == 0 { &one } else { &other }, name));
    let created = futures_util::future::join_all(creates).await;
    let created: Vec<Value> = created.into_iter().map(Result::unwrap).collect();
    let distinct = |path: &str| {
        created.iter().map(|it| it.pointer(path).unwrap().to_string()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((distinct("/spec/clusterIP"), distinct("/spec/ports/0/nodePort")), (200, 200));
    assert_eq!((fixture.addresses().await.len(), one.ports().await.len()), (200, 200));
    // Each server releases the allocations of the other.
    let deletions = created
        .iter()
        .enumerate()
        .map(|(index, it)| if index % 3 == 0 { one.delete(it) } else { other.delete(it) });
    futures_util::future::join_all(deletions).await;
    assert_eq!((fixture.addresses().await.len(), one.ports().await.len()), (0, 0));
}

/// The releasing server last saw the ports before the other one claimed them.
#[tokio::test]
async fn a_server_releases_ports_that_another_has_claimed() {
    let fixture = Fixture::new();
    let one = fixture.server("10.0.0.0/24", PORTS).await;
    let other = fixture.server("10.0.0.0/24", PORTS).await;
    other.create(&mut node_port("first", 30_000)).await.unwrap();
    let mut second = node_port("second", 30_001);
    one.create(&mut second).await.unwrap();
    other.delete(&second).await;
    assert_eq!(one.ports().await, [30_000]);
}

#[tokio::test]
async fn repair_restores_addresses_and_ports_from_services() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let known = |name: &str, address: &str, port: u16| {
        service(
            name,
            &json!({"type": "NodePort", "clusterIP": address, "clusterIPs": [address],
            "ports": [{"port": 80, "nodePort": port}]}),
        )
    };
    // Services without allocations, or with wrong references in their address objects.
    server.store("services", &known("a", "10.0.0.5", 30_001)).await;
    server.store("services", &known("b", "10.0.0.6", 30_002)).await;
    let address = |name: &str, labels: Value, parent: Value, created: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name, "labels": labels, "creationTimestamp": created},
            "spec": {"parentRef": parent}})
    };
    let ours = json!({FAMILY_LABEL: "IPv4", MANAGER_LABEL: "ipallocator.k8s.io"});
    let parent = |name: &str| json!({"group": "", "resource": "services", "namespace": "ns", "name": name});
    let (past, now) = ("2026-01-01T00:00:00Z", nave_machinery::time::now().rfc3339());
    for object in [
        address("10.0.0.6", json!({}), parent("b"), past),
        address("10.0.0.7", ours.clone(), parent("gone"), past),
        address("10.0.0.8", ours.clone(), parent("a"), past),
        address("10.0.0.9", ours.clone(), parent("soon"), &now),
        address("10.0.0.10", ours.clone(), json!({"group": "g", "resource": "r", "name": "n"}), &now),
        address("10.0.0.11", json!({}), json!({"group": "g", "resource": "r", "name": "n"}), past),
    ] {
        server.store("ipaddresses", &object).await;
    }
    let again = server.repair.run_once(GRACE).await.unwrap();
    assert!(again.is_some_and(|again| again <= GRACE));
    assert_eq!(fixture.addresses().await, ["10.0.0.11", "10.0.0.5", "10.0.0.6", "10.0.0.9"]);
    for (name, service) in [("10.0.0.5", "a"), ("10.0.0.6", "b")] {
        let object = server.address(name).await.unwrap();
        assert_eq!(
            (&object["metadata"]["labels"], &object["spec"]["parentRef"]["name"]),
            (&ours, &json!(service))
        );
    }
    assert_eq!(server.ports().await, [30_001, 30_002]);
    // A port without a service is freed by the third consecutive comparison that finds it.
    drop(
        server
            .begin(&mut node_port("c", 30_003), None)
            .await
            .unwrap()
            .claimed_ports
            .take()
            .unwrap()
            .keep(&[]),
    );
    for (grace, ports) in [
        (Duration::ZERO, &[30_001, 30_002, 30_003][..]),
        (Duration::ZERO, &[30_001, 30_002, 30_003]),
        (GRACE, &[30_001, 30_002, 30_003]),
        (Duration::ZERO, &[30_001, 30_002]),
    ] {
        server.repair.run_once(grace).await.unwrap();
        assert_eq!(server.ports().await, ports);
    }
    let revision = fixture.store.current_revision().await.unwrap();
    server.repair.run_once(GRACE).await.unwrap();
    assert_eq!(fixture.store.current_revision().await.unwrap(), revision, "nothing to do");
}

#[tokio::test]
async fn start_adopts_allocations_of_an_older_version() {
    let fixture = Fixture::new();
    let first = fixture.server("10.0.0.0/24", PORTS).await;
    first.create(&mut node_port("a", 30_001)).await.unwrap();
    first
        .create(&mut service("b", &json!({"clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]})))
        .await
        .unwrap();
    for key in [
        "/registry/ranges/servicenodeports",
        "/registry/ipaddresses/10.0.0.5",
        "/registry/servicecidrs/kubernetes",
    ] {
        fixture.store.txn(Txn::delete(key)).await.unwrap();
    }
    let second = fixture.server("10.0.0.0/24", PORTS).await;
    assert_eq!(
        (second.ports().await, fixture.addresses().await),
        (vec![30_001], vec!["10.0.0.5".to_owned()])
    );
    // After a change of the port range, the ports of services within the new range are kept.
    let third = fixture.server("10.0.0.0/24,fd00::/108", 30_001..=30_009).await;
    assert_eq!(third.ports().await, [30_001]);
    let cidrs = third.storage("servicecidrs").find("", "kubernetes").unwrap();
    let cidrs = third.storage("servicecidrs").codec().parse_cached(&cidrs).unwrap();
    assert_eq!(cidrs["spec"]["cidrs"], json!(["10.0.0.0/24", "fd00::/108"]));
    assert_eq!(cidrs["status"]["conditions"][0]["status"], "True");
    // Meanwhile, the server with the old range cannot allocate.
    let refused = message(second.create(&mut node_port("c", 30_002)).await);
    assert!(refused.ends_with("the provided range does not match the current range"), "{refused}");
}

#[tokio::test]
async fn ports_are_stored_as_kube_apiserver_stores_them() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", 30_000..=32_767).await;
    let key = "/registry/ranges/servicenodeports";
    // Written by kube-apiserver with ports 30000 and 30009 in use.
    let theirs: &[u8] = b"k8s\0\n\x15\n\x02v1\x12\x0fRangeAllocation\x12\x2b\n\x18\n\0\x12\0\x1a\0\"\0*\x002\08\0B\0Z\x06\n\x01a\x12\x01b\x12\x0b30000-32767\x1a\x02\x02\x01\x1a\0\"\0";
    fixture.store.txn(Txn::put(key, theirs.to_vec())).await.unwrap();
    assert_eq!(server.ports().await, [30_000, 30_009]);
    server.create(&mut node_port("a", 30_001)).await.unwrap();
    let ours = fixture.store.get(key, None).await.unwrap().unwrap().value;
    let data = b"\x12\x0b30000-32767\x1a\x02\x02\x03";
    assert!(ours.windows(data.len()).any(|window| window == data), "{ours:?}");
    let label = b"Z\x06\n\x01a\x12\x01b";
    assert!(ours.windows(label.len()).any(|window| window == label), "what others wrote is kept: {ours:?}");
    assert!(ours.starts_with(b"k8s\0\n\x15\n\x02v1\x12\x0fRangeAllocation\x12"), "{ours:?}");
}

#[tokio::test]
async fn starts_after_a_crash_between_address_and_kubernetes_service() {
    let fixture = Fixture::new();
    let server = fixture.server("10.0.0.0/24", PORTS).await;
    let name = ServiceName { namespace: "default".to_owned(), name: "kubernetes".to_owned() };
    server.allocator.addresses.create("10.0.0.1".parse().unwrap(), &name).await.unwrap().keep();
    fixture.server("10.0.0.0/24", PORTS).await;
    assert_eq!(fixture.addresses().await, [] as [&str; 0]);
}
