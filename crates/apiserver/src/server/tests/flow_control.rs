//! Priority and fairness of a server in this process.

use std::collections::HashMap;
use std::path::Path;

use super::*;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

fn level(name: &str, shares: u32, response: &Value) -> Value {
    let limited = json!({
        "nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": 0, "borrowingLimitPercent": 0,
    });
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}})
}

/// A schema for all requests of the user of its name.
fn schema(name: &str, level: &str) -> Value {
    let all = json!(["*"]);
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": name}}],
        "resourceRules": [{"verbs": all, "apiGroups": all, "resources": all, "clusterScope": true, "namespaces": all}],
        "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
    });
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 500, "rules": [rule]}})
}

impl Fixture {
    /// Starts a server whose configuration follows the stored objects.
    async fn with_background_tasks() -> Self {
        let it = Self::start(InflightLimits::default(), LONG).await;
        let server = it.server.clone();
        tokio::spawn(async move { server.run_background_tasks(|| false).await });
        it
    }

    async fn create(&self, collection: &str, object: &Value) {
        let (code, created) = self.send(Method::POST, collection, object).await;
        assert_eq!(code, 201, "{created}");
    }

    /// Returns the flow schema and the priority level of a response, by the uids in its headers.
    async fn flow_of(&self, response: &Response<ResponseBody>) -> (String, String) {
        let mut names = HashMap::new();
        for collection in [SCHEMAS, LEVELS] {
            let list = self.get(collection, &[]).await.1;
            for object in list["items"].as_array().unwrap() {
                let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
                names.insert(text("uid"), text("name"));
            }
        }
        let name = |header: &str| {
            let uid = response.headers().get(header).map_or("", |value| value.to_str().unwrap());
            names.get(uid).cloned().unwrap_or_default()
        };
        (name("x-kubernetes-pf-flowschema-uid"), name("x-kubernetes-pf-prioritylevel-uid"))
    }

