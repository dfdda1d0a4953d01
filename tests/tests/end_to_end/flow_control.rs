//! Priority and fairness of a busy server.

use http::Method;
use nave_loadtest::http::{Call, Connection, StreamingResponse, scan_field};
use nave_tests::{Server, eventually};
use tokio::task::JoinSet;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const NODE_LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const SYSTEM_LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// The limits of the server: few requests at a time, and enough time for a slow machine.
const LIMITS: [&str; 5] = [
    "--controllers=none",
    "--authorization-mode=AlwaysAllow",
    "--max-requests-inflight=20",
    "--max-mutating-requests-inflight=20",
    "--request-timeout=10m",
];

/// Rounds of the system's requests.
const ROUNDS: usize = 20;

/// Counts of the requests that the system made during a flood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Served {
    ok: usize,
    rejected: usize,
}

/// A lease that its holder renews.
struct Lease {
    path: String,
    version: String,
    user: &'static str,
    group: &'static str,
}

impl Lease {
    async fn create(
        server: &Server,
        collection: &str,
        name: &str,
        user: &'static str,
        group: &'static str,
    ) -> Self {
        let pool = server.target().pool(1).await.unwrap();
        let created = pool.call(&Call::post(collection, lease(name, "", 0))).await.unwrap();
        let version = scan_field(&created, "resourceVersion").unwrap().to_owned();
        Self { path: format!("{collection}/{name}"), version, user, group }
    }

    fn read(&self) -> Call {
        Call::get(&self.path).as_user(self.user, self.group)
    }

    fn renew(&self, round: usize) -> Call {
        let name = self.path.rsplit('/').next().unwrap();
        let body = lease(name, &self.version, round);
        Call::new(Method::PUT, &self.path, Some("application/json"), body.into())
            .as_user(self.user, self.group)
    }
}

fn lease(name: &str, version: &str, round: usize) -> String {
    format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}","resourceVersion":"{version}"}},"spec":{{"holderIdentity":"h-{round}"}}}}"#
    )
}

/// Starts clients of one user that list large objects and do not read the answers, so that the requests do not end.
async fn flood_with_lists(server: &Server) -> JoinSet<Option<(Connection, StreamingResponse)>> {
    let pool = server.target().pool(1).await.unwrap();
    let text = "x".repeat(400_000);
    for number in 0..30 {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"large-{number}"}},"data":{{"text":"{text}"}}}}"#
        );
        pool.call(&Call::post(MAPS, body)).await.unwrap();
    }
    let mut readers = JoinSet::new();
    for _ in 0..60 {
        let target = server.target();
        readers.spawn(async move {
            let mut connection = target.connect_slow_reader().await.ok()?;
            let list = Call::get(MAPS).as_user("lister", "flood");
            let response = connection.send(&list).await.ok()?;
            Some((connection, response))
        });
    }
    readers
}

/// Starts clients of one user that create objects without a pause.
async fn flood_with_creates(server: &Server) -> JoinSet<()> {
    let pool = server.target().pool(4).await.unwrap();
    let mut creators = JoinSet::new();
    for creator in 0..60 {
        let pool = pool.clone();
        creators.spawn(async move {
            for number in 0.. {
                let body = format!(
                    r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m-{creator}-{number}"}}}}"#
                );
                // Rejections are expected.
                let _ = pool.call(&Call::post(MAPS, body).as_user("creator", "flood")).await;
            }
        });
    }
    creators
}

/// Makes the requests of a kubelet, of a leader and of a health check.
async fn system_requests(server: &Server, leases: &mut [Lease]) -> Served {
    let mut connection = server.target().connect_http1().await.unwrap();
    let mut served = Served::default();
    let mut send = async |call: Call| {
        let response = connection.send(&call).await.unwrap();
        let status = response.status().as_u16();
        let body = response.read_all().await.unwrap();
        match status {
            200 => served.ok += 1,
            429 => served.rejected += 1,
            other => panic!("{other} for {}: {}", call.path, String::from_utf8_lossy(&body)),
        }
        (status == 200).then_some(body)
    };
    for round in 1..=ROUNDS {
        for lease in leases.iter_mut() {
            send(lease.read()).await;
            if let Some(renewed) = send(lease.renew(round)).await {
                scan_field(&renewed, "resourceVersion").unwrap().clone_into(&mut lease.version);
            }
        }
        send(Call::get("/healthz").as_user("prober", "probers")).await;
    }
    served
}

/// Returns the system's requests while other users flood the server.
async fn served_under_flood(flags: &[&str], is_flooded: impl AsyncFn(&Server) -> bool) -> Served {
    let flags = [&LIMITS, flags].concat();
    let server = Server::start_with(&flags).await;
    let mut leases = [
        Lease::create(&server, NODE_LEASES, "n1", "system:node:n1", "system:nodes").await,
        Lease::create(&server, SYSTEM_LEASES, "leader", "system:kube-controller-manager", "managers").await,
    ];
    let readers = flood_with_lists(&server).await;
    let creators = flood_with_creates(&server).await;
    eventually("the flood", async || is_flooded(&server).await).await;
    let served = system_requests(&server, &mut leases).await;
    drop((readers, creators));
    served
}

