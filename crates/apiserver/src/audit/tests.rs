use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Request};
use nave_audit::log::{FileOptions, Format, LogOptions, Output};
use nave_audit::{BatchOptions, Mode, Options, Policy};
use nave_machinery::Value;
use nave_machinery::user::UserInfo;
use serde_json::json;

use super::*;
use crate::context::Client;

fn audit(log: &Path, rule: &str) -> Audit {
    let policy = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rule}]}}");
    let file =
        FileOptions { path: log.to_owned(), max_size: 0, max_age_days: 0, max_backups: 0, compress: false };
    let log = LogOptions {
        output: Output::File(file),
        format: Format::Json,
        mode: Mode::Blocking,
        batch: BatchOptions { buffer_size: 10, max_size: 1, max_wait: Duration::ZERO, throttle: None },
        truncation: None,
    };
    let options =
        Options { policy: Policy::parse(policy.as_bytes()).unwrap(), log: Some(log), webhook: None };
    Audit(Some(Arc::new(Auditor::start(options, &prometheus::Registry::new()).unwrap())))
}

async fn started(audit: &Audit, uri: &str, is_authenticated: bool) -> RequestContext {
    let request = Request::get(uri).header("user-agent", "me").body(()).unwrap();
    let mut context = RequestContext::new(&request, Client::Remote(None));
    if is_authenticated {
        context.set_user(Arc::new(UserInfo { name: "a".to_owned(), ..UserInfo::default() }));
    }
    audit.run(&mut context, request.uri(), request.headers(), is_authenticated).await.unwrap();
    context
}

fn events(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn stages_depend_on_the_kind_of_request() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (uri, is_authenticated, stages)) in [
        ("/api/v1/pods", true, &["RequestReceived", "ResponseComplete"][..]),
        ("/api/v1/pods?watch=1", true, &["RequestReceived", "ResponseStarted", "ResponseComplete"]),
        ("/api/v1/pods", false, &["ResponseStarted"]),
        ("/version", true, &["RequestReceived", "ResponseComplete"]),
    ]
    .into_iter()
    .enumerate()
    {
        let log = folder.path().join(number.to_string());
        let audit = audit(&log, "{level: Metadata}");
        let mut context = started(&audit, uri, is_authenticated).await;
        let record = context.audit.take().unwrap();
        drop(record.respond(200, context.notes.take_annotations()).await);
        tokio::task::yield_now().await;
        audit.0.as_ref().unwrap().flush().await;
        let events = events(&log);
        let found: Vec<&str> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
        assert_eq!(found, stages, "{uri}");
        assert_eq!(events[0]["user"]["username"], if is_authenticated { json!("a") } else { Value::Null });
        assert_eq!(events.last().unwrap()["responseStatus"], json!({"metadata": {}, "code": 200}));
    }
}

#[tokio::test]
async fn a_request_without_a_response_has_a_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let audit = audit(&log, "{level: Metadata, omitStages: [RequestReceived]}");
    let context = started(&audit, "/api/v1/pods", true).await;
    context.notes.annotate("example.com/a", "b").unwrap();
    drop(context);
    tokio::task::yield_now().await;
    audit.0.as_ref().unwrap().flush().await;
    let events = events(&log);
    assert_eq!((events.len(), &events[0]["stage"]), (1, &json!("ResponseComplete")));
    assert_eq!(events[0]["responseStatus"]["message"], "Connection closed early");
    assert_eq!(events[0]["annotations"], json!({"example.com/a": "b"}));
}

#[tokio::test]
async fn objects_are_recorded_at_their_level() {
    let folder = tempfile::tempdir().unwrap();
    let object = json!({"metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "managedFields": [{"manager": "m", "fieldsV1": "{}"}]}});
    for (rule, has_object, has_fields) in [
        ("{level: Metadata}", false, false),
        ("{level: Request}", true, true),
        ("{level: Request, omitManagedFields: true}", true, false),
    ] {
        let log = folder.path().join(rule);
        let audit = audit(&log, rule);
        let mut context = started(&audit, "/api/v1/namespaces/ns/pods", true).await;
        let record = context.audit.take().unwrap();
        record.request_object(&object);
        record.respond(201, context.notes.take_annotations()).await;
        let event = events(&log).pop().unwrap();
        let reference = json!({
            "resource": "pods", "namespace": "ns", "name": "n", "uid": "u", "apiVersion": "v1", "resourceVersion": "7"
        });
        assert_eq!(event["objectRef"], reference);
        assert_eq!(event["requestObject"].is_object(), has_object, "{rule}");
        let fields = event.pointer("/requestObject/metadata/managedFields/0/fieldsV1");
        assert_eq!(fields, has_fields.then_some(&json!("{}")), "{rule}: as the client has sent it");
    }
}

#[tokio::test]
async fn nothing_is_recorded_without_a_policy_or_at_level_none() {
    let folder = tempfile::tempdir().unwrap();
    for audit in [Audit(None), audit(&folder.path().join("log"), "{level: None}")] {
        let context = started(&audit, "/api/v1/pods", true).await;
        assert!(context.audit.is_none() && !context.notes.records(Recorded::Metadata));
    }
}

#[test]
fn audit_ids_come_from_the_client_within_a_limit() {
    let id = |given: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(AUDIT_ID), HeaderValue::try_from(given).unwrap());
        audit_id(&headers).to_str().unwrap().to_owned()
    };
    assert_eq!(id("mine"), "mine");
    assert_eq!(id(&"x".repeat(5000)).len(), 1024);
    let generated = [id(""), audit_id(&HeaderMap::new()).to_str().unwrap().to_owned()];
    assert!(generated.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()) && generated[0] != generated[1]);
}
