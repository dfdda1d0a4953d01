//! Updates and patches of one object on a whole server: writes without a change, concurrent writes, field validation, and
//! objects that are too large.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod common;

use futures_util::future::join_all;
use nave_machinery::Value;
use serde_json::json;

use self::common::{Call, Client, Cluster, TestResponse};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/d";
const AUTOSCALERS: &str = "namespaces/default/horizontalpodautoscalers";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn config_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}, "data": data})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]}}}})
}

fn autoscaler() -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "default"}, "spec": {"maxReplicas": 3, "metrics": [{"type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
}

async fn patch(client: &Client, path: &str, content_type: &str, body: &Value) -> TestResponse {
    patch_text(client, path, content_type, &body.to_string()).await
}

async fn patch_text(client: &Client, path: &str, content_type: &str, body: &str) -> TestResponse {
    client.send(Call::new("PATCH", path).content_type(content_type).body(body.to_owned())).await
}

/// Each write repeats the stored state; the watch has no event before that of a later change.
#[tokio::test]
async fn writes_without_a_change_write_nothing() {
    let cluster = Cluster::start(&[autoscaler()]).await;
    let client = cluster.admin();
    let applied = patch(&client, &format!("{DEPLOYMENT}?fieldManager=a"), APPLY, &deployment()).await;
    assert_eq!(applied.code, 201, "{}", applied.text());
    let status = json!({"status": {"replicas": 1}});
    let status_path = format!("{DEPLOYMENT}/status");
    let stored = patch(&client, &format!("{status_path}?fieldManager=s"), MERGE, &status).await.json();
    let mut without_version = stored.clone();
    without_version["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let watch = format!(
        "/apis/apps/v1/namespaces/default/deployments?watch=true&resourceVersion={}",
        stored["metadata"]["resourceVersion"].as_str().unwrap()
    );
    let mut events = client.watch(&watch).await;

    let scale_path = format!("{DEPLOYMENT}/scale");
    let scale = client.call(&format!("GET {scale_path}")).await.json();
    let operations = json!([{"op": "test", "path": "/kind", "value": "Deployment"},
        {"op": "replace", "path": "/spec/replicas", "value": 1}]);
    let replicas = json!({"spec": {"replicas": 1}});
    let containers =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "example.com/c"}]}}}});
    for query in ["fieldManager=other", "fieldManager=a", "fieldManager=a&dryRun=All"] {
        for (path, writes) in [
            (
                DEPLOYMENT,
                vec![
                    ("PUT", &stored),
                    ("PUT", &without_version),
                    (JSON_PATCH, &operations),
                    (MERGE, &replicas),
                    (STRATEGIC, &containers),
                ],
            ),
            (
                &status_path,
                vec![("PUT", &stored), (JSON_PATCH, &operations), (MERGE, &status), (STRATEGIC, &status)],
            ),
            (&scale_path, vec![("PUT", &scale), (MERGE, &replicas), (JSON_PATCH, &json!([]))]),
        ] {
            for (kind, body) in writes {
                let path = format!("{path}?{query}");
                let answer = match kind {
                    "PUT" => client.call_with(&format!("PUT {path}"), body).await,
                    content_type => patch(&client, &path, content_type, body).await,
                };
                assert_eq!(answer.code, 200, "{kind} {path}: {}", answer.text());
                let wanted = if path.contains("/scale") { &scale } else { &stored };
                assert_eq!(&answer.json(), wanted, "{kind} {path}");
            }
        }
    }
    for query in ["fieldManager=a", "fieldManager=a&dryRun=All", "fieldManager=a&force=true"] {
        let again = patch(&client, &format!("{DEPLOYMENT}?{query}"), APPLY, &deployment()).await;
        assert_eq!((again.code, again.json()), (200, stored.clone()), "{query}");
    }
    let changed = patch(&client, DEPLOYMENT, MERGE, &json!({"spec": {"replicas": 2}})).await.json();
    assert_eq!(events.next().await.unwrap(), json!({"type": "MODIFIED", "object": changed}));
}

#[tokio::test]
async fn writes_without_a_change_write_nothing_in_another_version() {
    let cluster = Cluster::start(&[autoscaler()]).await;
    let client = cluster.admin();
    let in_version = |version: &str| format!("/apis/autoscaling/{version}/{AUTOSCALERS}/h");
    let stored = client.call(&format!("GET {}", in_version("v2"))).await.json();
    let path = in_version("v1");
    let older = client.call(&format!("GET {path}")).await.json();
    let spec = json!({"spec": {"maxReplicas": 3}});
    for (query, body) in [("", &older), ("?fieldManager=m", &older), ("?fieldManager=m&dryRun=All", &older)] {
        let answer = client.call_with(&format!("PUT {path}{query}"), body).await;
        assert_eq!((answer.code, answer.json()), (200, older.clone()), "{query}");
        for content_type in [MERGE, STRATEGIC] {
            let answer = patch(&client, &format!("{path}{query}"), content_type, &spec).await;
            assert_eq!((answer.code, answer.json()), (200, older.clone()), "{content_type} {query}");
        }
    }
    assert_eq!(client.call(&format!("GET {}", in_version("v2"))).await.json(), stored);
}

