//! Watches and pages from a compacted revision get 410.

use std::time::Duration;

use nave_loadtest::http::{Call, Pool, scan_field};
use nave_loadtest::load::{Limits, closed_loop};
use nave_loadtest::process::Processes;
use nave_tests::Server;
use serde_json::Value;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// More changes than the smallest watch cache can hold.
const CHANGES: u64 = 3_000;

#[tokio::test]
async fn watch_from_compacted_revision_gets_410() {
    let server = Server::start_with(&["--watch-cache-sizes=configmaps#0"]).await;
    let pool = server.target().pool(2).await.unwrap();
    let from = revision(&pool).await;
    change(&pool, 10).await;
    assert!(first_event(&pool, &from).await.starts_with(r#"{"type":"ADDED""#), "recent history is available");
    change(&pool, CHANGES).await;
    let event: Value = serde_json::from_str(&first_event(&pool, &from).await).unwrap();
    let status = &event["object"];
    assert_eq!((status["code"].as_u64(), status["reason"].as_str()), (Some(410), Some("Expired")), "{event}");
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: "), "{event}");
}

#[tokio::test]
async fn rejects_future_revision() {
    let server = Server::start().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let call = Call::get(format!("{MAPS}?resourceVersion=99999999&resourceVersionMatch=Exact"));
    let answer = connection.send(&call).await.unwrap();
    assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{}", answer.status());
    let status: Value = serde_json::from_slice(&answer.read_all().await.unwrap()).unwrap();
    assert_eq!(status["kind"], "Status", "{status}");
}

async fn revision(pool: &Pool) -> String {
    let list = pool.call(&Call::get(format!("{MAPS}?limit=1"))).await.unwrap();
    scan_field(&list, "resourceVersion").unwrap().to_owned()
}

/// Creates and deletes config maps, so that the store does not grow.
async fn change(pool: &Pool, changes: u64) {
    let limits = Limits { operations: changes / 2, time: Duration::from_mins(1) };
    let (idle, revision) = (Processes::default(), revision(pool).await);
    let names = move |n: u64| format!("map-{revision}-{n}");
    let delete = names.clone();
    let body =
        |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    closed_loop(pool, &idle, 32, limits, move |n| Call::post(MAPS, body(&names(n)))).await.unwrap();
    closed_loop(pool, &idle, 32, limits, move |n| Call::delete(format!("{MAPS}/{}", delete(n))))
        .await
        .unwrap();
}

/// Returns the first line of a watch.
async fn first_event(pool: &Pool, from: &str) -> String {
    let watch = Call::get(format!("{MAPS}?watch=true&resourceVersion={from}"));
    let mut answer = pool.lane(1).send(&watch).await.unwrap();
    let mut text = Vec::new();
    while !text.contains(&b'\n') {
        let Some(chunk) = answer.next_chunk().await.unwrap() else { break };
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap().lines().next().unwrap_or_default().to_owned()
}
