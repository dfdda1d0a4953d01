//! Reads: resourceVersion, resourceVersionMatch, limit and continue; streaming lists, bookmarks, and the debug view
//! of the watch caches.

use std::pin::pin;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::watcher;
use nave_loadtest::http::{Call, Connection};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const STREAM: &str = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

/// Returns the status and the document of a response.
async fn get(connection: &mut Connection, path: &str) -> (u16, Value) {
    let answer = connection.send(&Call::get(path)).await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.read_all().await.unwrap()).unwrap())
}

/// Returns the events of a watch that ends by itself.
async fn events(connection: &mut Connection, query: &str, accept: &'static str) -> Vec<Value> {
    let watch = Call::get(format!("{MAPS}?{query}")).accept(accept);
    let text = connection.send(&watch).await.unwrap().success().await.unwrap().read_all().await.unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

async fn create(connection: &mut Connection, name: &str) -> u64 {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
    let answer = connection.send(&Call::post(MAPS, body)).await.unwrap().success().await.unwrap();
    revision(&serde_json::from_slice(&answer.read_all().await.unwrap()).unwrap())
}

async fn delete(connection: &mut Connection, name: &str) {
    connection.send(&Call::delete(format!("{MAPS}/{name}"))).await.unwrap().success().await.unwrap();
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn list_returns_requested_revision() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let first = create(&mut connection, "a").await;
    let second = create(&mut connection, "b").await;
    delete(&mut connection, "a").await;

    let (_, latest) = get(&mut connection, MAPS).await;
    assert_eq!(names(&latest), ["b"]);
    for (query, expected) in [
        (format!("resourceVersion={first}&resourceVersionMatch=Exact"), vec!["a"]),
        (format!("resourceVersion={second}&resourceVersionMatch=Exact"), vec!["a", "b"]),
        (format!("resourceVersion={second}&limit=1"), vec!["a"]),
        (format!("resourceVersion={first}&resourceVersionMatch=NotOlderThan"), vec!["b"]),
        (format!("resourceVersion={second}"), vec!["b"]),
        ("resourceVersion=1&resourceVersionMatch=Exact".to_owned(), vec![]),
    ] {
        let (status, list) = get(&mut connection, &format!("{MAPS}?{query}")).await;
        assert_eq!((status, names(&list)), (200, expected), "{query}");
    }
    // Any available state is returned, without pages.
    create(&mut connection, "c").await;
    let (_, any) = get(&mut connection, &format!("{MAPS}?resourceVersion=0&limit=1")).await;
    assert!(any["metadata"].get("continue").is_none(), "{any}");

    for path in [format!("{MAPS}?resourceVersion=99999"), format!("{MAPS}/b?resourceVersion=99999")] {
        let (status, timeout) = get(&mut connection, &path).await;
        assert_eq!((status, timeout["reason"].as_str()), (504, Some("Timeout")));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        assert_eq!(timeout["details"], json!({"causes": [cause], "retryAfterSeconds": 1}));
        let message = timeout["message"].as_str().unwrap();
        assert!(message.starts_with("Timeout: Too large resource version: 99999, current: "), "{message}");
    }
}

#[tokio::test]
async fn pages_have_one_revision_during_concurrent_writes() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        create(&mut connection, name).await;
    }
    let (_, first) = get(&mut connection, &format!("{MAPS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    delete(&mut connection, "c").await;
    create(&mut connection, "bb").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = get(&mut connection, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((names(&second), revision(&second)), (vec!["c", "d"], revision(&first)));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, third) = get(&mut connection, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((names(&third), revision(&third)), (vec!["e"], revision(&first)));
    assert!(third["metadata"].get("continue").is_none());

    let (status, refusal) =
        get(&mut connection, &format!("{MAPS}?limit=2&resourceVersion=1&continue={token}")).await;
    assert_eq!((status, refusal["reason"].as_str()), (400, Some("BadRequest")));
}

#[tokio::test]
async fn streaming_list_ends_with_bookmark() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    create(&mut connection, "a").await;
    let latest = create(&mut connection, "b").await;
    let kinds = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    };

    let with = format!("{STREAM}&allowWatchBookmarks=true&timeoutSeconds=1");
    let told = events(&mut connection, &with, "application/json").await;
    assert_eq!(kinds(&told), ["ADDED", "ADDED", "BOOKMARK"]);
    let end = &told[2]["object"];
    // The server's own writes may raise the store's revision in between.
    assert_eq!(end["kind"], "ConfigMap");
    assert!(revision(end) >= latest, "{end}");
    assert_eq!(end["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));

    let without = events(&mut connection, &format!("{STREAM}&timeoutSeconds=1"), "application/json").await;
    assert_eq!(kinds(&without), ["ADDED", "ADDED"], "nobody asked for bookmarks");
    let none = "watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    assert_eq!(events(&mut connection, none, "application/json").await, Vec::<Value>::new());

    // Bookmarks have the same format as the other events; otherwise clients that support only this format could not
    // parse them.
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let told = events(&mut connection, &with, metadata).await;
    let kinds: Vec<_> = told.iter().map(|event| event["object"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["PartialObjectMetadata"; 3]);

    let (status, refusal) = get(&mut connection, &format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!((status, refusal["reason"].as_str()), (422, Some("Invalid")));
}

#[tokio::test]
async fn streaming_reflector_sees_all_objects() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    for name in ["a", "b", "c"] {
        create(&mut connection, name).await;
    }
    // kube-rs starts with resourceVersion=0, which any state satisfies. A consistent read ensures that the cache
    // contains all three.
    get(&mut connection, MAPS).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let mut stream = pin!(watcher(maps, watcher::Config::default().streaming_lists()));
    let mut seen = Vec::new();
    while let Some(event) = stream.try_next().await.unwrap() {
        match event {
            watcher::Event::InitApply(map) => seen.extend(map.metadata.name),
            watcher::Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn watch_gets_bookmark_before_timeout() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let from = create(&mut connection, "a").await;
    let latest = create(&mut connection, "b").await;
    let query = format!("watch=true&resourceVersion={from}&timeoutSeconds=3");
    let told =
        events(&mut connection, &format!("{query}&allowWatchBookmarks=true"), "application/json").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[0]["type"].as_str(), revision(&told[0]["object"])), (Some("ADDED"), latest));
    assert_eq!(told[1]["type"], "BOOKMARK");
    assert!(revision(&told[1]["object"]) >= latest && told[1]["object"]["metadata"].get("name").is_none());
    let told =
        events(&mut connection, &format!("{query}&allowWatchBookmarks=false"), "application/json").await;
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn invalid_watch_revision_is_an_error_event() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let query = format!("{STREAM}&resourceVersion=99999&timeoutSeconds=9");
    let told = events(&mut connection, &query, "application/json").await;
    assert_eq!((told.len(), told[0]["type"].as_str()), (1, Some("ERROR")), "{told:?}");
    assert_eq!(told[0]["object"]["reason"], "Timeout");
    // Waits for events that may still arrive.
    let told =
        events(&mut connection, "watch=true&resourceVersion=99999&timeoutSeconds=1", "application/json")
            .await;
    assert_eq!(told, Vec::<Value>::new());
}

#[tokio::test]
async fn debug_view_shows_watch_caches() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    // The server itself creates no objects of this kind.
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a"}}).to_string();
    let created = connection.send(&Call::post(quotas, quota)).await.unwrap().success().await.unwrap();
    let latest = revision(&serde_json::from_slice(&created.read_all().await.unwrap()).unwrap());
    let watch = Call::get("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dnode-1");
    let _watching = connection.send(&watch).await.unwrap().success().await.unwrap();
    get(&mut connection, "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1").await;
    // After a read of the latest state, the cache contains the object.
    get(&mut connection, quotas).await;

    let (_, caches) = get(&mut connection, "/debug/api_cache").await;
    assert!(caches["storeRevision"].as_u64().unwrap() >= latest);
    let of = |resource: &str| {
        let mut found = caches["resources"].as_array().unwrap().iter();
        found.find(|cache| cache["resource"] == resource).unwrap().clone()
    };
    let cache = of("resourcequotas");
    assert_eq!((&cache["objects"], &cache["window"]["events"]), (&json!(1), &json!(1)));
    // The server also has internal watches, such as the authorizer's.
    let bucket = json!({"field": "spec.nodeName", "value": "node-1", "count": 1});
    let watchers = of("pods")["watchers"].clone();
    assert!(watchers.as_array().unwrap().contains(&bucket), "{watchers}");

    let metrics = connection.send(&Call::get("/metrics")).await.unwrap().read_all().await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in [
        r#"apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 1"#,
        r#"apiserver_storage_objects{resource="resourcequotas"} 1"#,
        r#"apiserver_watch_cache_events_dispatched_total{group="",resource="resourcequotas"} 1"#,
        r#"apiserver_cache_list_total{group="",index="f:spec.nodeName",resource="pods"} 1"#,
        r#"watch_cache_capacity{group="",resource="pods"} 100"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

/// The server does not buffer an unread response forever: requests other than watches have a deadline that includes the
/// response.
#[tokio::test]
async fn unread_list_response_is_aborted() {
    let server = Server::start_with(&["--controllers=none", "--request-timeout=2s"]).await;
    let mut connection = server.target().connect_http2().await.unwrap();
    // Larger than the buffers between server and client.
    let filler = "x".repeat(900_000);
    for number in 0..40 {
        let name = format!("large-{number}");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"filler": filler}});
        connection.send(&Call::post(MAPS, body.to_string())).await.unwrap().success().await.unwrap();
    }
    let mut stalled = server.target().connect_http1().await.unwrap();
    let list = stalled.send(&Call::get(MAPS)).await.unwrap().success().await.unwrap();
    eventually("the list is given up", async || {
        let metrics = connection.send(&Call::get("/metrics")).await.unwrap().read_all().await.unwrap();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        // Only the request for the metrics itself is in flight.
        metrics.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n")
    })
    .await;
    assert!(list.read_all().await.is_err(), "a truncated response must not look complete");
}
