//! Single faults of the write path.

use http::Method;
use nave_machinery::{Value, meta};
use serde_json::json;

use crate::faults::Fault;
use crate::world::{FIRST_PORT, TestResponse, World};

fn service(name: &str, port: u16) -> Value {
    let ports = json!([{"port": 80, "nodePort": port}]);
    json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})
}

fn pod(name: &str) -> Value {
    let containers = json!([{"name": "c", "image": "i"}]);
    json!({"metadata": {"name": name}, "spec": {"nodeName": "n", "containers": containers}})
}

struct Space {
    world: World,
    namespace: String,
}

impl Space {
    async fn new() -> Self {
        let mut world = World::new().await;
        let namespace = world.namespace().await;
        Self { world, namespace }
    }

    fn path(&self, resource: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}/{name}", self.namespace).trim_end_matches('/').to_owned()
    }

    async fn create(&self, resource: &str, object: &Value) -> TestResponse {
        self.world.send(Method::POST, &self.path(resource, ""), object).await
    }

    async fn send(&self, method: Method, resource: &str, name: &str, body: &Value) -> TestResponse {
        self.world.send(method, &self.path(resource, name), body).await
    }

    async fn delete(&self, resource: &str, name: &str, options: &Value) -> TestResponse {
        self.send(Method::DELETE, resource, name, options).await
    }

    async fn nothing_leaks(&self) {
        self.world.quiet().await;
        assert_eq!(self.world.allocated().await, self.world.should_be_allocated().await);
    }
}

#[tokio::test]
async fn rejected_services_leak_no_address() {
    let space = Space::new().await;
    space.create("services", &service("taken", FIRST_PORT)).await;
    let ports = |spec: Value| json!({"metadata": {"name": "refused"}, "spec": spec});
    let mut refused = vec![
        ports(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]})),
        ports(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": FIRST_PORT}]})),
        ports(json!({"ports": [{"port": 80}], "sessionAffinity": "Bogus"})),
        ports(json!({"ports": [{"port": 0}]})),
        ports(json!({"clusterIP": "10.9.9.9", "ports": [{"port": 80}]})),
    ];
    let mut by_admission = ports(json!({"ports": [{"port": 80}]}));
    by_admission["metadata"]["labels"] = json!({"refuse": "true"});
    refused.push(by_admission);
    // Makes more attempts than there are addresses.
    for attempt in 0..20 {
        for service in &refused {
            let answer = space.create("services", service).await;
            assert!(matches!(answer.code, 403 | 422), "{attempt}: {service} is answered with {answer:?}");
        }
    }
    space.nothing_leaks().await;
}

#[tokio::test]
async fn dry_runs_allocate_nothing() {
    let space = Space::new().await;
    space.create("services", &service("s", FIRST_PORT)).await;
    let update = service("s", FIRST_PORT + 1);
    for (method, name) in [(Method::PUT, "s"), (Method::PATCH, "s"), (Method::POST, "")] {
        let mut body = update.clone();
        if method == Method::POST {
            body["metadata"]["name"] = json!("other");
        }
        let path = format!("{}?dryRun=All", space.path("services", name));
        let answer = space.world.send(method.clone(), &path, &body).await;
        assert!(answer.is_success(), "{method}: {answer:?}");
        assert_eq!(answer.body["spec"]["ports"][0]["nodePort"], FIRST_PORT + 1);
        space.nothing_leaks().await;
    }
}

#[tokio::test]
async fn an_unknown_outcome_frees_nothing_until_it_is_known() {
    let space = Space::new().await;
    space.world.store.hold_back(true);
    let (address, ports, service_itself) = (0, 1, 2);
    for (fault, others, code) in [
        (Fault::AnswerLost, address, 201),
        (Fault::Lost, address, 201),
        (Fault::AnswerLost, ports, 201),
        (Fault::Lost, ports, 201),
        (Fault::Lost, service_itself, 201),
        (Fault::AnswerLost, service_itself, 422),
    ] {
        space.world.store.fail_after(others, fault);
        let answer = space.create("services", &service("first", FIRST_PORT)).await;
        assert_eq!(answer.code, 500, "{answer:?}");
        space.world.quiet().await;
        space.world.repair().await;
        space.nothing_leaks().await;
        let answer = space.create("services", &service("second", FIRST_PORT)).await;
        assert_eq!(answer.code, code, "{fault:?} after {others}: {answer:?}");
        space.nothing_leaks().await;
        for name in ["first", "second"] {
            space.delete("services", name, &Value::Null).await;
        }
        space.nothing_leaks().await;
    }
}

