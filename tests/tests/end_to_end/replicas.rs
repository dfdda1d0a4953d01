//! Several servers over one etcd, and how clients leave a server.

use nave_loadtest::http::{Call, Pool};
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
const NAMESPACES: &str = "/api/v1/namespaces";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ELECTION: [&str; 3] = [
    "--leader-elect-lease-duration=3s",
    "--leader-elect-renew-deadline=2s",
    "--leader-elect-retry-period=500ms",
];

async fn start(etcd: &EtcdProcess, address: &str, flags: &[&str]) -> Server {
    let (servers, bind) = (format!("--etcd-servers={}", etcd.url()), format!("--bind-address={address}"));
    Server::start_with(&[flags, &[&servers, &bind]].concat()).await
}

async fn get(pool: &Pool, path: &str) -> Option<Value> {
    serde_json::from_slice(&pool.call(&Call::get(path)).await.ok()?).ok()
}

/// Returns the process that runs the controllers.
async fn leader(pool: &Pool) -> Option<String> {
    Some(get(pool, LEASE).await?.pointer("/spec/holderIdentity")?.as_str()?.to_owned())
}

/// Creates a namespace and waits for a controller to create its service account.
async fn controllers_act(pool: &Pool, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    pool.call(&Call::post(NAMESPACES, namespace.to_string())).await.unwrap();
    let account = format!("{NAMESPACES}/{name}/serviceaccounts/default");
    eventually("the service account exists", async || get(pool, &account).await.is_some()).await;
}

#[tokio::test]
async fn another_server_takes_over_the_controllers() {
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let mut one = start(&etcd, "127.0.0.1", &ELECTION).await;
    let here = one.target().pool(1).await.unwrap();
    eventually("a leader", async || leader(&here).await.is_some()).await;
    let first = leader(&here).await;
    let two = start(&etcd, "127.0.0.2", &ELECTION).await;
    let there = two.target().pool(1).await.unwrap();
    controllers_act(&there, "led-by-one").await;
    assert_eq!(leader(&there).await, first);
    one.kill9();
    eventually("another leader", async || leader(&there).await.is_some_and(|it| Some(it) != first)).await;
    controllers_act(&there, "led-by-two").await;
}

#[tokio::test]
async fn warns_if_pods_trust_another_ca() {
    const WARNING: &str = "pods do not trust this server";
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let one = start(&etcd, "127.0.0.1", &[]).await;
    let here = one.target().pool(1).await.unwrap();
    let published = format!("{NAMESPACES}/kube-system/configmaps/kube-root-ca.crt");
    eventually("the CA is published", async || get(&here, &published).await.is_some()).await;
    let two = start(&etcd, "127.0.0.2", &[]).await;
    eventually("the other server warns", async || two.log().contains(WARNING)).await;
    assert!(!one.log().contains(WARNING));
}

#[tokio::test]
async fn definitions_are_served_by_all_servers() {
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let one = start(&etcd, "127.0.0.1", &["--controllers=none"]).await;
    let two = start(&etcd, "127.0.0.2", &["--controllers=none"]).await;
    let (here, there) = (one.target().pool(1).await.unwrap(), two.target().pool(1).await.unwrap());
    for number in 0..5 {
        let (plural, kind) = (format!("things{number}"), format!("Thing{number}"));
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": plural, "kind": kind},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        });
        here.call(&Call::post(DEFINITIONS, definition.to_string())).await.unwrap();
        let path = format!("/apis/example.com/v1/{plural}");
        let thing = json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a"}});
        eventually("the first server serves the resource", async || get(&here, &path).await.is_some()).await;
        here.call(&Call::post(&path, thing.to_string())).await.unwrap();
        eventually("the second server serves the object", async || {
            get(&there, &format!("{path}/a")).await.is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn goaway_lets_requests_complete() {
    let server = Server::start_with(&["--controllers=none", "--goaway-chance=0.02"]).await;
    let target = server.target();
    for _ in 0..3 {
        let mut connection = target.connect_http2().await.unwrap();
        let mut answered = 0;
        while let Ok(response) = connection.send(&Call::get("/version")).await {
            assert_eq!(response.status().as_u16(), 200);
            answered += 1;
            // Without a GOAWAY in 10,000 requests, the flag has no effect.
            assert!(answered < 10_000);
        }
        assert!(answered > 0);
    }
}
