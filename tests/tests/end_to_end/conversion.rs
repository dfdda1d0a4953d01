//! Conversion webhooks of custom resources over TLS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use nave_tests::{Server, eventually};
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};

const NAME: &str = "sites.conversion.example.com";
const V1: &str = "/apis/conversion.example.com/v1/namespaces/default/sites";
const V2: &str = "/apis/conversion.example.com/v2/namespaces/default/sites";

/// The fault of a converter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    OtherName,
    Drops,
    WrongVersion,
    Large,
    Deep,
    Hangs,
    Closes,
}

/// A converter between `v1`, with `spec.address`, and `v2`, with `spec.host`.
struct Converter {
    server: HttpsServer,
    fault: Arc<Mutex<Fault>>,
    calls: Arc<AtomicUsize>,
}

impl Converter {
    async fn start() -> Self {
        let (fault, calls) = (Arc::new(Mutex::new(Fault::Nothing)), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&fault), Arc::clone(&calls));
        let server = HttpsServer::start_async(move |request: Request<Bytes>| {
            let fault = *state.0.lock().unwrap();
            state.1.fetch_add(1, Ordering::SeqCst);
            async move {
                match fault {
                    Fault::Hangs => std::future::pending().await,
                    Fault::Closes => None,
                    _ => Some(Response::new(convert(request.body(), fault).to_string().into())),
                }
            }
        })
        .await;
        Self { server, fault, calls }
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn definition(&self, ca: &str) -> String {
        let version = |name: &str, stored: bool, field: &str| {
            let spec = json!({"type": "object", "properties": {field: {"type": "string"}, "note": {"type": "string"}}});
            json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": spec}}},
                "selectableFields": [{"jsonPath": format!(".spec.{field}")}]})
        };
        let client = json!({"url": self.server.url("/convert"), "caBundle": BASE64_STANDARD.encode(ca)});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": NAME}, "spec": {"group": "conversion.example.com", "scope": "Namespaced",
                "names": {"plural": "sites", "kind": "Site"},
                "versions": [version("v1", true, "address"), version("v2", false, "host")],
                "conversion": {"strategy": "Webhook",
                    "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}}}})
        .to_string()
    }
}

fn convert(review: &[u8], fault: Fault) -> Value {
    let review: Value = serde_json::from_slice(review).unwrap();
    let to = review["request"]["desiredAPIVersion"].clone();
    let mut objects = review["request"]["objects"].as_array().unwrap().clone();
    for object in &mut objects {
        let spec = object["spec"].as_object_mut().unwrap();
        let (from, into) =
            if to == "conversion.example.com/v2" { ("address", "host") } else { ("host", "address") };
        let value = spec.remove(from).unwrap_or_default();
        spec.insert(into.to_owned(), value);
        object["apiVersion"] = to.clone();
        match fault {
            Fault::OtherName => object["metadata"]["name"] = json!("other"),
            Fault::WrongVersion => object["apiVersion"] = json!("conversion.example.com/v9"),
            Fault::Large => object["spec"]["note"] = json!("x".repeat(10 << 20)),
            Fault::Deep => object["spec"]["note"] = (0..500).fold(json!(1), |inner, _| json!([inner])),
            _ => {}
        }
    }
    if fault == Fault::Drops {
        objects.pop();
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects}})
}

fn site(version: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": format!("conversion.example.com/{version}"), "kind": "Site",
        "metadata": {"name": name}, "spec": spec})
    .to_string()
}

async fn start() -> (Server, Converter) {
    let (server, converter) = (Server::start_without_controllers().await, Converter::start().await);
    server.apply(&converter.definition(&converter.server.ca)).await;
    server.established(NAME).await;
    (server, converter)
}

async fn get(server: &Server, path: &str) -> Value {
    serde_json::from_str(&server.kubectl(&["get", "--raw", path]).await).unwrap()
}

