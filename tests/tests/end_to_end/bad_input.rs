//! Malformed requests: each gets the correct Status and leaks no memory.

use std::time::{Duration, Instant};

use nave_loadtest::http::{Call, Connection, JSON, Method};
use nave_loadtest::process::Processes;
use nave_tests::Server;
use serde_json::Value;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The name of the case, the call, and the expected status code and reason.
type Case = (&'static str, Call, u16, &'static str);

fn cases() -> Vec<Case> {
    let deep = |open: &str, close: &str| {
        let value = format!("{}{}", open.repeat(10_000), close.repeat(10_000));
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"deep"}},"data":{value}}}"#)
    };
    let post = |body: &[u8]| Call::post(MAPS, body.to_vec());
    let empty = |method, path: &str, content_type| Call::new(method, path, Some(content_type), "{}".into());
    let yaml = |body: String| Call::new(Method::POST, MAPS, Some("application/yaml"), body.into());
    let protobuf = |body: &'static [u8]| {
        Call::new(Method::POST, MAPS, Some("application/vnd.kubernetes.protobuf"), body.into())
    };
    vec![
        ("no body", post(b""), 400, "BadRequest"),
        ("truncated", post(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"na"#), 400, "BadRequest"),
        ("not an object", post(b"[1,2,3]"), 400, "BadRequest"),
        ("lists in lists", post(deep("[", "]").as_bytes()), 400, "BadRequest"),
        ("objects in objects", post(deep("{\"a\":", "}").replace(":}", ":1}").as_bytes()), 400, "BadRequest"),
        ("unclosed lists", post("[".repeat(10_000).as_bytes()), 400, "BadRequest"),
        (
            "not UTF-8",
            post(b"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"\xff\xfe\"}}"),
            400,
            "BadRequest",
        ),
        (
            "another kind",
            post(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#),
            400,
            "BadRequest",
        ),
        ("an unknown kind", post(br#"{"apiVersion":"nope/v1","kind":"Nope"}"#), 400, "BadRequest"),
        (
            "a number for a name",
            post(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":1}}"#),
            400,
            "BadRequest",
        ),
        (
            "a bad name",
            post(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"../a"}}"#),
            422,
            "Invalid",
        ),
        ("YAML in YAML", yaml(format!("{}1", "- ".repeat(10_000))), 400, "BadRequest"),
        ("YAML's billion laughs", yaml(laughs()), 400, "BadRequest"),
        ("protobuf without its envelope", protobuf(b"\x0a\x02\x08\x01"), 400, "BadRequest"),
        ("protobuf cut short", protobuf(b"k8s\0\x0a\x7f\x01"), 400, "BadRequest"),
        ("plain text", empty(Method::POST, MAPS, "text/plain"), 415, "UnsupportedMediaType"),
        ("no patch", empty(Method::PATCH, "/api/v1/namespaces/default", JSON), 415, "UnsupportedMediaType"),
        ("an unknown resource", Call::get("/api/v1/namespaces/default/nonsense"), 404, "NotFound"),
        ("an unknown object", Call::get("/api/v1/namespaces/default/configmaps/nobody"), 404, "NotFound"),
        ("PUT on a collection", empty(Method::PUT, MAPS, JSON), 405, "MethodNotAllowed"),
        (
            "POST on an object",
            empty(Method::POST, "/api/v1/namespaces/default/configmaps/a", JSON),
            405,
            "MethodNotAllowed",
        ),
        ("a bad selector", Call::get(format!("{MAPS}?labelSelector=a%20%20b%21%21")), 400, "BadRequest"),
        ("a bad field selector", Call::get(format!("{MAPS}?fieldSelector=spec.nope%3D1")), 400, "BadRequest"),
        ("a bad continue token", Call::get(format!("{MAPS}?limit=1&continue=%21")), 400, "BadRequest"),
    ]
}

/// Returns nine levels of nine references each: 387 million nodes if expanded.
fn laughs() -> String {
    let level = |level: usize| match level {
        0 => "a0: &a0 lol\n".to_owned(),
        _ => format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(",")),
    };
    (0..=9).map(level).collect()
}

#[tokio::test]
async fn malformed_requests_get_a_status() {
    let server = Server::start().await;
    let target = server.target();
    for mut connection in [target.connect_http1().await.unwrap(), target.connect_http2().await.unwrap()] {
        let mut wrong = Vec::new();
        for (what, call, code, reason) in cases() {
            let (status, body) = answer(&mut connection, &call).await;
            let got = (status, body["kind"].as_str(), body["code"].as_u64(), body["reason"].as_str());
            if got != (code, Some("Status"), Some(u64::from(code)), Some(reason)) {
                wrong.push(format!("{what}: expected {code} {reason}, got {status}: {body}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]).await, "ok");
}

/// A path outside all API groups gets a plain-text 404, as from kube-apiserver.
#[tokio::test]
async fn unknown_path_is_not_found() {
    let server = Server::start().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    for path in ["/nonsense", "/apis/nope.example/v1/things", "/apis/apps/v9/deployments", "/apis/../api"] {
        let (status, body) = answer(&mut connection, &Call::get(path)).await;
        assert_eq!(status, 404, "{path}: {body}");
    }
}

#[tokio::test]
async fn rejects_body_over_three_mebibytes() {
    let server = Server::start().await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let value = "x".repeat(3 << 20);
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"big"}},"data":{{"a":"{value}"}}}}"#
    );
    let call = Call::post(MAPS, body);
    for _ in 0..50 {
        let (status, body) = answer(&mut connection, &call).await;
        assert_eq!((status, body["reason"].as_str()), (413, Some("RequestEntityTooLarge")), "{body}");
    }
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]).await, "ok");
}

#[tokio::test]
async fn malformed_requests_leak_no_memory() {
    let server = Server::start().await;
    let processes = Processes(vec![server.pid()]);
    let cases = cases();
    let repeat = async |times: usize| {
        for _ in 0..times / ROUNDS_OF_A_CONNECTION {
            let mut connection = server.target().connect_http2().await.unwrap();
            for _ in 0..ROUNDS_OF_A_CONNECTION {
                for (_, call, ..) in &cases {
                    connection.send(call).await.unwrap().drain().await.unwrap();
                }
            }
        }
        processes.rss().unwrap().unwrap()
    };
    let before = repeat(100).await;
    let mut after = repeat(1_000).await;
    // The allocator returns memory after some time; leaked memory stays.
    let deadline = Instant::now() + SETTLING;
    while after >= before + GROWTH && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        after = processes.rss().unwrap().unwrap();
    }
    assert!(after < before + GROWTH, "resident memory grew from {before} to {after}");
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]).await, "ok");
}

/// A connection is closed after about a thousand streams that end with an error. Each round has several such streams.
const ROUNDS_OF_A_CONNECTION: usize = 50;
/// The allocator may keep some memory. A leak of 1 KB per request would be 26 MB.
const GROWTH: u64 = 16 << 20;
/// Time for the allocator to return memory.
const SETTLING: Duration = Duration::from_secs(30);

async fn answer(connection: &mut Connection, call: &Call) -> (u16, Value) {
    let answer = connection.send(call).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.read_all().await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}
