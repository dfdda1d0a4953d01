//! Audit: policies, log files, webhooks that are slow, and disks that are full.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Response};
use nave_loadtest::http::Call;
use nave_tests::Server;
use nave_webhook::testing::HttpsServer;
use serde_json::Value;
use tempfile::TempDir;

const METADATA: &str = "- {level: Metadata}";

/// Starts a server without controllers that audits with these rules and flags.
async fn server(rules: &str, flags: &[&str]) -> Server {
    start(tempfile::tempdir().unwrap(), rules, flags).await
}

async fn start(folder: TempDir, rules: &str, flags: &[&str]) -> Server {
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n")).unwrap();
    let policy = format!("--audit-policy-file={}", policy.display());
    let flags: Vec<&str> = ["--controllers=none", "--disable-admission-plugins=ServiceAccount", &policy]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    Server::start_in(folder, &flags).await
}

/// Starts a server that logs to a file.
async fn logging_server(rules: &str, flags: &[&str]) -> (Server, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit/audit.log");
    let path = format!("--audit-log-path={}", log.display());
    let flags: Vec<&str> = flags.iter().copied().chain([path.as_str()]).collect();
    (start(folder, rules, &flags).await, log)
}

fn events(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the sum of a metric's samples whose line contains a text.
async fn metric(server: &Server, name: &str, label: &str) -> f64 {
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
    let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn events_have_objects_at_their_level_and_no_secrets() {
    let rules = "
- {level: None, nonResourceURLs: ['/*']}
- {level: Metadata, resources: [{resources: [secrets, serviceaccounts/token]}, {group: authentication.k8s.io}]}
- {level: RequestResponse, verbs: [create, patch], omitStages: [RequestReceived]}";
    let (server, log) = logging_server(rules, &[]).await;
    server.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]).await;
    server.kubectl(&["create", "secret", "generic", "key", "--from-literal=word=hidden-word"]).await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    server.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {k: v}}").await;
    server.kubectl(&["get", "configmaps"]).await;

    let text = fs::read_to_string(&log).unwrap();
    let signature = token.trim().rsplit('.').next().unwrap();
    for hidden in ["hidden-word", "aGlkZGVuLXdvcmQ", signature] {
        assert!(!text.contains(hidden), "{hidden} is in the log");
    }
    let events = events(&log);
    let of = |resource: &str, verb: &str| {
        let found = events.iter().find(|event| {
            event["objectRef"]["resource"] == resource
                && event["verb"] == verb
                && event["stage"] == "ResponseComplete"
        });
        found.cloned().unwrap_or_default()
    };
    let created = of("configmaps", "create");
    assert_eq!(created["requestObject"]["data"]["colour"], "blue");
    assert_eq!(created["responseObject"]["metadata"]["name"], "settings");
    assert_eq!(created["responseStatus"]["code"], 201);
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(created["userAgent"].as_str().unwrap().starts_with("kubectl"));
    let secret = of("secrets", "create");
    assert_eq!((&secret["level"], &secret["requestObject"]), (&"Metadata".into(), &Value::Null));
    assert_eq!(secret["objectRef"]["name"], "key");
    let issued = events
        .iter()
        .find_map(|event| event["annotations"]["authentication.kubernetes.io/issued-credential-id"].as_str());
    assert!(issued.unwrap().starts_with("JTI="));
    assert_eq!(of("configmaps", "list"), Value::Null);
    assert!(events.iter().all(|event| event["stage"] != "RequestReceived" || event["level"] == "Metadata"));
}

#[tokio::test]
async fn unusual_requests_are_audited_and_refused() {
    let (server, log) = logging_server(METADATA, &[]).await;
    let mut connection = server.target().connect_http1().await.unwrap();
    let foo = Method::from_bytes(b"FOO").unwrap();
    for (number, (method, path, user, code, verb)) in [
        (foo.clone(), "/foo", None, 404, "foo"),
        (foo.clone(), "/foo", Some("uma"), 403, "foo"),
        (foo.clone(), "/api/v1/pods", Some("uma"), 403, ""),
        (foo, "/api/v1/pods", None, 405, ""),
        (Method::OPTIONS, "/foo", Some("uma"), 403, "options"),
        (Method::GET, "/%ff", None, 400, "get"),
        (Method::GET, "/%ff", Some("uma"), 403, "get"),
        (Method::GET, "/api/v1/namespaces/%ff/pods", None, 400, "list"),
        (Method::GET, "/api/v1/namespaces/%ff/pods", Some("uma"), 403, "list"),
        (Method::DELETE, "/api/v1/namespaces/default/pods/%ff", None, 400, "delete"),
        (Method::GET, "/api/v1/pods?fieldSelector=%ff", None, 400, "list"),
        (Method::GET, "/api/v1/namespaces/default/pods/none", None, 404, "get"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{path}{}number={number}", if path.contains('?') { '&' } else { '?' });
        let call = Call::new(method, path.as_str(), None, Bytes::new());
        let call = if let Some(user) = user { call.as_user(user, "people") } else { call };
        let response = connection.send(&call).await.unwrap();
        assert_eq!(response.status().as_u16(), code, "{path}");
        // As upstream: refusals quote the path.
        let sniffing = response.header("x-content-type-options").map(str::to_owned);
        assert_eq!(sniffing.is_some(), code == 403 || path.starts_with("/foo"), "{path} {code}");
        response.drain().await.unwrap();
        let events = events(&log);
        let event = events.iter().rfind(|event| event["requestURI"] == *path).unwrap();
        assert_eq!(
            (&event["verb"], &event["responseStatus"]["code"]),
            (&verb.into(), &code.into()),
            "{event}"
        );
        assert_eq!(event["impersonatedUser"]["username"], user.map_or(Value::Null, Value::from));
    }
}

#[tokio::test]
async fn request_objects_have_the_defaults_of_their_kind() {
    let (server, log) = logging_server("- {level: Request, verbs: [create]}", &[]).await;
    server.kubectl(&["create", "namespace", "fresh"]).await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    server.kubectl(&["create", "token", "robot"]).await;
    let events = events(&log);
    let sent = |resource: &str, subresource: &str| {
        let of = |event: &&Value| {
            let object = &event["objectRef"];
            object["resource"] == resource
                && object["subresource"].as_str().unwrap_or_default() == subresource
        };
        events.iter().rfind(of).unwrap()["requestObject"].clone()
    };
    let namespace = sent("namespaces", "");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "fresh");
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(sent("serviceaccounts", "token")["spec"]["expirationSeconds"], 3600);
}