async fn create(server: &Server, version: &str, name: &str, spec: &Value) {
    server.kubectl_with(&["create", "--validate=false", "-f", "-"], &site(version, name, spec), &[]).await;
}

#[tokio::test]
async fn objects_are_read_and_written_in_both_versions() {
    let (mut server, converter) = start().await;
    create(&server, "v1", "one", &json!({"address": "a"})).await;
    create(&server, "v2", "two", &json!({"host": "b"})).await;
    let before = converter.calls();
    let list = get(&server, V2).await;
    let hosts: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["host"]).collect();
    assert_eq!(hosts, ["a", "b"]);
    assert_eq!(converter.calls() - before, 1, "one call converts a page");
    get(&server, V2).await;
    assert_eq!(converter.calls() - before, 1, "a list uses what is kept");
    let merge = ["patch", "sites.v2.conversion.example.com", "one", "--type", "merge", "-p"];
    server.kubectl(&[&merge[..], &[r#"{"spec":{"host":"c"}}"#]].concat()).await;
    server.kill9();
    server.restart().await;
    assert_eq!(get(&server, &format!("{V1}/one")).await["spec"], json!({"address": "c"}));
    assert_eq!(get(&server, &format!("{V1}/two")).await["spec"], json!({"address": "b"}));
    assert_eq!(get(&server, &format!("{V2}/two")).await["spec"], json!({"host": "b"}));
}

#[tokio::test]
async fn faulty_converter_changes_nothing_and_disturbs_nothing_else() {
    let (server, converter) = start().await;
    create(&server, "v1", "one", &json!({"address": "a"})).await;
    for fault in
        [Fault::OtherName, Fault::Drops, Fault::WrongVersion, Fault::Large, Fault::Deep, Fault::Closes]
    {
        converter.set(fault);
        let refused = server.kubectl_fails(&["get", "--raw", &format!("{V2}/one")]).await;
        assert!(
            refused.contains("conversion webhook for conversion.example.com/v1, Kind=Site"),
            "{fault:?}: {refused}"
        );
        let refused = server
            .kubectl_with(
                &["create", "--validate=false", "-f", "-"],
                &site("v2", "new", &json!({"host": "b"})),
                &[],
            )
            .await;
        assert!(refused.stderr.contains("conversion webhook for"), "{fault:?}: {}", refused.stderr);
        assert_eq!(
            get(&server, V1).await["items"].as_array().unwrap().len(),
            1,
            "{fault:?}: nothing is stored"
        );
        assert_eq!(get(&server, &format!("{V1}/one")).await["spec"], json!({"address": "a"}), "{fault:?}");
    }
    converter.set(Fault::Hangs);
    let hanging = format!("{V2}/one");
    let waiting = async {
        let arguments = ["get", "--raw", "--request-timeout=5s", &hanging];
        let calls = (0..20).map(|_| server.kubectl_fails(&arguments));
        futures_util::future::join_all(calls).await
    };
    let others = async {
        tokio::time::timeout(Duration::from_mins(1), async {
            for _ in 0..5 {
                server.kubectl(&["get", "namespaces"]).await;
                get(&server, V1).await;
            }
        })
        .await
    };
    let (_, others) = tokio::join!(waiting, others);
    assert!(others.is_ok(), "other requests are served while the converter hangs");
    server.kubectl(&["delete", "crd", NAME, "--timeout=30s"]).await;
}

#[tokio::test]
async fn changed_bundle_applies_without_a_restart() {
    let (server, converter) = start().await;
    create(&server, "v1", "one", &json!({"address": "a"})).await;
    let other = HttpsServer::start(|_| Response::new(Bytes::new())).await;
    server.apply(&converter.definition(&other.ca)).await;
    eventually("the other authority is used", async || {
        let ran = server.kubectl_with(&["get", "--raw", &format!("{V2}/one")], "", &[]).await;
        ran.stderr.contains("certificate signed by unknown authority")
    })
    .await;
    server.apply(&converter.definition(&converter.server.ca)).await;
    eventually("the right authority is used", async || {
        server.kubectl_with(&["get", "--raw", &format!("{V2}/one")], "", &[]).await.stdout.contains("host")
    })
    .await;
}

#[tokio::test]
async fn watchers_of_the_other_version_share_the_conversion_of_an_event() {
    const WATCHERS: usize = 10;
    let (server, converter) = start().await;
    create(&server, "v1", "zero", &json!({"address": "z"})).await;
    let path = format!("{V2}?watch=true");
    let mut watchers: Vec<_> =
        (0..WATCHERS).map(|_| server.kubectl_running(&["get", "--raw", &path])).collect();
    for watcher in &mut watchers {
        assert!(watcher.line().await.contains("\"host\":\"z\""));
    }
    let before = converter.calls();
    for name in ["one", "two", "three"] {
        create(&server, "v1", name, &json!({"address": name})).await;
    }
    for watcher in &mut watchers {
        for name in ["one", "two", "three"] {
            let event: Value = serde_json::from_str(&watcher.line().await).unwrap();
            assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("ADDED"), &json!(name)));
        }
    }
    let calls = converter.calls() - before;
    assert!((3..3 * WATCHERS).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn field_selectors_use_the_version_of_the_request() {
    let (server, _converter) = start().await;
    for (name, address) in [("one", "a"), ("two", "b"), ("three", "a"), ("four", "a")] {
        create(&server, "v1", name, &json!({"address": address})).await;
    }
    for (path, selector, expected) in [
        (V1, "spec.address%3Da", &["four", "one", "three"][..]),
        (V2, "spec.host%3Da", &["four", "one", "three"]),
        (V2, "spec.host!%3Da", &["two"]),
        (V2, "spec.host%3Da,metadata.name!%3Done", &["four", "three"]),
        (V2, "spec.host%3Dc", &[]),
    ] {
        let list = get(&server, &format!("{path}?fieldSelector={selector}")).await;
        let items = list["items"].as_array().unwrap();
        let names: Vec<_> = items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{selector}");
    }
    let refused =
        server.kubectl_fails(&["get", "--raw", &format!("{V2}?fieldSelector=spec.address%3Da")]).await;
    assert!(refused.contains("field label not supported: spec.address"), "{refused}");

    let first = get(&server, &format!("{V2}?fieldSelector=spec.host%3Da&limit=2")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = get(&server, &format!("{V2}?fieldSelector=spec.host%3Da&limit=2&continue={token}")).await;
    let names = [&first["items"][1], &rest["items"][0]].map(|item| &item["metadata"]["name"]);
    assert_eq!(names, ["one", "three"]);
    assert_eq!(rest["metadata"]["continue"], json!(""));

    let mut watcher =
        server.kubectl_running(&["get", "--raw", &format!("{V2}?watch=true&fieldSelector=spec.host%3Db")]);
    let mut next = async || {
        let event: Value = serde_json::from_str(&watcher.line().await).unwrap();
        let of =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        [of("/type"), of("/object/metadata/name"), of("/object/spec/host")]
    };
    assert_eq!(next().await, ["ADDED", "two", "b"]);
    for (name, patch) in [
        ("one", r#"{"spec":{"address":"b"}}"#),
        ("one", r#"{"spec":{"note":"n"}}"#),
        ("three", r#"{"spec":{"note":"n"}}"#),
        ("one", r#"{"spec":{"address":"c"}}"#),
    ] {
        server
            .kubectl(&["patch", "sites.v1.conversion.example.com", name, "--type=merge", "-p", patch])
            .await;
    }
    server.kubectl(&["delete", "sites.v1.conversion.example.com", "two"]).await;
    for expected in
        [["ADDED", "one", "b"], ["MODIFIED", "one", "b"], ["DELETED", "one", "b"], ["DELETED", "two", "b"]]
    {
        assert_eq!(next().await, expected);
    }
}
