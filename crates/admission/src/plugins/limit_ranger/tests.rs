use serde_json::json;

use super::*;
use crate::testing::{Memory, Request, outcome, registry};

fn ranges(limits: &[Value]) -> (Arc<Memory>, Plugin) {
    let ranges = Arc::new(Memory::default());
    if !limits.is_empty() {
        ranges.put(json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"limits": limits}}));
    }
    let plugin = Plugin::both(LimitRanger { ranges: Arc::clone(&ranges) as _, empty: Recent::default() });
    (ranges, plugin)
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

async fn create(plugin: &Plugin, resource: &str, object: Value) -> Result<Value, String> {
    let mut request = Request::new(registry(), "", resource, object, Value::Null);
    outcome(request.admit(plugin).await).map_err(|(code, message)| {
        assert_eq!(code, 403);
        message
    })?;
    Ok(request.object.take())
}

#[tokio::test]
async fn sets_container_defaults() {
    let limit = json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
    let (_, plugin) = ranges(&[limit]);
    let given =
        pod(json!({"containers": [{"name": "a"}, container("b", json!({"cpu": "5m"}), json!({"cpu": "2"}))],
        "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]}));
    let found = create(&plugin, "pods", given).await.unwrap();
    let full = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(found["spec"]["containers"][0]["resources"], full);
    assert_eq!(found["spec"]["initContainers"][0]["resources"], full);
    assert_eq!(
        found["spec"]["containers"][1]["resources"],
        json!({"requests": {"cpu": "5m"}, "limits": {"cpu": "2", "memory": "1Gi"}})
    );
    assert_eq!(found["spec"]["ephemeralContainers"][0], json!({"name": "e"}));
    let note = "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; memory limit for container b; cpu request for init container i; cpu, memory limit for init container i";
    assert_eq!(found["metadata"]["annotations"][ANNOTATION], note);
}

#[tokio::test]
async fn requests_of_the_whole_pod_follow_the_defaults_of_containers() {
    let limit =
        json!({"type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"cpu": "100m"}});
    let (_, plugin) = ranges(&[limit]);
    for (own, expected) in [
        (json!({"limits": {"cpu": "3"}}), json!({"limits": {"cpu": "3"}, "requests": {"cpu": "100m"}})),
        (
            json!({"limits": {"cpu": "3"}, "requests": {"cpu": "3"}}),
            json!({"limits": {"cpu": "3"}, "requests": {"cpu": "3"}}),
        ),
        (json!({"requests": {"memory": "1Gi"}}), json!({"requests": {"memory": "1Gi"}})),
    ] {
        let found =
            create(&plugin, "pods", pod(json!({"containers": [{"name": "a"}], "resources": own}))).await;
        assert_eq!(found.unwrap()["spec"]["resources"], expected);
    }
}

#[tokio::test]
async fn adds_nothing_without_defaults() {
    let (_, plugin) = ranges(&[json!({"type": "Pod", "max": {"cpu": "2"}})]);
    let given = pod(json!({"containers": [container("a", json!({"cpu": "1"}), json!({"cpu": "1"}))]}));
    assert_eq!(create(&plugin, "pods", given.clone()).await, Ok(given));
}

#[tokio::test]
async fn enforces_bounds_of_containers_and_pods() {
    let one = |requests: Value, limits: Value| json!({"containers": [container("a", requests, limits)]});
    let two = json!({"containers": [container("a", json!({"cpu": "1"}), json!({"cpu": "1"})),
        container("b", json!({"cpu": "1"}), json!({"cpu": "1"}))]});
    let mut sidecar = container("s", json!({"cpu": "1"}), json!({"cpu": "1"}));
    sidecar["restartPolicy"] = json!("Always");
    let with_sidecar = json!({"containers": [container("a", json!({"cpu": "1"}), json!({"cpu": "1"}))],
        "initContainers": [sidecar, container("i", json!({"cpu": "1500m"}), json!({"cpu": "1500m"}))]});
    let whole = json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}});
    let (min, max) = (json!({"cpu": "100m"}), json!({"cpu": "2"}));
    let cases = [
        (
            "Container",
            "min",
            &min,
            one(json!({}), json!({})),
            Some("minimum cpu usage per Container is 100m.  No request is specified"),
        ),
        (
            "Container",
            "min",
            &min,
            one(json!({"cpu": "50m"}), json!({"cpu": "1"})),
            Some("minimum cpu usage per Container is 100m, but request is 50m"),
        ),
        (
            "Container",
            "min",
            &min,
            one(json!({"cpu": "100m"}), json!({"cpu": "50m"})),
            Some("minimum cpu usage per Container is 100m, but limit is 50m"),
        ),
        (
            "Container",
            "max",
            &max,
            one(json!({"cpu": "1"}), json!({})),
            Some("maximum cpu usage per Container is 2.  No limit is specified"),
        ),
        (
            "Container",
            "max",
            &max,
            one(json!({"cpu": "1"}), json!({"cpu": "3"})),
            Some("maximum cpu usage per Container is 2, but limit is 3"),
        ),
        (
            "Container",
            "max",
            &max,
            one(json!({"cpu": "3"}), json!({"cpu": "2"})),
            Some("maximum cpu usage per Container is 2, but request is 3"),
        ),
        ("Container", "max", &max, one(json!({"cpu": "2000m"}), json!({"cpu": "2"})), None),
        ("Container", "maxLimitRequestRatio", &max, one(json!({"cpu": "1"}), json!({"cpu": "2"})), None),
        (
            "Container",
            "maxLimitRequestRatio",
            &max,
            one(json!({"cpu": "1"}), json!({"cpu": "2500m"})),
            Some("cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"),
        ),
        (
            "Container",
            "maxLimitRequestRatio",
            &max,
            one(json!({}), json!({"cpu": "2"})),
            Some(
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
        ),
        (
            "Container",
            "maxLimitRequestRatio",
            &max,
            one(json!({"cpu": "1"}), json!({"cpu": "0"})),
            Some(
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ),
        ),
        ("Pod", "max", &max, two, None),
        ("Pod", "max", &max, with_sidecar, Some("maximum cpu usage per Pod is 2, but limit is 2500m")),
        ("Pod", "max", &max, whole, Some("maximum cpu usage per Pod is 2, but limit is 3")),
    ];
    for (kind, field, bound, spec, expected) in cases {
        let (_, plugin) = ranges(&[json!({"type": kind, field: bound})]);
        let found = create(&plugin, "pods", pod(spec.clone())).await;
        let expected = expected.map(|why| format!(r#"pods "p" is forbidden: {why}"#));
        assert_eq!(found.err(), expected, "{kind} {field} {spec}");
    }
}

#[tokio::test]
async fn reports_several_errors_together() {
    let (_, plugin) = ranges(&[json!({"type": "Container", "max": {"cpu": "1", "memory": "1"}})]);
    let found = create(&plugin, "pods", pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}))).await;
    let expected = r#"pods "p" is forbidden: [maximum cpu usage per Container is 1.  No limit is specified, maximum memory usage per Container is 1.  No limit is specified]"#;
    assert_eq!(found, Err(expected.to_owned()));
}

#[tokio::test]
async fn enforces_bounds_of_claims_on_each_write() {
    let (_, plugin) = ranges(&[
        json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}),
    ]);
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": size}}}});
    let told = |why: &str| format!(r#"persistentvolumeclaims "c" is forbidden: {why}"#);
    let over = told("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi");
    let create = async |object| create(&plugin, "persistentvolumeclaims", object).await.err();
    assert_eq!(create(claim("1Gi")).await, None);
    assert_eq!(create(claim("3Gi")).await, Some(over.clone()));
    let under = told("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi");
    assert_eq!(create(claim("1Mi")).await, Some(under));
    let missing = json!({"metadata": {"name": "c"}, "spec": {}});
    let none = told(
        "[minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is specified, maximum storage usage per PersistentVolumeClaim is 2Gi.  No request is specified]",
    );
    assert_eq!(create(missing).await, Some(none));
    // Even a change of labels is refused for an existing claim that exceeds a newer range.
    let mut labelled = claim("3Gi");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let mut request = Request::new(registry(), "", "persistentvolumeclaims", labelled.clone(), claim("3Gi"));
    assert_eq!(outcome(request.admit(&plugin).await), Err((403, over)));
    let mut deleted = claim("3Gi");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut request = Request::new(registry(), "", "persistentvolumeclaims", labelled, deleted);
    assert_eq!(outcome(request.admit(&plugin).await), Ok(()));
}

#[tokio::test]
async fn checks_pod_updates_on_resize_only() {
    let (_, plugin) = ranges(&[json!({"type": "Container", "max": {"cpu": "1"}})]);
    let large = pod(json!({"containers": [container("a", json!({"cpu": "2"}), json!({"cpu": "2"}))]}));
    for (subresource, refused) in
        [("", false), ("resize", true), ("status", false), ("ephemeralcontainers", false)]
    {
        let mut request =
            Request::new(registry(), "", "pods", large.clone(), large.clone()).with_subresource(subresource);
        assert_eq!(request.admit(&plugin).await.is_err(), refused, "{subresource:?}");
    }
}

#[tokio::test]
async fn enforces_a_range_that_is_not_cached_yet() {
    let (ranges, plugin) = ranges(&[]);
    ranges.put_uncached(json!({"metadata": {"name": "r", "namespace": "ns"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}));
    assert!(create(&plugin, "pods", pod(json!({"containers": [{"name": "a"}]}))).await.is_err());
}
