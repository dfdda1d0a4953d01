//! Bodies that are expensive for their size. Each one is rejected or served, the response is small, and the server
//! keeps running.

use nave_machinery::limits::{MAX_BODY_BYTES, MAX_DEPTH};
use serde_json::{Value, json};

use crate::common::{Call, Client, Cluster, cluster_role_in, namespace};

const MAPS: &str = "/api/v1/namespaces/team/configmaps";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

async fn tenant() -> (Cluster, Client) {
    let cluster = Cluster::start(&[namespace("team"), cluster_role_in("team", "admin", "alice")]).await;
    let alice = cluster.user("alice");
    (cluster, alice)
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x"}})
}

fn review(requirements: &str) -> String {
    format!(
        r#"{{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{{"resourceAttributes":{{"verb":"get","resource":"pods","labelSelector":{{"requirements":{requirements}}}}}}}}}"#
    )
}

/// Reviews can be created by any user.
#[tokio::test]
async fn bodies_of_any_user_are_bounded() {
    let cluster = Cluster::start(&[]).await;
    let anybody = cluster.user("anybody");
    let repeated = |item: &str, size: usize| format!("[{}]", vec![item; size / (item.len() + 1)].join(","));
    let large = MAX_BODY_BYTES - 1000;
    let aliases = format!("a: &a {}\nb: {}\n", "x".repeat(100_000), repeated("*a", 100_000));
    let bodies = [
        ("application/json", review(&repeated("{}", 300_000))),
        ("application/json", review(&repeated("{}", large))),
        ("application/json", review(&repeated(r#"{"":0}"#, large))),
        ("application/json", review(&repeated(r#"{"key":"a","operator":"x"}"#, large))),
        ("application/json", review(&"[".repeat(large))),
        ("application/json", repeated(r#"{"":0}"#, large)),
        ("application/json", format!("{{{}0}}", "\"\":".repeat(large / 3))),
        ("application/yaml", aliases),
        ("application/yaml", review(&repeated("{}", 300_000))),
        ("application/yaml", "- ".repeat(100_000)),
        ("application/vnd.kubernetes.protobuf", format!("k8s\0{}", "\u{a}\u{1}x".repeat(large / 3))),
    ];
    for (content_type, body) in bodies {
        let start: String = body.chars().take(20).collect();
        let answer = anybody.send(Call::new("POST", REVIEWS).content_type(content_type).body(body)).await;
        assert!((400..500).contains(&answer.code), "{start}: {}", answer.code);
        assert!(answer.body.len() < 1 << 20, "{start}: {} bytes", answer.body.len());
        let plain = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}});
        assert_eq!(anybody.call_with(&format!("POST {REVIEWS}"), &plain).await.code, 201);
    }
}

#[tokio::test]
async fn patches_cannot_create_oversized_objects() {
    let (cluster, alice) = tenant().await;
    assert_eq!(alice.call_with(&format!("POST {MAPS}"), &map("a")).await.code, 201);
    let mut doubling = vec![json!({"op": "add", "path": "/x", "value": {}})];
    doubling.extend(
        (0..14).map(|at| json!({"op": "copy", "from": "/x", "path": format!("/x{}", "/a".repeat(1 << at))})),
    );
    let growing = vec![json!({"op": "copy", "from": "/data", "path": "/data/b"}); 64];
    let deep = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!({"a": inner}));
    let patches = [
        ("application/json-patch+json", json!(doubling)),
        ("application/json-patch+json", json!(growing)),
        ("application/merge-patch+json", json!({"x": deep})),
        ("application/strategic-merge-patch+json", json!({"x": deep})),
    ];
    for (content_type, patch) in patches {
        let call = Call::new("PATCH", &format!("{MAPS}/a")).content_type(content_type);
        let answer = alice.send(call.body(patch.to_string())).await;
        assert!((400..500).contains(&answer.code), "{content_type}: {}", answer.text());
        assert_eq!(alice.call(&format!("GET {MAPS}/a")).await.value_at("/data"), json!({"a": "x"}));
    }
    assert_eq!(alice.call(&format!("DELETE {MAPS}/a")).await.code, 200);
    assert_eq!(cluster.admin().call("GET /api/v1/configmaps").await.code, 200);
}

/// Many, large or malformed entries: the write gets a response, and the object stays usable.
#[tokio::test]
async fn managed_fields_of_a_tenant_are_bounded() {
    let (_cluster, alice) = tenant().await;
    let data =
        |range: std::ops::Range<usize>| -> Value { range.map(|at| (format!("k{at}"), json!("x"))).collect() };
    let owned = |range: std::ops::Range<usize>| -> Value {
        let fields: Value = range.map(|at| (format!("f:k{at}"), json!({}))).collect();
        json!({ "f:data": fields })
    };
    let entry = |manager: String, operation: &str, fields: Value| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields})
    };
    let many = |operation: &str| -> Value {
        let large = entry("large".to_owned(), operation, owned(0..10_000));
        let small = (0..2000).map(|at| entry(format!("m{at}"), operation, owned(at..at + 1)));
        [large].into_iter().chain(small).collect()
    };
    let ways: Value =
        (0..2000).map(|at| (format!("k:{{\"a\":{}1}}", " ".repeat(at)), owned(at..at + 1))).collect();
    let unprintable = (0..2000).map(|_| entry("\u{1}".repeat(100), "Apply", owned(0..1))).collect();
    let path = format!("{MAPS}/a");
    assert_eq!(alice.call_with(&format!("POST {MAPS}"), &map("a")).await.code, 201);
    for (entries, code) in [
        (many("Update"), 200),
        (many("Apply"), 200),
        (json!([entry("ways".to_owned(), "Update", ways)]), 200),
        (unprintable, 422),
        (json!([entry("m".repeat(100_000), "Update", owned(0..1))]), 422),
    ] {
        let mut body = map("a");
        body["metadata"]["managedFields"] = entries;
        body["data"] = data(5000..6000);
        let answer = alice.call_with(&format!("PUT {path}"), &body).await;
        assert_eq!(answer.code, code);
        assert!(answer.body.len() < 1 << 20, "{} bytes", answer.body.len());
    }
    let mut body = map("a");
    body["metadata"]["managedFields"] = many("Apply");
    body["data"] = data(0..5000);
    assert_eq!(alice.call_with(&format!("PUT {path}"), &body).await.code, 200);
    let mut applied = map("a");
    applied["data"] = (0..5000).map(|at| (format!("k{at}"), json!("y"))).collect();
    for (query, code) in [("", 409), ("&force=true", 200)] {
        let call = Call::new("PATCH", &format!("{path}?fieldManager=m{query}"));
        let answer =
            alice.send(call.content_type("application/apply-patch+yaml").body(applied.to_string())).await;
        assert_eq!(answer.code, code);
        assert!(answer.body.len() < 1 << 20, "{} bytes", answer.body.len());
    }
    assert_eq!(alice.call_with(&format!("PUT {path}"), &map("a")).await.code, 200);
}

/// An object that cannot be decoded does not block reading the others. Users with the right can delete it.
#[tokio::test]
async fn an_undecodable_object_does_not_block_others() {
    let (cluster, alice) = tenant().await;
    let other = cluster.user("other");
    for (verb, path) in [("DELETE", format!("{MAPS}/broken")), ("DELETE", MAPS.to_owned())] {
        let txn = nave_store::Txn::put("/registry/configmaps/team/broken".to_owned(), "nonsense");
        cluster.storages.store().txn(txn).await.unwrap();
        cluster.caught_up().await;
        assert_eq!(alice.call(&format!("GET {MAPS}")).await.code, 200);
        assert_eq!(cluster.admin().call("GET /api/v1/configmaps").await.code, 200);
        let broken = alice.call(&format!("GET {MAPS}/broken")).await;
        assert_eq!((broken.code, broken.value_at("/reason")), (500, json!("StorageReadError")));
        let put = alice.call_with(&format!("PUT {MAPS}/broken"), &map("broken")).await;
        let patch =
            Call::new("PATCH", &format!("{MAPS}/broken")).content_type("application/merge-patch+json");
        let patch = alice.send(patch.body(r#"{"data": {"a": "b"}}"#)).await;
        assert_eq!([put.json(), patch.json()], [broken.json(), broken.json()]);
        assert_eq!(alice.call_with(&format!("POST {MAPS}"), &map("broken")).await.code, 409);
        assert_eq!(other.call(&format!("{verb} {path}")).await.code, 403);
        assert_eq!(alice.call(&format!("GET {MAPS}/broken")).await.code, 500);
        let selective = alice.call(&format!("DELETE {MAPS}?labelSelector=a%3Db")).await;
        assert_eq!(selective.code, 200);
        assert_eq!(alice.call(&format!("GET {MAPS}/broken")).await.code, 500);
        let answer = alice.call(&format!("{verb} {path}")).await;
        assert_eq!(answer.code, 200, "{}", answer.text());
        assert_eq!(alice.call(&format!("GET {MAPS}/broken")).await.code, 404);
        assert_eq!(alice.call_with(&format!("POST {MAPS}"), &map("broken")).await.code, 201);
        assert_eq!(alice.call(&format!("DELETE {MAPS}/broken")).await.code, 200);
    }
}
