//! Servers of different versions over one etcd: requests for resources that only the other one serves.

use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::{eventually, pause, resume};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::drop_in::{Authority, Program, free_port};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// The resources that a server of an older version lacks.
const OLDER: &str = "--runtime-config=policy/v1=false,authentication.k8s.io/v1=false";

/// An etcd and the files of its servers.
struct Cluster {
    etcd: EtcdProcess,
    folder: TempDir,
}

/// A server and its port.
struct Peer {
    program: Option<Program>,
    port: u16,
}

impl Cluster {
    fn create() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = Authority::create(folder.path(), "ca");
        ca.issue("server", "kube-apiserver", None);
        ca.issue("admin", "admin", Some("system:masters"));
        ca.issue("alice", "alice", Some("team"));
        Authority::create(folder.path(), "proxy-ca").issue("proxy", "front-proxy-client", None);
        Authority::create(folder.path(), "other-ca");
        Self { etcd: EtcdProcess::start(&installed_etcd("3.5")), folder }
    }

    async fn start(&self, name: &str, peer_ca: &str, more: &[&str]) -> Peer {
        let port = free_port();
        let mut flags: Vec<String> = [
            "--client-ca-file=ca.crt",
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
            "--requestheader-client-ca-file=proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--proxy-client-cert-file=proxy.crt",
            "--proxy-client-key-file=proxy.key",
            "--controllers=none",
        ]
        .iter()
        .chain(more)
        .map(|&flag| flag.to_owned())
        .collect();
        if !peer_ca.is_empty() {
            flags.push(format!("--peer-ca-file={peer_ca}"));
        }
        flags.push(format!("--hostname-override={name}"));
        flags.push(format!("--data-dir=data-{name}"));
        flags.push(format!("--etcd-servers={}", self.etcd.url()));
        flags.push(format!("--secure-port={port}"));
        let program = Some(Program::start(self.folder.path(), name, &flags));
        let peer = Peer { program, port };
        let admin = peer.client(self, "admin").await;
        eventually(&format!("{name} is ready"), async || get(&admin, "/readyz").await.0 == 200).await;
        peer
    }
}

impl Peer {
    async fn client(&self, cluster: &Cluster, user: &str) -> kube::Client {
        // Fails if another test of this process has already installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let at = |name: String| cluster.folder.path().join(name).display().to_string();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": at("ca.crt".into())}}],
            "users": [{"name": "u", "user": {
                "client-certificate": at(format!("{user}.crt")), "client-key": at(format!("{user}.key"))}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        let config: Kubeconfig = serde_json::from_value(config).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let mut config = config.unwrap();
        // The tests see each 503.
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    fn pid(&self) -> u32 {
        self.program.as_ref().unwrap().pid()
    }
}

/// Sends a request and returns the status and the body.
async fn send(client: &kube::Client, request: http::request::Builder, body: Vec<u8>) -> (u16, String) {
    let request = request.body(Body::from(body)).unwrap();
    match client.send(request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect_bytes().await.unwrap_or_default();
            (status, String::from_utf8_lossy(&body).into_owned())
        }
        Err(error) => (0, error.to_string()),
    }
}

async fn get(client: &kube::Client, path: &str) -> (u16, String) {
    send(client, http::Request::get(path), Vec::new()).await
}

async fn post(client: &kube::Client, path: &str, object: &Value) -> (u16, String) {
    let request = http::Request::post(path).header("content-type", "application/json");
    send(client, request, object.to_string().into_bytes()).await
}

/// Returns the names of the groups at `/apis`.
async fn groups(client: &kube::Client, profile: &str) -> Vec<String> {
    let request = http::Request::get("/apis").header("accept", format!("{AGGREGATED}{profile}"));
    let (_, body) = send(client, request, Vec::new()).await;
    let list: Value = serde_json::from_str(&body).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|group| Some(group["metadata"]["name"].as_str()?.to_owned())).collect()
}

fn budget(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}})
}

