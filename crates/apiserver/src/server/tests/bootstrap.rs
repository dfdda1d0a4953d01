//! The objects that a server creates at start, on a store with changes by other writers.

use super::*;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

impl Fixture {
    /// Runs the bootstrap again, as the next start of the server would.
    async fn bootstrap(&self) {
        let resources = &self.server.pipeline.router.resources;
        let bootstrap = &self.server.bootstrap;
        bootstrap.run(resources, &ClusterAuthentication::default()).await.unwrap();
    }

    async fn object(&self, collection: &str, name: &str) -> Value {
        let (code, object) = self.get(&format!("{collection}/{name}"), &[]).await;
        assert_eq!(code, 200, "{object}");
        object
    }
}

#[tokio::test]
async fn a_start_changes_nothing_if_everything_is_correct() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let endpoints = "/api/v1/endpoints";
    let all = [
        "/api/v1/namespaces",
        "/api/v1/services",
        "/api/v1/configmaps",
        endpoints,
        SLICES,
        API_SERVICES,
        ROLES,
        BINDINGS,
    ];
    let mut before = Vec::new();
    for uri in all {
        before.push(it.get(uri, &[]).await.1["items"].clone());
    }
    it.bootstrap().await;
    for (uri, before) in all.into_iter().zip(before) {
        assert_eq!(it.get(uri, &[]).await.1["items"], before, "{uri}");
    }
}

#[tokio::test]
async fn missing_rules_and_subjects_are_restored() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let (role, binding) = ("system:basic-user", "system:basic-user");
    let rules = it.object(ROLES, role).await["rules"].clone();
    let more = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    assert_eq!(it.send(Method::PATCH, &format!("{ROLES}/{role}"), &json!({"rules": [more]})).await.0, 200);
    // The role reference of a binding is immutable, so the binding is deleted and created again.
    let right = it.object(BINDINGS, binding).await;
    let mut other = right.clone();
    other["roleRef"]["name"] = json!("view");
    other["metadata"].as_object_mut().unwrap().retain(|field, _| field == "name");
    assert_eq!(it.send(Method::DELETE, &format!("{BINDINGS}/{binding}"), &Value::Null).await.0, 200);
    assert_eq!(it.send(Method::POST, BINDINGS, &other).await.0, 201);
    // The first role must stay unchanged; the second one is missing.
    let untouched = "system:discovery";
    let patch = json!({"rules": null, "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    assert_eq!(it.send(Method::PATCH, &format!("{ROLES}/{untouched}"), &patch).await.0, 200);
    assert_eq!(it.send(Method::DELETE, &format!("{ROLES}/view"), &Value::Null).await.0, 200);
    // A starting server has caches with all stored objects; these reads wait for that state.
    for uri in [ROLES, BINDINGS] {
        assert_eq!(it.get(uri, &[]).await.0, 200);
    }
    it.bootstrap().await;
    let mended = it.object(ROLES, role).await["rules"].clone();
    assert!(mended.as_array().unwrap().contains(&more), "{mended}");
    for rule in rules.as_array().unwrap() {
        for resource in rule["resources"].as_array().unwrap() {
            assert!(mended.to_string().contains(&resource.to_string()), "{resource} is not in {mended}");
        }
    }
    let made = it.object(BINDINGS, binding).await;
    assert_eq!((&made["roleRef"], &made["subjects"]), (&right["roleRef"], &right["subjects"]));
    assert_eq!(it.object(ROLES, untouched).await["rules"], Value::Null);
    it.object(ROLES, "view").await;
}

#[tokio::test]
async fn reports_ranges_that_differ_from_the_flags_once() {
    const EVENTS: &str =
        "/api/v1/namespaces/default/events?fieldSelector=reason%3DKubernetesDefaultServiceCIDRInconsistent";
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let resources = &it.server.pipeline.router.resources;
    it.bootstrap().await;
    assert_eq!(it.get(EVENTS, &[]).await.1["items"], json!([]));
    let ranges = ServiceRanges::from_str("10.9.0.0/24").unwrap();
    let advertise = "192.0.2.2:6443".parse().unwrap();
    let changed = Bootstrap::new(it.server.repair.clone(), ranges, advertise, true, "host");
    changed.run(resources, &ClusterAuthentication::default()).await.unwrap();
    changed.reconcile(resources).await;
    let events = it.get(EVENTS, &[]).await.1["items"].clone();
    assert_eq!(events.as_array().unwrap().len(), 1, "{events}");
    assert_eq!(events[0]["involvedObject"]["name"], "kubernetes");
    assert_eq!(
        events[0]["message"],
        "The default ServiceCIDR [10.0.0.0/24] does not match the controller flag configurations [10.9.0.0/24]"
    );
    let kept = it.object("/apis/networking.k8s.io/v1/servicecidrs", "kubernetes").await;
    assert_eq!(kept["spec"]["cidrs"], json!(["10.0.0.0/24"]));
}

#[tokio::test]
async fn deleted_and_changed_objects_are_restored() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let lease = it.get(LEASES, &[]).await.1["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let objects = [
        ("/api/v1/namespaces/default/services", "kubernetes"),
        ("/api/v1/namespaces/default/endpoints", "kubernetes"),
        (SLICES, "kubernetes"),
        ("/apis/networking.k8s.io/v1/servicecidrs", "kubernetes"),
        ("/api/v1/namespaces/kube-system/configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        (LEASES, &lease),
    ];
    let resources = &it.server.pipeline.router.resources;
    // Reconciliation reads the caches; this read brings them up to date.
    let reconcile = async |collection: &str| {
        it.get(collection, &[]).await;
        it.server.bootstrap.reconcile(resources).await;
    };
    for (collection, name) in objects {
        let before = it.object(collection, name).await;
        assert_eq!(it.send(Method::DELETE, &format!("{collection}/{name}"), &Value::Null).await.0, 200);
        reconcile(collection).await;
        let after = it.object(collection, name).await;
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "{name}");
        for field in ["subsets", "endpoints", "data"] {
            assert_eq!(after.get(field), before.get(field), "{collection}/{name}");
        }
    }
    let (endpoints, tracking, slice) = (objects[1], objects[4], objects[2]);
    for ((collection, name), patch, field) in [
        (endpoints, json!({"subsets": null, "metadata": {"labels": null}}), "subsets"),
        (slice, json!({"endpoints": null}), "endpoints"),
        (tracking, json!({"data": {"since": "yesterday"}}), "data"),
    ] {
        let before = it.object(collection, name).await;
        assert_eq!(it.send(Method::PATCH, &format!("{collection}/{name}"), &patch).await.0, 200);
        reconcile(collection).await;
        let after = it.object(collection, name).await;
        assert_eq!(after[field], before[field], "{name}");
        assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"], "{name}");
    }
}

