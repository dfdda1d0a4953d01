//! Servers over a real etcd: restarts of both, and two servers over one cluster.

use std::collections::BTreeSet;

use nave_loadtest::http::{Call, Pool};
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Starts a server without controllers on a cluster. Servers of one cluster need different addresses.
async fn start(etcd: &EtcdProcess, flags: &[&str]) -> Server {
    let servers = format!("--etcd-servers={}", etcd.url());
    let mut all = vec!["--controllers=none", "--disable-admission-plugins=ServiceAccount", &servers];
    all.extend(flags);
    Server::start_with(&all).await
}

async fn write(pool: &Pool, name: &str) -> Option<u64> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
    let answer = pool.call(&Call::post(MAPS, object)).await.ok()?;
    let written: Value = serde_json::from_slice(&answer).ok()?;
    written["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Sends a request and returns the status of the response.
async fn code(pool: &Pool, call: &Call) -> u16 {
    pool.lane(0).send(call).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn kills_of_server_and_etcd_lose_nothing() {
    // Newer versions of this machine's package lose writes when they are killed (etcd issue 13766).
    let mut etcd = EtcdProcess::start(&installed_etcd("3.4"));
    let mut server = start(&etcd, &[]).await;
    for (round, kill_etcd) in [false, true, true, false].into_iter().enumerate() {
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            let pool = server.target().pool(1).await.unwrap();
            writers.spawn(async move {
                let mut written = Vec::new();
                for number in 0..1_000_000 {
                    let name = format!("round-{round}-{writer}-{number}");
                    let Some(revision) = write(&pool, &name).await else { break };
                    written.push((name, revision));
                }
                written
            });
        }
        let pool = server.target().pool(1).await.unwrap();
        eventually("some objects are written", async || list(&pool, MAPS).await.len() > (round + 1) * 200)
            .await;
        if kill_etcd {
            etcd.kill();
        } else {
            server.kill9();
        }
        let written = writers.join_all().await.concat();
        if kill_etcd {
            etcd.start_again();
            eventually("the server is ready again", async || pool.call(&Call::get("/readyz")).await.is_ok())
                .await;
        } else {
            server.restart().await;
        }
        let pool = server.target().pool(1).await.unwrap();
        let found: BTreeSet<String> = list(&pool, MAPS).await.into_iter().collect();
        assert!(written.iter().all(|(name, _)| found.contains(name)), "round {round}");
    }
    assert!(server.kubectl(&["get", "--raw", "/readyz/etcd"]).await.contains("ok"));
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
    for line in [
        "etcd_request_duration_seconds_count{",
        "apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"}",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn health_fails_while_etcd_is_away() {
    let mut etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let server = start(&etcd, &["--etcd-healthcheck-timeout=500ms"]).await;
    let pool = server.target().pool(1).await.unwrap();
    let get = async |path: &str| code(&pool, &Call::get(path)).await;
    assert_eq!((get("/readyz").await, get("/livez/etcd").await), (200, 200));
    etcd.kill();
    eventually("not ready", async || get("/readyz").await == 500).await;
    assert_eq!((get("/livez/etcd").await, get("/livez/ping").await), (500, 200));
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}).to_string();
    let refused = code(&pool, &Call::post(MAPS, object)).await;
    assert!([503, 504].contains(&refused), "{refused}");
    etcd.start_again();
    eventually("ready again", async || get("/readyz").await == 200).await;
    assert!(write(&pool, "b").await.is_some());
}

#[tokio::test]
async fn two_servers_share_a_cluster() {
    const COUNT: usize = 500;
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let bind = |address: &str| [format!("--bind-address={address}")];
    let (one, two) = (bind("127.0.0.1"), bind("127.0.0.2"));
    let one = start(&etcd, &[&one[0]]).await;
    let two = start(&etcd, &[&two[0]]).await;

    let mut watch = two.kubectl_running(&["get", "configmaps", "--watch-only", "-o", "name"]);
    let (here, there) = (one.target().pool(4).await.unwrap(), two.target().pool(4).await.unwrap());
    // The watch may start after a write, so later ones follow.
    let writing = async {
        for number in 0..1_000_000 {
            write(&here, &format!("shared-{number}")).await.unwrap();
            // A read through the other server sees the write.
            let path = format!("{MAPS}/shared-{number}");
            assert_eq!(code(&there, &Call::get(&path)).await, 200);
        }
    };
    tokio::select! {
        () = writing => unreachable!("the watch sees a write"),
        line = watch.line() => assert!(line.contains("configmap/shared-"), "{line}"),
    }

    let mut creates = JoinSet::new();
    for number in 0..COUNT {
        let pool = if number % 2 == 0 { here.clone() } else { there.clone() };
        creates.spawn(async move {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s-{number}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]},
            });
            let created = pool.call(&Call::post(SERVICES, service.to_string())).await.unwrap();
            serde_json::from_slice::<Value>(&created).unwrap()
        });
    }
    let created = creates.join_all().await;
    let distinct = |pointer: &str| {
        let values = created.iter().map(|service| service.pointer(pointer).unwrap().to_string());
        values.collect::<BTreeSet<_>>().len()
    };
    assert_eq!((distinct("/spec/clusterIP"), distinct("/spec/ports/0/nodePort")), (COUNT, COUNT));
    let mut listed = [list(&here, SERVICES).await, list(&there, SERVICES).await];
    for names in &mut listed {
        names.sort();
    }
    assert_eq!(listed[0], listed[1]);
}

/// Returns a definition with this number.
fn definition(number: usize) -> String {
    let (plural, kind) = (format!("young{number}s"), format!("Young{number}"));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
    .to_string()
}

#[tokio::test]
async fn an_established_definition_is_served_by_all_servers() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let one = start(&etcd, &["--bind-address=127.0.0.1"]).await;
    let two = start(&etcd, &["--bind-address=127.0.0.2"]).await;
    let (here, there) = (one.target().pool(1).await.unwrap(), two.target().pool(1).await.unwrap());
    for number in 0..50 {
        here.call(&Call::post(DEFINITIONS, definition(number))).await.unwrap();
        let established = Call::get(format!("{DEFINITIONS}/young{number}s.example.com"));
        loop {
            let found: Value = serde_json::from_slice(&here.call(&established).await.unwrap()).unwrap();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|of| of["type"] == "Established" && of["status"] == "True") {
                break;
            }
        }
        let object = json!({"apiVersion": "example.com/v1", "kind": format!("Young{number}"),
            "metadata": {"name": "first"}});
        let path = format!("/apis/example.com/v1/namespaces/default/young{number}s");
        let created = code(&there, &Call::post(path, object.to_string())).await;
        assert_eq!(created, 201, "definition {number}");
    }
    let unknown = Call::get("/apis/example.com/v1/namespaces/default/young50s");
    assert_eq!(code(&there, &unknown).await, 404);
}

/// Returns the names of the objects at a path.
async fn list(pool: &Pool, path: &str) -> Vec<String> {
    let Ok(answer) = pool.call(&Call::get(path)).await else { return Vec::new() };
    let list: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}