#[tokio::test]
async fn requests_reach_the_server_that_has_the_resource() {
    let cluster = Cluster::create();
    let mut new = cluster.start("new", "ca.crt", &[]).await;
    let old = cluster.start("old", "ca.crt", &[OLDER]).await;
    let (admin, there) = (old.client(&cluster, "admin").await, new.client(&cluster, "admin").await);
    eventually("the old server knows its peer", async || get(&admin, BUDGETS).await.0 == 200).await;
    let (status, body) = post(&admin, BUDGETS, &budget("a")).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(get(&there, &format!("{BUDGETS}/a")).await.0, 200);
    let (status, events) = get(&admin, &format!("{BUDGETS}?watch=true&timeoutSeconds=1")).await;
    assert!(status == 200 && events.contains("ADDED") && events.contains("\"name\":\"a\""), "{events}");
    let mut negative = budget("b");
    negative["spec"]["minAvailable"] = json!(-1);
    let (status, body) = post(&admin, BUDGETS, &negative).await;
    assert!(status == 422 && body.contains("spec.minAvailable"), "{body}");

    // Discovery has the resources of both, and on request only those of the server itself.
    let merged = groups(&admin, "").await;
    assert!(merged.contains(&"policy".to_owned()), "{merged:?}");
    assert_eq!(merged, groups(&there, "").await);
    let own = groups(&admin, ";profile=nopeer").await;
    assert!(!own.is_empty() && !own.contains(&"policy".to_owned()), "{own:?}");

    // The user travels, with the groups; what the client says about users and peers does not.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let alice = old.client(&cluster, "alice").await;
    let forged = [
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("x_remote_group", "system:masters"),
        ("x-remote-extra-scopes", "all"),
        ("x-kubernetes-peer-proxied", "false"),
    ];
    let mut request = http::Request::post(REVIEWS).header("content-type", "application/json");
    for (name, value) in forged {
        request = request.header(name, value);
    }
    let (status, body) = send(&alice, request, review.to_string().into_bytes()).await;
    let review: Value = serde_json::from_str(&body).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!((status, &user["username"]), (201, &json!("alice")), "{body}");
    assert_eq!(user["groups"], json!(["team", "system:authenticated"]));
    assert!(user["extra"].get("scopes").is_none(), "{body}");
    assert_eq!(get(&alice, BUDGETS).await.0, 403);
    let impersonated = http::Request::get(BUDGETS).header("impersonate-user", "bob");
    let (status, body) = send(&admin, impersonated, Vec::new()).await;
    assert!(status == 403 && body.contains("bob"), "{body}");

    // A request that was passed on once is served here, also if a client says so.
    let proxied = http::Request::get(BUDGETS).header("x-kubernetes-peer-proxied", "true");
    assert_eq!(send(&admin, proxied, Vec::new()).await.0, 404);
    // Unknown resources are unknown everywhere.
    assert_eq!(get(&admin, "/apis/policy/v1/namespaces/default/nothings").await.0, 404);

    let (_, metrics) = get(&admin, "/metrics").await;
    let line = "apiserver_rerouted_request_total{code=\"201\",group=\"policy\",resource=\"poddisruptionbudgets\",version=\"v1\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(get(&admin, "/readyz/poststarthook/mixed-version-proxy-handler").await.0, 200);

    // A server that stops takes its identity away.
    assert_eq!(new.program.as_mut().unwrap().terminate().await, Some(0));
    eventually("the peer is forgotten", async || get(&admin, BUDGETS).await.0 == 404).await;
    assert!(!groups(&admin, "").await.contains(&"policy".to_owned()));
}

#[tokio::test]
async fn a_peer_that_is_down_is_not_a_missing_resource() {
    let cluster = Cluster::create();
    let mut new = cluster.start("new", "ca.crt", &[]).await;
    let old = cluster.start("old", "ca.crt", &[OLDER]).await;
    let admin = old.client(&cluster, "admin").await;
    eventually("the old server knows its peer", async || get(&admin, BUDGETS).await.0 == 200).await;
    pause(new.pid());
    // New connections time out, and other resources are served meanwhile.
    let watch = format!("{BUDGETS}?watch=true&timeoutSeconds=60");
    let (stopped, own) = tokio::join!(get(&admin, &watch), get(&admin, "/api/v1/namespaces"));
    assert_eq!((stopped.0, own.0), (503, 200), "{stopped:?}");
    resume(new.pid());
    eventually("the peer answers again", async || get(&admin, BUDGETS).await.0 == 200).await;
    drop(new.program.take());
    let (status, body) = get(&admin, BUDGETS).await;
    assert_eq!(status, 503, "{body}");
    // When its address has expired, its identity is still known.
    let expired = "Error getting ip and port info of the remote server while proxying";
    eventually("the address expires", async || {
        let (status, body) = get(&admin, BUDGETS).await;
        assert_eq!(status, 503, "{body}");
        body.contains(expired)
    })
    .await;
}

#[tokio::test]
async fn a_peer_of_another_ca_is_not_believed() {
    let cluster = Cluster::create();
    let _new = cluster.start("new", "ca.crt", &[]).await;
    let old = cluster.start("old", "other-ca.crt", &[OLDER]).await;
    let admin = old.client(&cluster, "admin").await;
    let failed = "apiserver_peer_discovery_sync_errors_total{type=\"fetch_discovery\"}";
    eventually("the peer is refused", async || get(&admin, "/metrics").await.1.contains(failed)).await;
    assert_eq!(get(&admin, BUDGETS).await.0, 404);
    assert!(!groups(&admin, "").await.contains(&"policy".to_owned()));
    assert!(
        old.program.as_ref().unwrap().log().contains("unknown authority"),
        "{}",
        old.program.unwrap().log()
    );
}

#[tokio::test]
async fn a_server_without_the_flag_passes_nothing_on() {
    let cluster = Cluster::create();
    let new = cluster.start("new", "ca.crt", &[]).await;
    let old = cluster.start("old", "", &[OLDER]).await;
    let (admin, there) = (old.client(&cluster, "admin").await, new.client(&cluster, "admin").await);
    // The other server finds it.
    let found = "apiserver_rerouted_request_total{code=\"200\",group=\"\",resource=\"\",version=\"\"}";
    eventually("the new server reads the old one", async || get(&there, "/metrics").await.1.contains(found))
        .await;
    assert_eq!(get(&admin, BUDGETS).await.0, 404);
    let (_, metrics) = get(&admin, "/metrics").await;
    assert!(!metrics.contains("rerouted") && !metrics.contains("peer_aggregated"));
    assert_eq!(get(&admin, "/readyz/poststarthook/mixed-version-proxy-handler").await.0, 404);
}