#[tokio::test]
async fn users_may_change_api_services_between_starts() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let apps = it.object(API_SERVICES, "v1.apps").await;
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
    let patch = json!({"spec": {"versionPriority": 3}});
    assert_eq!(it.send(Method::PATCH, &format!("{API_SERVICES}/v1.apps"), &patch).await.0, 200);
    let unlabeled = json!({"metadata": {"labels": null}, "spec": {"versionPriority": 3}});
    assert_eq!(it.send(Method::PATCH, &format!("{API_SERVICES}/v1.batch"), &unlabeled).await.0, 200);
    assert_eq!(it.send(Method::DELETE, &format!("{API_SERVICES}/v1."), &Value::Null).await.0, 200);
    // Versions that an earlier start has served, with the label of the server and without.
    for (name, label) in [("v1beta1.apps", "onstart"), ("v1beta2.apps", "true")] {
        let (version, group) = name.split_once('.').unwrap();
        let old = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {"kube-aggregator.kubernetes.io/automanaged": label}},
            "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 1}});
        assert_eq!(it.send(Method::POST, API_SERVICES, &old).await.0, 201);
    }
    it.get(API_SERVICES, &[]).await;
    it.bootstrap().await;
    for (name, priority) in [("v1.", 1), ("v1.apps", 15), ("v1.batch", 3)] {
        assert_eq!(it.object(API_SERVICES, name).await["spec"]["versionPriority"], priority, "{name}");
    }
    assert_eq!(it.get(&format!("{API_SERVICES}/v1.apiregistration.k8s.io"), &[]).await.0, 404);
    assert_eq!(it.get(&format!("{API_SERVICES}/v1beta1.apps"), &[]).await.0, 404);
    assert_eq!(it.get(&format!("{API_SERVICES}/v1beta2.apps"), &[]).await.0, 200);
}
