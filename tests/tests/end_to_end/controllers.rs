//! Controllers in separate processes, and their watches on the server.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::ListParams;
use nave_loadtest::http::Call;
use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually, server_binary};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A controllers process. Dropping it kills the process.
pub(crate) struct Controllers {
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

impl Controllers {
    fn start(server: &Server, name: &str) -> Self {
        Self::start_with(server, name, &[])
    }

    /// Starts a process with extra flags. Its health endpoint uses a free port.
    pub(crate) fn start_with(server: &Server, name: &str, flags: &[&str]) -> Self {
        let file = |kind: &str| server.folder().join(format!("{name}.{kind}"));
        let (output, log) = (file("out"), file("log"));
        let mut command = Command::new(server_binary());
        command.arg("controllers").arg("--kubeconfig").arg(server.kubeconfig());
        // Long enough for a leader on a busy machine to renew its lease in time.
        let election = ["lease-duration=8s", "renew-deadline=6s", "retry-period=200ms"];
        command.args(election.map(|flag| format!("--leader-elect-{flag}")));
        command.arg("--healthz-bind-address=127.0.0.1:0").args(flags);
        command.stdout(File::create(&output).unwrap()).stderr(File::create(&log).unwrap());
        Self { child: command.stdin(Stdio::null()).spawn().unwrap(), output, log }
    }

    /// Returns whether the process is the holder of the lease.
    fn is(&self, holder: &str) -> bool {
        !holder.is_empty() && fs::read_to_string(&self.log).unwrap().contains(holder)
    }

    /// Returns the response at a path of its health endpoint.
    async fn answer(&self, path: &str) -> String {
        let printed = fs::read_to_string(&self.output).unwrap();
        let address =
            printed.trim().strip_prefix("health http://").unwrap().strip_suffix("/healthz").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn lease(server: &Server) -> (String, i32) {
    let leases: Api<Lease> = Api::namespaced(server.client().await, "kube-system");
    let lease = leases.get_opt("kube-controller-manager").await.unwrap();
    let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
    (spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap_or_default())
}

/// Returns the number of events with a reason in the namespace.
async fn done(server: &Server, reason: &str) -> i32 {
    let events: Api<Event> = Api::default_namespaced(server.client().await);
    let all = events.list(&ListParams::default()).await.unwrap();
    let of_reason = all.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of_reason.map(|event| event.count.unwrap_or(1)).sum()
}

#[tokio::test]
async fn standby_takes_over_when_the_leader_is_killed() {
    let server = Server::start_without_controllers().await;
    let _node = FakeNode::start(server.client().await).await;
    let mut both = [Controllers::start(&server, "one"), Controllers::start(&server, "two")];
    server.kubectl(&["create", "deployment", "web", "--image=x", "--replicas=3"]).await;
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;

    let (leader, transitions) = lease(&server).await;
    let leads = both.iter().position(|process| process.is(&leader)).unwrap();
    assert!(!both[1 - leads].is(&leader));
    both[leads].kill9();
    // No controller acts before the lease expires. Then the other process does only the remaining work.
    server.kubectl(&["scale", "deployment/web", "--replicas=5"]).await;
    eventually("the other one leads", async || {
        let holder = lease(&server).await.0;
        holder != leader && both[1 - leads].is(&holder)
    })
    .await;
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;
    assert_eq!(lease(&server).await.1, transitions + 1);

    let elections = ["get", "events", "-n", "kube-system", "-o", "jsonpath={.items[*].message}"];
    eventually("events tell who leads", async || {
        server.kubectl(&elections).await.matches("became leader").count() == 2
    })
    .await;
    let follower = &both[1 - leads];
    assert!(follower.answer("/healthz").await.starts_with("HTTP/1.1 200 OK"));
    let metrics = follower.answer("/metrics").await;
    assert!(metrics.contains("workqueue_adds_total{name=\"deployment\"}"), "{metrics}");
    assert!(follower.answer("/other").await.starts_with("HTTP/1.1 404"));

    eventually("its events are written", async || done(&server, "SuccessfulCreate").await >= 5).await;
    assert_eq!(done(&server, "SuccessfulCreate").await, 5, "each pod was made once");
    assert_eq!(done(&server, "SuccessfulDelete").await, 0);
    let (client, all) = (server.client().await, ListParams::default());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    assert_eq!(pods.list(&all).await.unwrap().items.len(), 5);
    let sets: Api<ReplicaSet> = Api::default_namespaced(client);
    assert_eq!(sets.list(&all).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn controllers_share_one_watch_per_type() {
    // The server itself also watches, for the node authorizer.
    let alone = Server::start_without_controllers().await;
    let server = Server::start().await;
    let watched = ["pods", "replicasets.apps", "deployments.apps", "jobs.batch"];
    // The namespace controllers use the same watches.
    server.kubectl(&["create", "namespace", "some"]).await;
    server.kubectl(&["create", "deployment", "web", "--image=x", "-n", "some"]).await;
    server.kubectl(&["wait", "--for=jsonpath={.status.replicas}=1", "deployment/web", "-n", "some"]).await;
    for resource in watched {
        eventually(&format!("controllers have one watch of {resource}"), async || {
            watchers(&server, resource).await == watchers(&alone, resource).await + 1
        })
        .await;
    }
}

/// Returns the number of watches of a resource, inside and outside the server's process.
async fn watchers(server: &Server, resource: &str) -> u64 {
    let mut connection = server.target().connect_http2().await.unwrap();
    let answer = connection.send(&Call::get("/debug/api_cache")).await.unwrap();
    let caches: Value = serde_json::from_slice(&answer.read_all().await.unwrap()).unwrap();
    let mut all = caches["resources"].as_array().unwrap().iter();
    let cache = all.find(|cache| cache["resource"] == resource).unwrap();
    let counts = cache["watchers"].as_array().into_iter().flatten();
    counts.map(|bucket| bucket["count"].as_u64().unwrap()).sum()
}