    /// Waits until requests of a user belong to a flow schema.
    async fn wait_for_flow(&self, user: &str, schema: &str) {
        let headers = [("impersonate-user", user)];
        while self.flow_of(&self.open(&Method::GET, "/version", &headers, Bytes::new()).await).await.0
            != schema
        {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn conditions_are_applied() {
    let it = Fixture::with_background_tasks().await;
    it.create(SCHEMAS, &schema("lost", "nowhere")).await;
    let uri = format!("{SCHEMAS}/lost");
    let stored = loop {
        let stored = it.get(&uri, &[]).await.1;
        if stored["status"]["conditions"][0]["status"] == "True" {
            break stored;
        }
        tokio::task::yield_now().await;
    };
    let entries = stored["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["subresource"] == "status").unwrap();
    assert_eq!(entry["manager"], "api-priority-and-fairness-config-consumer-v1");
    assert_eq!(entry["operation"], "Apply");
    let condition = r#"k:{"type":"Dangling"}"#;
    let fields = &entry["fieldsV1"]["f:status"]["f:conditions"][condition];
    for field in ["f:type", "f:status", "f:reason", "f:message", "f:lastTransitionTime"] {
        assert!(fields.get(field).is_some(), "{field}: {entry}");
    }
}

fn recording(file: &str) -> Option<Value> {
    recorded_text(file).map(|text| serde_json::from_str(&text).unwrap())
}

/// Reads a recording of a real server. Prints a message and returns `None` if it does not exist.
fn recorded_text(file: &str) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    let folder = std::env::var_os("NAVE_REFERENCE").map_or(beside, Into::into);
    let text = std::fs::read_to_string(folder.join(file)).ok();
    if text.is_none() {
        println!("skipped: not compared with {file}, which is not in {}", folder.display());
    }
    text
}

#[tokio::test]
async fn classifies_as_the_recorded_server() {
    let (Some(recorded), Some(objects)) =
        (recording("apf/classification.json"), recording("apf/objects.json"))
    else {
        return;
    };
    let it = Fixture::with_background_tasks().await;
    for (collection, key) in [(LEVELS, "levels"), (SCHEMAS, "schemas")] {
        for object in objects[key].as_array().unwrap() {
            it.create(collection, object).await;
        }
    }
    it.wait_for_flow("uma", "differ-user-later").await;
    let (mut compared, mut different) = (0, Vec::new());
    for entry in recorded.as_array().unwrap() {
        let Some(method) = entry["method"].as_str() else { continue };
        let (user, groups) = (entry["user"].as_str().unwrap(), entry["groups"].as_array().unwrap());
        let mut headers = match user {
            "anonymous" => Vec::new(),
            "<self>" => vec![("impersonate-user", "admin"), ("impersonate-group", "system:masters")],
            user => vec![("impersonate-user", user)],
        };
        headers.extend(groups.iter().map(|group| ("impersonate-group", group.as_str().unwrap())));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = it.open(&method, entry["path"].as_str().unwrap(), &headers, Bytes::new()).await;
        let wanted = (entry["flowSchema"].as_str().unwrap(), entry["priorityLevel"].as_str().unwrap());
        let (schema, level) = it.flow_of(&response).await;
        compared += 1;
        if (&*schema, &*level) != wanted {
            different.push(format!("{}: {schema}, {level} and not {wanted:?}", entry["label"]));
        }
    }
    assert!(compared >= 54 && different.is_empty(), "{compared}: {different:#?}");
    let conditions =
        recorded.as_array().unwrap().iter().find(|entry| entry["label"] == "conditions").unwrap();
    for (name, wanted) in conditions["flowSchemas"].as_object().unwrap() {
        let uri = format!("{SCHEMAS}/{name}");
        let mut found = Value::Null;
        while found != *wanted {
            found = it.get(&uri, &[]).await.1["status"]["conditions"].clone();
            for condition in found.as_array_mut().into_iter().flatten() {
                condition.as_object_mut().unwrap().remove("lastTransitionTime");
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_servers_objects_are_those_of_the_recorded_server() {
    let Some(recorded) = recording("bootstrap-flowcontrol.json") else { return };
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let mut found = Vec::new();
    for collection in [SCHEMAS, LEVELS] {
        found.extend(it.get(collection, &[]).await.1["items"].as_array().unwrap().clone());
    }
    let shown = |object: &Value| {
        let metadata = &object["metadata"];
        (metadata["name"].to_string(), json!([metadata["annotations"], object["spec"]]))
    };
    let recorded: HashMap<_, _> = recorded.as_array().unwrap().iter().map(shown).collect();
    assert_eq!(found.iter().map(shown).collect::<HashMap<_, _>>(), recorded);
}

#[tokio::test]
async fn metrics_have_the_names_and_labels_of_the_recorded_server() {
    let Some(recorded) = recorded_text("apf/metrics.tsv") else { return };
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    it.create(MAPS, &map("a", 1)).await;
    let metrics = it.metrics(&[]).await;
    for row in recorded.lines().skip(1) {
        let columns: Vec<_> = row.split('\t').collect();
        let (name, kind, wanted) = (columns[0], columns[1], columns[3]);
        assert!(metrics.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind}");
        let sample = metrics
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_'])));
        let labels = sample.and_then(|line| line.split_once('{')).map_or("", |(_, rest)| rest);
        let labels = labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
        let labels: Vec<_> = labels.filter(|label| *label != "le").collect();
        assert_eq!(labels.join(","), wanted, "{name}: {sample:?}");
    }
}

#[tokio::test]
async fn rejects_beyond_the_limit_and_serves_a_level_without_seats() {
    let it = Fixture::with_background_tasks().await;
    it.create(LEVELS, &level("shut", 0, &json!({"type": "Reject"}))).await;
    it.create(SCHEMAS, &schema("sam", "shut")).await;
    it.create(MAPS, &map("a", 200_000)).await;
    it.wait_for_flow("sam", "sam").await;
    let sam = [("impersonate-user", "sam")];
    // An answer that is not read keeps its seat.
    let list = it.open(&Method::GET, MAPS, &sam, Bytes::new()).await;
    assert_eq!(
        (list.status(), it.flow_of(&list).await),
        (StatusCode::OK, ("sam".to_owned(), "shut".to_owned()))
    );
    let refused = it.open(&Method::GET, "/version", &sam, Bytes::new()).await;
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "1");
    assert_eq!(it.flow_of(&refused).await, ("sam".to_owned(), "shut".to_owned()));
    let (code, status) = read(refused).await;
    assert_eq!(
        (code, &status["reason"], &status["message"]),
        (429, &json!("TooManyRequests"), &json!("Too many requests, please try again later."))
    );
    // Health checks and streams are never limited.
    assert_eq!(it.get("/readyz", &sam).await.0, 200);
    let log = it.open(&Method::GET, "/api/v1/namespaces/default/pods/p/log", &sam, Bytes::new()).await;
    assert_eq!((log.status().as_u16(), it.flow_of(&log).await), (404, (String::new(), String::new())));
    drop(list);
    assert_eq!(it.get("/version", &sam).await.0, 200);
    // A watch holds its seat until its initial events have been read.
    let watch = it.open(&Method::GET, &format!("{MAPS}?watch=true"), &sam, Bytes::new()).await;
    assert_eq!(it.get("/version", &sam).await.0, 429);
    let mut body = watch.into_body();
    let mut frames = 0;
    while it.get("/version", &sam).await.0 == 429 {
        // The second read ends the initial events and waits for others.
        let _ = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
        frames += 1;
    }
    assert!(frames > 0);
    let metrics = it.metrics(&[]).await;
    for name in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"sam\",priority_level=\"shut\",reason=\"concurrency-limit\"} ",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"sam\",priority_level=\"shut\"} ",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"global-default\"} 49",
        "apiserver_flowcontrol_lower_limit_seats{priority_level=\"global-default\"} 24",
        "apiserver_flowcontrol_upper_limit_seats{priority_level=\"global-default\"} 649",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[tokio::test]
async fn dumps_show_levels_queues_and_requests() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let dump = async |name: &str| {
        let uri = format!("/debug/api_priority_and_fairness/{name}");
        let response = it.open(&Method::GET, &uri, &[], Bytes::new()).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        String::from_utf8(bytes_of(response).await.to_vec()).unwrap()
    };
    let levels = dump("dump_priority_levels").await;
    let names: Vec<_> = levels.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(names[..3], ["PriorityLevelName", "catch-all", "exempt"]);
    assert_eq!(names.len(), 9, "{levels}");
    assert!(
        levels.contains("\ncatch-all,         0,            true,   false,       0,               0,"),
        "{levels}"
    );
    // The suggested levels have 128 + 16 + 64 + 64 + 128 + 128 queues.
    assert_eq!(dump("dump_queues").await.lines().count(), 1 + 528);
    let requests = dump("dump_requests?includeRequestDetails=1").await;
    assert!(requests.contains("system:anonymous, get,"), "{requests}");
    assert_eq!(requests.lines().count(), 2, "{requests}");
    assert!(!dump("dump_requests").await.contains("UserName"));
    let other = it.open(&Method::GET, "/debug/api_priority_and_fairness/x", &[], Bytes::new()).await;
    assert_eq!(other.status(), 404);
}