#[tokio::test]
async fn a_disconnected_client_leaves_consistent_allocations() {
    let space = Space::new().await;
    space.world.store.hold_back(true);
    for polls in 0..60 {
        let name = format!("s{polls}");
        let path = space.path("services", "");
        let body = service(&name, FIRST_PORT);
        space.world.send_and_leave(Method::POST, &path, &body, polls).await;
        space.nothing_leaks().await;
        space.create("services", &body).await;
        let path = space.path("services", &name);
        space.world.send_and_leave(Method::DELETE, &path, &Value::Null, polls).await;
        space.nothing_leaks().await;
        space.delete("services", &name, &Value::Null).await;
        space.nothing_leaks().await;
    }
    let answer = space.create("services", &service("last", FIRST_PORT)).await;
    assert_eq!(answer.code, 201, "{answer:?}");
}

#[tokio::test]
async fn two_writers_never_get_the_same_port() {
    let space = Space::new().await;
    for round in 0..50 {
        let (one, other) = (service("one", FIRST_PORT), service("other", FIRST_PORT));
        let first = space.create("services", &one);
        let second = space.create("services", &one);
        let third = space.create("services", &other);
        let (first, second, third) = tokio::join!(first, second, third);
        let codes = [first.code, second.code, third.code];
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{round}: {codes:?}");
        space.nothing_leaks().await;
        for name in ["one", "other"] {
            space.delete("services", name, &Value::Null).await;
        }
        space.nothing_leaks().await;
    }
}

#[tokio::test]
async fn failed_preconditions_delete_nothing() {
    let space = Space::new().await;
    space.create("configmaps", &json!({"metadata": {"name": "c"}})).await;
    for options in [
        json!({"dryRun": "All"}),
        json!({"gracePeriodSeconds": "0"}),
        json!({"preconditions": {"uid": 5}}),
        json!({"preconditions": {"resourceVersion": 5}}),
        json!({"apiVersion": "a/b/c", "kind": "DeleteOptions"}),
        json!({"apiVersion": "v1", "kind": "ConfigMap"}),
        json!({"propagationPolicy": 1}),
        json!([]),
        json!("x"),
    ] {
        for name in ["c", ""] {
            let answer = space.delete("configmaps", name, &options).await;
            assert_eq!(answer.code, 400, "{name}: {options} is answered with {answer:?}");
        }
    }
    assert_eq!(space.send(Method::GET, "configmaps", "c", &Value::Null).await.code, 200);
}

#[tokio::test]
async fn a_negative_grace_period_is_one_second() {
    let space = Space::new().await;
    space.create("pods", &pod("p")).await;
    for (options, grace) in [
        (Value::Null, 30),
        (json!({"gracePeriodSeconds": -1}), 1),
        (json!({"gracePeriodSeconds": i64::MIN}), 1),
    ] {
        let answer = space.delete("pods", "p", &options).await;
        assert_eq!(answer.body["metadata"]["deletionGracePeriodSeconds"], grace, "{answer:?}");
        assert_eq!(space.send(Method::GET, "pods", "p", &Value::Null).await.code, 200);
    }
    assert_eq!(space.delete("pods", "p", &json!({"gracePeriodSeconds": 0})).await.code, 200);
    assert_eq!(space.send(Method::GET, "pods", "p", &Value::Null).await.code, 404);
}

#[tokio::test]
async fn only_a_deletion_sets_the_metadata_of_deletions() {
    let space = Space::new().await;
    space.create("pods", &pod("p")).await;
    space.create("services", &service("s", FIRST_PORT)).await;
    let forged = [
        json!({"metadata": {"deletionGracePeriodSeconds": 0}}),
        json!({"metadata": {"deletionGracePeriodSeconds": 5}}),
        json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}}),
        json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}}),
    ];
    for path in ["p", "p/status"] {
        for patch in &forged {
            let answer = space.send(Method::PATCH, "pods", path, patch).await;
            let metadata = &answer.body["metadata"];
            let is_kept = answer.code == 200
                && metadata.get("deletionTimestamp").is_none()
                && metadata.get("deletionGracePeriodSeconds").is_none();
            assert!(answer.code == 422 || is_kept, "{path}: {patch} is answered with {answer:?}");
        }
    }
    for patch in &forged {
        assert_eq!(space.send(Method::PATCH, "services", "s", patch).await.code, 422, "{patch}");
    }
    // Once set, an update cannot remove or change this metadata.
    space.delete("pods", "p", &Value::Null).await;
    for patch in &forged {
        let answer = space.send(Method::PATCH, "pods", "p", patch).await;
        assert!(matches!(answer.code, 200 | 422), "{answer:?}");
        let pod = space.send(Method::GET, "pods", "p", &Value::Null).await.body;
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30, "{patch}");
    }
}