#[tokio::test]
async fn response_objects_are_json_in_every_format_of_the_response() {
    let rules =
        "- {level: RequestResponse, omitStages: [RequestReceived], resources: [{resources: [configmaps]}]}";
    let (server, log) = logging_server(rules, &[]).await;
    let client = server.client().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for (number, (query, accept)) in [
        ("", "application/json"),
        ("?pretty=true", "application/json"),
        ("", "application/yaml"),
        ("", "application/vnd.kubernetes.protobuf"),
        ("", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("m{number}");
        let object = serde_json::json!({"metadata": {"name": name}, "data": {"k": "v\n"}}).to_string();
        let create = http::Request::post(format!("{path}{query}")).header("accept", accept);
        let create =
            create.header("content-type", "application/json").body(object.into_bytes().into()).unwrap();
        assert_eq!(client.send(create).await.unwrap().status(), 201, "{accept}");
        let get = http::Request::get(format!("{path}/{name}")).body(Vec::new()).unwrap();
        let mut stored: Value = client.request(get).await.unwrap();
        if accept.contains("as=") {
            let metadata = stored["metadata"].take();
            let api_version = "meta.k8s.io/v1";
            stored = serde_json::json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata});
        }
        let events = events(&log);
        let of_create =
            |event: &&Value| event["verb"] == "create" && event["objectRef"]["name"] == name.as_str();
        let event = events.iter().find(of_create).unwrap();
        assert_eq!(event["responseObject"], stored, "{query} {accept}");
    }
}

#[tokio::test]
async fn files_are_rotated_and_killing_the_server_leaves_whole_lines() {
    let rules = "- {level: RequestResponse, resources: [{resources: [configmaps]}]}";
    let (mut server, log) = logging_server(
        rules,
        &["--audit-log-maxsize=1", "--audit-log-maxbackup=2", "--audit-log-mode=batch"],
    )
    .await;
    let folder = server.folder().to_owned();
    let large = folder.join("large");
    fs::write(&large, "x".repeat(300_000)).unwrap();
    let from_file = format!("--from-file=k={}", large.display());
    for number in 0..8 {
        server.kubectl(&["create", "configmap", &format!("c{number}"), &from_file]).await;
    }
    server.kill9();
    let files: Vec<PathBuf> =
        fs::read_dir(log.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files.iter().filter(|file| **file != log) {
        assert!(fs::metadata(file).unwrap().len() <= 1 << 20);
        assert!(!events(file).is_empty());
    }
    // A process that is killed while it writes leaves a part of a line.
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("{\"kind\":\"Ev");
    fs::write(&log, text).unwrap();
    server.restart().await;
    server.kubectl(&["create", "configmap", "last"]).await;
    nave_tests::eventually("the last event", async || {
        events(&log).iter().any(|event| event["requestObject"]["metadata"]["name"] == "last")
    })
    .await;
}

#[tokio::test]
async fn a_slow_webhook_does_not_delay_requests_and_losses_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let webhook = HttpsServer::start_async(|_| std::future::pending::<Option<Response<Bytes>>>()).await;
    let kubeconfig = webhook.write_kubeconfig(folder.path(), "certificate-authority: ca.crt", "");
    let config = format!("--audit-webhook-config-file={}", kubeconfig.display());
    let flags = [
        config.as_str(),
        "--audit-webhook-batch-max-size=1",
        "--audit-webhook-batch-buffer-size=5",
        "--audit-webhook-batch-throttle-enable=false",
    ];
    let server = server(METADATA, &flags).await;
    for number in 0..40 {
        server.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/n{number}/configmaps")]).await;
    }
    assert!(metric(&server, "apiserver_audit_error_total", "plugin=\"buffered\"").await > 0.0);
    assert!(metric(&server, "apiserver_audit_event_total", "").await >= 80.0);
    assert!(server.log().contains("audit events lost"), "{}", server.log());
}