const MODIFIED: &str = "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the latest version and try again";

/// Sends the writes at the same time.
async fn concurrently(client: &Client, calls: Vec<Call>) -> Vec<TestResponse> {
    let tasks = calls.into_iter().map(|call| {
        let client = client.clone();
        tokio::spawn(async move { client.send(call).await })
    });
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_are_repeated_after_a_conflict_unless_they_name_a_version() {
    const WRITERS: usize = 16;
    let cluster = Cluster::start(&[config_map(&json!({"a": "0"}))]).await;
    let client = cluster.admin();
    let path = format!("{CONFIG_MAPS}/x");
    for kind in ["PUT", JSON_PATCH, MERGE, STRATEGIC, APPLY] {
        for with_version in [false, true] {
            let live = client.call(&format!("GET {path}")).await.json();
            let version = live["metadata"]["resourceVersion"].clone();
            let call = |writer: usize| {
                let key = format!("{}-{writer}", kind.rsplit('/').next().unwrap().replace('+', "-"));
                let metadata = if with_version { json!({"resourceVersion": version}) } else { json!({}) };
                let value = format!("{with_version}");
                let partial = json!({"metadata": metadata, "data": {&key: value}});
                match kind {
                    "PUT" => {
                        let mut object = config_map(&json!({&key: value}));
                        object["metadata"]
                            .as_object_mut()
                            .unwrap()
                            .extend(metadata.as_object().unwrap().clone());
                        Call::new("PUT", &path).json(&object)
                    }
                    JSON_PATCH => {
                        let mut operations =
                            vec![json!({"op": "add", "path": format!("/data/{key}"), "value": value})];
                        if with_version {
                            operations.push(
                                json!({"op": "add", "path": "/metadata/resourceVersion", "value": version}),
                            );
                        }
                        Call::new("PATCH", &path).content_type(kind).body(Value::from(operations).to_string())
                    }
                    APPLY => {
                        let mut object = config_map(&json!({&key: value}));
                        object["metadata"]
                            .as_object_mut()
                            .unwrap()
                            .extend(metadata.as_object().unwrap().clone());
                        let path = format!("{path}?force=true&fieldManager=writer-{writer}");
                        Call::new("PATCH", &path).content_type(kind).body(object.to_string())
                    }
                    _ => Call::new("PATCH", &path).content_type(kind).body(partial.to_string()),
                }
            };
            let answers = concurrently(&client, (0..WRITERS).map(call).collect()).await;
            let done = answers.iter().filter(|answer| answer.code == 200).count();
            let refused: Vec<_> = answers.iter().filter(|answer| answer.code != 200).collect();
            let expected = if with_version { 1 } else { WRITERS };
            assert_eq!(done, expected, "{kind}: {:?}", refused.first().map(|answer| answer.text()));
            for answer in refused {
                assert_eq!((answer.code, answer.message()), (409, MODIFIED.to_owned()), "{kind}");
            }
        }
    }
    // No patch was lost.
    let data = client.call(&format!("GET {path}")).await.value_at("/data");
    for kind in ["json-patch-json", "merge-patch-json", "strategic-merge-patch-json", "apply-patch-yaml"] {
        for writer in 0..WRITERS {
            assert!(data[format!("{kind}-{writer}")].is_string(), "{kind} {writer}");
        }
    }
}

#[tokio::test]
async fn patches_of_identity_are_refused() {
    let cluster = Cluster::start(&[config_map(&json!({"a": "0"}))]).await;
    let client = cluster.admin();
    let path = format!("{CONFIG_MAPS}/x");
    for (field, value, code, text) in [
        ("name", json!("y"), 400, "the name of the object (y) does not match the name on the URL (x)"),
        (
            "name",
            Value::Null,
            400,
            "the name of the object (x based on URL) was undeterminable: name must be provided",
        ),
        (
            "namespace",
            json!("other"),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ("uid", json!("u"), 422, "metadata.uid: Invalid value: \"u\": field is immutable"),
        ("resourceVersion", json!("1"), 409, MODIFIED),
        ("resourceVersion", json!("x"), 500, "strconv.ParseUint: parsing \"x\": invalid syntax"),
    ] {
        for content_type in [MERGE, STRATEGIC, JSON_PATCH] {
            let body = match content_type {
                JSON_PATCH if value.is_null() => {
                    json!([{"op": "remove", "path": format!("/metadata/{field}")}])
                }
                JSON_PATCH => json!([{"op": "add", "path": format!("/metadata/{field}"), "value": value}]),
                _ => json!({"metadata": {field: value}}),
            };
            let answer = patch(&client, &path, content_type, &body).await;
            assert_eq!(answer.code, code, "{content_type} {body}: {}", answer.text());
            assert!(answer.message().contains(text), "{content_type} {body}: {}", answer.text());
        }
    }
    // Removed fields are restored.
    let live = client.call(&format!("GET {path}")).await.json();
    for field in ["uid", "resourceVersion", "creationTimestamp", "namespace"] {
        let answer = patch(&client, &path, MERGE, &json!({"metadata": {field: null}})).await;
        assert_eq!((answer.code, answer.json()), (200, live.clone()), "{field}");
    }
}

/// The strict errors of each content type and verb, in upstream's order.
#[tokio::test]
async fn strict_errors_are_warnings_or_refusals() {
    const JSON: &str = "application/json";
    const YAML: &str = "application/yaml";
    let cluster = Cluster::start(&[config_map(&json!({"a": "0"}))]).await;
    let client = cluster.admin();
    let json_text = |name: &str| {
        format!(
            r#"{{"zz": 1, "apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{name}", "foo": 1, "name": "{name}"}},
            "zz": 2, "data": {{"b": "1", "b": "2"}}, "aa": {{"c": 1, "c": 2}}}}"#
        )
    };
    let of_json = [
        r#"unknown field "zz""#,
        r#"unknown field "metadata.foo""#,
        r#"duplicate field "metadata.name""#,
        r#"duplicate field "data.b""#,
        r#"unknown field "aa""#,
    ];
    let yaml_text = |name: &str| {
        format!(
            "zz: 1\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  foo: 1\ndata:\n  b: '1'\n  b: '2'\naa: 1\n"
        )
    };
    let of_yaml = [
        r#"line 9: key "b" already set in map"#,
        r#"unknown field "aa""#,
        r#"unknown field "metadata.foo""#,
        r#"unknown field "zz""#,
    ];
    let merge_text =
        r#"{"zz": 1, "data": {"b": "1", "b": "2"}, "metadata": {"foo": 1}, "data": {"b": "2"}, "aa": 1}"#;
    let of_merge = [
        r#"duplicate field "data.b""#,
        r#"duplicate field "data""#,
        r#"unknown field "aa""#,
        r#"unknown field "metadata.foo""#,
        r#"unknown field "zz""#,
    ];
    let operations = r#"[{"op": "add", "path": "/aa", "value": 1, "foo": 1}, {"op": "add", "op": "add", "path": "/metadata/foo", "value": 1}]"#;
    let of_operations = [
        r#"json patch unknown field "[0].foo""#,
        r#"json patch duplicate field "[1].op""#,
        r#"unknown field "aa""#,
        r#"unknown field "metadata.foo""#,
    ];
    let path = format!("{CONFIG_MAPS}/x");
    let cases = [
        ("POST", CONFIG_MAPS, JSON, json_text("new"), &of_json[..], 400),
        ("POST", CONFIG_MAPS, YAML, yaml_text("new"), &of_yaml[..], 400),
        ("PUT", &path, JSON, json_text("x"), &of_json[..], 400),
        ("PUT", &path, YAML, yaml_text("x"), &of_yaml[..], 400),
        ("PATCH", &path, MERGE, merge_text.to_owned(), &of_merge[..], 422),
        ("PATCH", &path, STRATEGIC, merge_text.to_owned(), &of_merge[..], 422),
        ("PATCH", &path, JSON_PATCH, operations.to_owned(), &of_operations[..], 422),
    ];
    for (method, path, content_type, body, errors, code) in cases {
        let send = async |query: &str| {
            let call = Call::new(method, &format!("{path}?dryRun=All{query}"));
            client.send(call.content_type(content_type).body(body.clone())).await
        };
        let accepted = if method == "POST" { 201 } else { 200 };
        for query in ["", "&fieldValidation=Warn"] {
            let answer = send(query).await;
            let quoted = |error: &&str| format!("299 - {error:?}");
            let wanted: Vec<_> = errors.iter().map(quoted).collect();
            assert_eq!((answer.code, answer.warnings), (accepted, wanted), "{method} {content_type}");
        }
        let ignored = send("&fieldValidation=Ignore").await;
        assert_eq!((ignored.code, ignored.warnings.len()), (accepted, 0), "{method} {content_type}");
        let strict = send("&fieldValidation=Strict").await;
        let text = errors.join(", ").replacen("line 9:", "yaml: unmarshal errors:\n  line 9:", 1);
        assert_eq!(
            (strict.code, strict.warnings.len()),
            (code, 0),
            "{method} {content_type}: {}",
            strict.text()
        );
        assert!(strict.message().contains(&format!("strict decoding error: {text}")), "{}", strict.message());
    }
}

