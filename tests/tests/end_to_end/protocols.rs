//! The same requests over HTTP/1.1 and HTTP/2, and the supported encodings.

use nave_loadtest::http::{Call, JSON, Method, PROTOBUF};
use nave_tests::Server;
use serde_json::Value;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn both_protocols_write_read_list_watch_and_delete() {
    let server = Server::start_without_controllers().await;
    let target = server.target();
    for mut connection in [target.connect_http1().await.unwrap(), target.connect_http2().await.unwrap()] {
        let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one"},"data":{"a":"1"}}"#;
        let created = connection.send(&Call::post(MAPS, body)).await.unwrap();
        assert_eq!(created.status(), 201);
        assert_eq!(created.header("content-type"), Some("application/json"));
        let created: Value = serde_json::from_slice(&created.read_all().await.unwrap()).unwrap();
        let one = format!("{MAPS}/one");
        let read = connection.send(&Call::get(&one)).await.unwrap().read_all().await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), created);
        let patch = Call::new(
            Method::PATCH,
            &one,
            Some("application/merge-patch+json"),
            r#"{"data":{"b":"2"}}"#.into(),
        );
        assert_eq!(connection.send(&patch).await.unwrap().status(), 200);
        let list = connection.send(&Call::get(MAPS)).await.unwrap().read_all().await.unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        assert_eq!(list["items"][0]["data"]["b"], "2");
        assert!(list["items"][0].get("kind").is_none(), "items of a list do not repeat their kind");

        let from = created["metadata"]["resourceVersion"].as_str().unwrap();
        let watch = Call::get(format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion={from}"));
        let events = connection.send(&watch).await.unwrap().read_all().await.unwrap();
        let event: Value = serde_json::from_slice(&events).unwrap();
        assert_eq!(
            (event["type"].as_str(), event["object"]["data"]["b"].as_str()),
            (Some("MODIFIED"), Some("2"))
        );

        let deleted = connection.send(&Call::delete(&one)).await.unwrap();
        let deleted: Value = serde_json::from_slice(&deleted.read_all().await.unwrap()).unwrap();
        assert_eq!((deleted["kind"].as_str(), deleted["status"].as_str()), (Some("Status"), Some("Success")));
    }
}

#[tokio::test]
async fn responds_in_requested_encoding() {
    let server = Server::start_without_controllers().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let path = "/api/v1/namespaces/default";
    for (accept, prefix) in [
        (JSON, "{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{"),
        (PROTOBUF, "k8s\0"),
        ("application/yaml", "apiVersion: v1\nkind: Namespace\n"),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\"",
        ),
        (
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\"",
        ),
    ] {
        let answer = connection.send(&Call::get(path).accept(accept)).await.unwrap();
        assert_eq!(answer.status(), 200, "{accept}");
        let first = accept.split([',', ';']).next();
        assert_eq!(answer.header("content-type").and_then(|t| t.split(';').next()), first, "{accept}");
        let body = answer.read_all().await.unwrap();
        assert!(body.starts_with(prefix.as_bytes()), "{accept}: {}", String::from_utf8_lossy(&body));
    }
    let refused = connection.send(&Call::get(path).accept("text/html")).await.unwrap();
    assert_eq!(refused.status(), 406);
}
