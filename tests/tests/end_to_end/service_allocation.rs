//! Cluster IPs and node ports of services: no duplicates and no leaks, even after kills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nave_loadtest::http::{Call, Pool};
use nave_tests::{Server, eventually, eventually_within};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
/// Number of services, equal to the number of node ports.
const COUNT: usize = 500;
/// Number of kills. Each round creates more services.
const ROUNDS: usize = 3;
/// Maximum time of a request. The server checks for leftovers of a killed server after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The address and the node port of each service, by name.
type Allocated = BTreeMap<String, (String, u64)>;

#[tokio::test]
async fn allocations_are_unique_and_not_leaked_by_kill_9() {
    let timeout = format!("--request-timeout={}s", REQUEST_TIMEOUT.as_secs());
    let ports = format!("--service-node-port-range=30000-{}", 30_000 + COUNT - 1);
    let flags = ["--controllers=none", "--disable-admission-plugins=ServiceAccount", &timeout, &ports];
    let mut server = Server::start_with(&flags).await;
    let mut acknowledged = Allocated::new();
    for round in 0..ROUNDS {
        let created = create_until_killed(&mut server, round).await;
        acknowledged.extend(created);
        server.restart().await;
        let found = services(&server.target().pool(1).await.unwrap()).await;
        for (name, allocated) in &acknowledged {
            assert_eq!(found.get(name), Some(allocated), "{name}, round {round}");
        }
        shares_nothing(&found);
    }
    // Ports that killed servers allocated for services that were never created become free after some time. Each
    // service then gets a port.
    let pool = server.target().pool(4).await.unwrap();
    eventually_within(REQUEST_TIMEOUT * 12, "each service has a port", async || {
        let found = services(&pool).await;
        let missing: Vec<String> = (0..COUNT).map(name).filter(|name| !found.contains_key(name)).collect();
        let creates = missing.into_iter().map(|name| create(pool.clone(), name));
        creates.collect::<JoinSet<_>>().join_all().await.into_iter().all(|created| created.is_some())
    })
    .await;
    let found = services(&pool).await;
    assert_eq!(found.len(), COUNT);
    shares_nothing(&found);
    // Checks the same for addresses.
    eventually_within(REQUEST_TIMEOUT * 12, "addresses are those of the services", async || {
        let list = get(&pool, ADDRESSES).await;
        let names =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
        let wanted = found.values().map(|(address, _)| address.as_str()).chain(["10.0.0.1"]);
        names.collect::<BTreeSet<_>>() == wanted.collect()
    })
    .await;
    // Deleting the services frees all allocations immediately.
    for name in found.keys() {
        pool.call(&Call::delete(format!("{SERVICES}/{name}"))).await.unwrap();
    }
    assert_eq!(get(&pool, ADDRESSES).await["items"].as_array().unwrap().len(), 1);
    let creates = (0..COUNT).map(|index| create(pool.clone(), name(index)));
    let created = creates.collect::<JoinSet<_>>().join_all().await;
    assert!(created.iter().all(Option::is_some));
    let full = server.kubectl_fails(&["create", "service", "nodeport", "one-more", "--tcp=80"]).await;
    assert!(full.contains("failed to allocate a nodePort: range is full"), "{full}");
}

#[tokio::test]
async fn service_cidr_is_deleted_when_unused() {
    let server = Server::start().await;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.9.0.0/24"]}});
    server.apply(&range.to_string()).await;
    for name in ["kubernetes", "more"] {
        let range = format!("servicecidr/{name}");
        server.kubectl(&["wait", "--for=condition=Ready", &range, "--timeout=110s"]).await;
        eventually("the range is protected", async || {
            let shown = server.kubectl(&["get", &range, "-o", "jsonpath={.metadata.finalizers}"]).await;
            shown == r#"["networking.k8s.io/service-cidr-finalizer"]"#
        })
        .await;
    }
    server.kubectl(&["create", "service", "clusterip", "user", "--tcp=80", "--clusterip=10.9.0.5"]).await;
    server.kubectl(&["delete", "servicecidr", "more", "--wait=false"]).await;
    server.kubectl(&["wait", "--for=condition=Ready=False", "servicecidr/more", "--timeout=110s"]).await;
    let refused = ["create", "service", "clusterip", "other", "--tcp=80", "--clusterip=10.9.0.6"];
    let refused = server.kubectl_fails(&refused).await;
    assert!(refused.contains("the provided network does not match the current range"), "{refused}");
    server.kubectl(&["delete", "service", "user"]).await;
    eventually("the range is gone", async || {
        server.kubectl(&["get", "servicecidr", "more", "--ignore-not-found"]).await.is_empty()
    })
    .await;
}

/// Creates the missing services of this round concurrently and kills the server after a fifth of the responses. Few
/// ports may be left, because ports allocated by killed servers are not free yet.
async fn create_until_killed(server: &mut Server, round: usize) -> Allocated {
    let pool = server.target().pool(4).await.unwrap();
    let before = services(&pool).await;
    let of_round = 0..COUNT * (round + 1) / ROUNDS;
    let missing: Vec<_> = of_round.map(name).filter(|name| !before.contains_key(name)).collect();
    let enough = missing.len() / 5;
    let (answers, killed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let creates = missing.into_iter().map(|name| {
        let (pool, answers, killed) = (pool.clone(), Arc::clone(&answers), Arc::clone(&killed));
        async move {
            let created = create(pool, name).await;
            if answers.fetch_add(1, Ordering::Relaxed) == enough {
                killed.notify_one();
            }
            created
        }
    });
    let creates: JoinSet<_> = creates.collect();
    killed.notified().await;
    server.kill9();
    creates.join_all().await.into_iter().flatten().collect()
}

/// Creates a service with a node port; `None` if the create is not acknowledged.
async fn create(pool: Pool, name: String) -> Option<(String, (String, u64))> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let answer = pool.call(&Call::post(SERVICES, service.to_string())).await.ok()?;
    Some((name, allocated(&serde_json::from_slice(&answer).unwrap())))
}

async fn services(pool: &Pool) -> Allocated {
    let list = get(pool, SERVICES).await;
    let items = list["items"].as_array().unwrap().iter();
    let named =
        items.map(|service| (service["metadata"]["name"].as_str().unwrap().to_owned(), allocated(service)));
    named.filter(|(name, _)| name != "kubernetes").collect()
}

async fn get(pool: &Pool, path: &str) -> Value {
    serde_json::from_slice(&pool.call(&Call::get(path)).await.unwrap()).unwrap()
}

fn allocated(service: &Value) -> (String, u64) {
    let spec = &service["spec"];
    let port = spec["ports"][0]["nodePort"].as_u64().unwrap_or_default();
    (spec["clusterIP"].as_str().unwrap_or_default().to_owned(), port)
}

fn shares_nothing(services: &Allocated) {
    let addresses: BTreeSet<_> = services.values().map(|(address, _)| address).collect();
    let ports: BTreeSet<_> = services.values().map(|(_, port)| port).collect();
    assert_eq!((addresses.len(), ports.len()), (services.len(), services.len()), "{services:?}");
}

fn name(index: usize) -> String {
    format!("service-{index}")
}