/// Patches that are not patches, by field validation, because upstream has two decoders.
#[tokio::test]
async fn malformed_patches_are_refused() {
    let cluster = Cluster::start(&[config_map(&json!({"a": "0"}))]).await;
    let client = cluster.admin();
    let many =
        Value::from(vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001]).to_string();
    let limit = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    for (content_type, body, strict, ignored) in [
        (MERGE, "[]", 400, 422),
        (MERGE, "{", 400, 400),
        (MERGE, "1", 400, 400),
        (STRATEGIC, "[]", 400, 400),
        (JSON_PATCH, "{}", 400, 400),
        (JSON_PATCH, r#"[{"op": 1}]"#, 400, 422),
        (JSON_PATCH, r#"[{"op": "add", "path": "", "value": {}}]"#, 422, 422),
        (JSON_PATCH, r#"[{"op": "replace", "path": "", "value": {}}]"#, 400, 400),
        (MERGE, r#"{"data": 1}"#, 422, 422),
        (STRATEGIC, r#"{"data": 1}"#, 422, 422),
        (STRATEGIC, r#"{"$retainKeys": 1}"#, 400, 400),
        (JSON_PATCH, &many, 413, 413),
    ] {
        for (validation, code) in [("Strict", strict), ("Warn", strict), ("Ignore", ignored)] {
            let path = format!("{CONFIG_MAPS}/x?fieldValidation={validation}");
            let answer = patch_text(&client, &path, content_type, body).await;
            let shown = &body[..body.len().min(80)];
            assert_eq!(answer.code, code, "{content_type} {validation} {shown}: {}", answer.text());
            if code == 413 {
                assert_eq!(answer.message(), limit);
            }
            if code == 422 && body.contains("data") {
                let cause = answer.value_at("/details/causes/0");
                let shown = if content_type == MERGE { r#"\"data\":1"# } else { "map[data:1]" };
                let text = cause["message"].as_str().unwrap();
                assert!(cause["field"] == "patch" && text.contains(shown), "{cause}");
            }
        }
    }
}

#[tokio::test]
async fn repeated_owner_references_are_removed_with_a_warning() {
    let cluster = Cluster::start(&[config_map(&json!({"a": "0"}))]).await;
    let client = cluster.admin();
    let path = format!("{CONFIG_MAPS}/x");
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid});
    let owners = json!([owner("u"), owner("v"), owner("u"), owner("u")]);
    let mut object = config_map(&json!({"a": "1"}));
    object["metadata"]["ownerReferences"] = owners.clone();
    let partial = json!({"metadata": {"ownerReferences": owners}});
    let before = "; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u, u";
    for (kind, stage) in [("PUT", ""), (MERGE, " after mutating admission happens")] {
        let answer = match kind {
            "PUT" => client.call_with(&format!("PUT {path}"), &object).await,
            _ => patch(&client, &path, kind, &partial).await,
        };
        assert_eq!(answer.value_at("/metadata/ownerReferences"), json!([owner("u"), owner("v")]), "{kind}");
        let warning =
            format!("299 - \".metadata.ownerReferences contains duplicate entries{stage}{before}\"");
        assert_eq!(answer.warnings, [warning]);
    }
}

/// The store takes values of up to 3 MiB. A body is smaller, but managed fields may add as much again.
#[tokio::test]
async fn managed_fields_never_make_an_object_too_large_for_the_store() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let definition = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"},
        "data": (0..14_000).map(|at| (format!("{at:0>150}"), Value::from(""))).collect::<serde_json::Map<_, _>>()});
    let created = client.call_with(&format!("POST {CONFIG_MAPS}"), &definition).await;
    assert_eq!(created.code, 201, "{}", &created.text()[..200]);
    assert_eq!(created.value_at("/metadata").get("managedFields"), None);
    let path = format!("{CONFIG_MAPS}/x");
    let read = client.call(&format!("GET {path}")).await.json();
    assert_eq!(read, created.json());
    let patched = patch(&client, &path, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(patched.code, 200, "{}", &patched.text()[..200]);
    let applied = patch(&client, &format!("{path}?fieldManager=a&force=true"), APPLY, &definition).await;
    assert_eq!(applied.code, 413, "{}", &applied.text()[..200]);
}