#[tokio::test]
async fn a_blocking_webhook_gets_the_events_of_clients_that_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let (seen, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = tokio::sync::watch::channel(false);
    // Refuses the call that a request waits for, so that the event has to be sent again.
    let webhook = HttpsServer::start_async(move |request| {
        let (seen, mut released) = (seen.clone(), released.clone());
        async move {
            let status = if *released.borrow() { 200 } else { 503 };
            seen.send(request.into_body()).ok()?;
            released.wait_for(|released| *released).await.ok()?;
            Response::builder().status(status).body(Bytes::new()).ok()
        }
    })
    .await;
    let kubeconfig = webhook.write_kubeconfig(folder.path(), "certificate-authority: ca.crt", "");
    let config = format!("--audit-webhook-config-file={}", kubeconfig.display());
    let rules = "- {level: Metadata, verbs: [create], resources: [{resources: [configmaps]}], omitStages: [RequestReceived]}";
    let flags = [config.as_str(), "--audit-webhook-mode=blocking", "--audit-webhook-initial-backoff=1ms"];
    let server = server(rules, &flags).await;
    let client = server.client().await;
    let create = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .body(br#"{"metadata":{"name":"left"}}"#.to_vec().into())
        .unwrap();
    tokio::select! {
        _ = client.send(create) => panic!("the webhook has not answered"),
        first = calls.recv() => assert!(first.is_some()),
    }
    drop(client);
    // Other requests give the server time to notice.
    for _ in 0..3 {
        server.kubectl(&["get", "configmap", "left"]).await;
    }
    release.send(true).unwrap();
    let again: Value = serde_json::from_slice(&calls.recv().await.unwrap()).unwrap();
    assert_eq!(again["items"][0]["objectRef"]["name"], "left");
    assert_eq!(again["items"][0]["responseStatus"]["code"], 201);
    nave_tests::eventually("the end of the delivery", async || {
        metric(&server, "apiserver_audit_event_total", "").await >= 1.0
    })
    .await;
    assert!(metric(&server, "apiserver_audit_error_total", "").await < 1.0);
}

#[tokio::test]
async fn a_full_disk_rejects_requests_in_strict_mode_only() {
    for mode in ["batch", "blocking"] {
        let mode = format!("--audit-log-mode={mode}");
        let server = server(METADATA, &["--audit-log-path=/dev/full", &mode]).await;
        server.kubectl(&["create", "configmap", "a"]).await;
        assert!(metric(&server, "apiserver_audit_error_total", "plugin=\"log\"").await > 0.0, "{mode}");
    }
    let rules = "- {level: Metadata, resources: [{resources: [configmaps]}]}";
    let strict = ["--audit-log-path=/dev/full", "--audit-log-mode=blocking-strict"];
    let server = server(rules, &strict).await;
    let refused = server.kubectl_fails(&["create", "configmap", "a", "--validate=false"]).await;
    assert!(refused.contains("failed to store audit event"), "{refused}");
    assert!(metric(&server, "apiserver_audit_requests_rejected_total", "").await > 0.0);
}

#[tokio::test]
async fn events_have_the_meaning_of_recorded_events() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference");
    let recording =
        std::env::var_os("NAVE_REFERENCE").map_or_else(|| beside.into(), PathBuf::from).join("audit");
    if !recording.join("events.json").exists() {
        return println!("skipped: no events.json in {} (NAVE_REFERENCE)", recording.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (policy, tokens, log) = (at("policy.json"), at("tokens.csv"), at("audit.log"));
    let recorded = fs::read_to_string(recording.join("policy.json")).unwrap();
    fs::write(&policy, recorded.replace("{ns}", "audit-run")).unwrap();
    fs::write(&tokens, "replay-token,admin,u1,system:masters\n").unwrap();
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let flags = [
        "--controllers=none".to_owned(),
        format!("--audit-policy-file={policy}"),
        format!("--audit-log-path={log}"),
        format!("--token-auth-file={tokens}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start_in(folder, &flags).await;
    let (url, recording) = (server.url(), recording.display().to_string());
    let environment = [
        ("AUDIT_SERVER", url.as_str()),
        ("AUDIT_TOKEN", "replay-token"),
        ("AUDIT_LOG", &log),
        ("AUDIT_RECORDING", &recording),
    ];
    let report = server.python_with(include_str!("python/audit_replay.py"), &environment).await;
    println!("{report}");
    let differing = report.lines().filter_map(|line| Some(line.split_once(": ")?.0));
    let differing: BTreeSet<&str> = differing.filter(|label| *label != "agreed").collect();
    assert_eq!(differing, BTreeSet::from(EXPLAINED), "{report}");
}

/// The recorded requests whose events differ, as `docs/differences.md` explains. The webhook is not part of
/// the recording.
const EXPLAINED: [&str; 5] =
    ["apply", "encoded path", "important deleted", "two slashes", "webhook that denies"];