#[tokio::test]
async fn deletions_do_not_rely_on_a_stale_cache() {
    let space = Space::new().await;
    space.create("pods", &pod("p")).await;
    space.delete("pods", "p", &Value::Null).await;
    space.world.caught_up().await;
    space.world.store.hold_back(true);
    // The cache still has a pod whose deletion is pending.
    space.delete("pods", "p", &json!({"gracePeriodSeconds": 0})).await;
    let created = space.create("pods", &pod("p")).await;
    assert_eq!(created.code, 201, "{created:?}");
    for dry_run in [true, false] {
        let options = if dry_run { json!({"dryRun": ["All"]}) } else { json!({}) };
        let answer = space.delete("pods", "p", &options).await;
        assert_eq!(meta::uid(&answer.body), meta::uid(&created.body), "{answer:?}");
        assert!(meta::deletion_timestamp(&answer.body).is_some(), "{answer:?}");
    }
}

#[tokio::test]
async fn generates_another_name_if_one_is_taken() {
    let space = Space::new().await;
    // The suffix has 27^5 values, so the store must simulate collisions.
    let map = json!({"metadata": {"generateName": "map-"}});
    space.world.store.collide(7);
    let answer = space.create("configmaps", &map).await;
    assert_eq!(answer.code, 201, "{answer:?}");
    space.world.store.collide(8);
    let answer = space.create("configmaps", &map).await;
    let text = ", the server was not able to generate a unique name for the object";
    assert_eq!((answer.code, &answer.body["reason"]), (409, &json!("AlreadyExists")), "{answer:?}");
    assert!(answer.body["message"].as_str().unwrap().ends_with(text), "{answer:?}");
    assert_eq!(answer.body["details"]["retryAfterSeconds"], 1);
    // A name chosen by the client is tried only once.
    space.world.store.collide(1);
    let answer = space.create("configmaps", &json!({"metadata": {"name": "map"}})).await;
    assert_eq!(answer.code, 409, "{answer:?}");
}

#[tokio::test]
async fn an_update_from_an_old_state_does_not_recreate_a_deleted_object() {
    let space = Space::new().await;
    let created = space.create("services", &service("s", FIRST_PORT)).await;
    assert_eq!(space.delete("services", "s", &json!({})).await.code, 200);
    let answer = space.send(Method::PUT, "services", "s", &created.body).await;
    assert_eq!(answer.code, 409, "{answer:?}");
    assert!(answer.body["message"].as_str().unwrap().contains("UID in precondition"), "{answer:?}");
    assert_eq!(space.send(Method::GET, "services", "s", &Value::Null).await.code, 404);
    space.nothing_leaks().await;
}

#[tokio::test]
async fn an_update_that_loses_to_a_deletion_is_answered_as_one_after_it() {
    let space = Space::new().await;
    let mut service = space.create("services", &service("s", FIRST_PORT)).await.body;
    meta::remove(&mut service, "uid");
    space.world.caught_up().await;
    space.world.store.hold_back(true);
    // The cache still has the service.
    assert_eq!(space.delete("services", "s", &json!({})).await.code, 200);
    let lost = space.send(Method::PUT, "services", "s", &service).await;
    assert!(lost.code < 500, "{lost:?}");
    space.world.store.hold_back(false);
    space.world.caught_up().await;
    space.delete("services", "s", &json!({})).await;
    space.world.caught_up().await;
    let after = space.send(Method::PUT, "services", "s", &service).await;
    assert_eq!((lost.code, &lost.body["reason"]), (after.code, &after.body["reason"]), "{lost:?} {after:?}");
}

#[tokio::test]
async fn all_of_many_concurrent_writers_succeed() {
    let space = Space::new().await;
    space.create("configmaps", &json!({"metadata": {"name": "m"}})).await;
    let patches = (0..100).map(|writer| {
        let (space, path) = (&space, space.path("configmaps", "m"));
        let patch = json!({"data": {format!("k{writer}"): ""}});
        async move { space.world.send(Method::PATCH, &path, &patch).await }
    });
    for answer in futures_util::future::join_all(patches).await {
        assert_eq!(answer.code, 200, "{answer:?}");
    }
    let stored = space.send(Method::GET, "configmaps", "m", &Value::Null).await;
    assert_eq!(stored.body["data"].as_object().unwrap().len(), 100);
}

#[tokio::test]
async fn an_update_creates_if_allowed() {
    let space = Space::new().await;
    let answer = space.send(Method::PUT, "services", "s", &service("s", FIRST_PORT)).await;
    assert_eq!((answer.code, &answer.body["spec"]["ports"][0]["nodePort"]), (201, &json!(FIRST_PORT)));
    assert_eq!(space.send(Method::PUT, "services", "s", &service("s", FIRST_PORT + 1)).await.code, 200);
    let path = format!("{}?dryRun=All", space.path("services", "other"));
    assert_eq!(space.world.send(Method::PUT, &path, &service("other", FIRST_PORT)).await.code, 201);
    assert_eq!(space.send(Method::GET, "services", "other", &Value::Null).await.code, 404);
    let map = json!({"metadata": {"name": "m"}});
    assert_eq!(space.send(Method::PUT, "configmaps", "m", &map).await.code, 404);
    space.nothing_leaks().await;
}