#[tokio::test]
async fn a_flood_of_other_users_does_not_reject_requests_of_the_system() {
    let all = Served { ok: ROUNDS * 5, rejected: 0 };
    // Lists wait in the queues of their user.
    let waits = async |server: &Server| {
        let pool = server.target().pool(1).await.unwrap();
        let dump = pool.call(&Call::get("/debug/api_priority_and_fairness/dump_requests")).await.unwrap();
        let dump = String::from_utf8_lossy(&dump);
        dump.lines().filter(|line| line.contains("lister") && line.contains("0001-01-01")).count() >= 5
    };
    assert_eq!(served_under_flood(&[], waits).await, all);
    // Without priority and fairness, the first user takes all places.
    let is_full = async |server: &Server| {
        let mut connection = server.target().connect_http1().await.unwrap();
        let get = Call::get(format!("{NODE_LEASES}/n1")).as_user("system:node:n1", "system:nodes");
        connection.send(&get).await.unwrap().status() == 429
    };
    let served = served_under_flood(&["--enable-priority-and-fairness=false"], is_full).await;
    assert!(served.rejected >= ROUNDS * 2, "{served:?}");
}

#[tokio::test]
async fn the_configuration_survives_kill_9_and_bad_objects_are_refused() {
    let mut server = Server::start_without_controllers().await;
    let level = r#"{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"PriorityLevelConfiguration","metadata":{"name":"own"},
        "spec":{"type":"Limited","limited":{"nominalConcurrencyShares":5,"limitResponse":{"type":"Reject"}}}}"#;
    let schema = |name: &str, level: &str, precedence: u32| {
        format!(
            r#"{{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"FlowSchema","metadata":{{"name":"{name}"}},"spec":{{
            "priorityLevelConfiguration":{{"name":"{level}"}},"matchingPrecedence":{precedence},
            "rules":[{{"subjects":[{{"kind":"User","user":{{"name":"uma"}}}}],
            "nonResourceRules":[{{"verbs":["*"],"nonResourceURLs":["*"]}}]}}]}}}}"#
        )
    };
    let pool = server.target().pool(1).await.unwrap();
    pool.call(&Call::post(LEVELS, level)).await.unwrap();
    pool.call(&Call::post(SCHEMAS, schema("own", "own", 700))).await.unwrap();
    pool.call(&Call::post(SCHEMAS, schema("dangling", "none", 600))).await.unwrap();
    // A level with type and fields that do not fit, an unknown distinguisher, and the precedence of the exempt schema.
    for (path, body) in [
        (LEVELS, level.replace("own", "bad").replace("Limited", "Exempt")),
        (LEVELS, level.replace("own", "bad").replace("Reject", "Queue")),
        (SCHEMAS, schema("bad", "own", 1)),
        (SCHEMAS, schema("bad", "own", 20_000)),
    ] {
        let error = pool.call(&Call::post(path, body)).await.unwrap_err().to_string();
        assert!(error.contains("422"), "{error}");
    }
    server
        .kubectl_fails(&[
            "patch",
            "prioritylevelconfiguration",
            "catch-all",
            "--type=merge",
            "-p",
            r#"{"spec":{"limited":{"nominalConcurrencyShares":9}}}"#,
        ])
        .await;
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart().await;
        }
        let uid = server.kubectl(&["get", "flowschema", "own", "-o", "jsonpath={.metadata.uid}"]).await;
        let target = server.target();
        eventually("the flow of the user", async || {
            let mut connection = target.connect_http1().await.unwrap();
            let response = connection.send(&Call::get("/version").as_user("uma", "people")).await.unwrap();
            response.header("x-kubernetes-pf-flowschema-uid") == Some(&*uid)
        })
        .await;
        for (name, status) in [("own", "False"), ("dangling", "True")] {
            let path = r#"jsonpath={.status.conditions[?(@.type=="Dangling")].status}"#;
            eventually("the condition", async || {
                server.kubectl(&["get", "flowschema", name, "-o", path]).await == status
            })
            .await;
        }
    }
    // Mandatory objects come back.
    server.kubectl(&["delete", "flowschema", "exempt", "probes"]).await;
    for name in ["exempt", "probes"] {
        eventually("the object", async || {
            let table = server.kubectl(&["get", "flowschemas", "--no-headers"]).await;
            table.lines().any(|line| line.starts_with(&format!("{name} ")))
        })
        .await;
    }
    // Schemas are shown in the order in which they are tried.
    let table = server.kubectl(&["get", "flowschemas", "--no-headers"]).await;
    let names: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        (names[..2].to_vec(), names.last()),
        (vec!["exempt", "probes"], Some(&"catch-all")),
        "{table}"
    );
}
