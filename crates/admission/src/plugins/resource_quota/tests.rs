use nave_machinery::Value;
use serde_json::json;

use super::*;
use crate::Lister;
use crate::testing::{Memory, Request, outcome, registry};

struct Setup {
    stored: Arc<Memory>,
    plugin: Arc<Plugin>,
}

impl Setup {
    fn new() -> Self {
        Self::with(PluginConfig::default())
    }

    fn with(config: PluginConfig) -> Self {
        let stored = Arc::new(Memory::default());
        let quotas = Quotas::new(Arc::clone(&stored) as Arc<dyn Lister>, Arc::clone(&stored) as _);
        let limited = config::read(&config).unwrap().into();
        let plugin = Plugin::validating(ResourceQuota { limited, workers: Workers::new(Arc::new(quotas)) });
        Self { stored, plugin: Arc::new(plugin) }
    }

    /// A quota with this usage in its status.
    fn quota(self, name: &str, hard: Value, used: Value, spec: Value) -> Self {
        let mut quota = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec,
            "status": {"hard": hard, "used": used}});
        quota["spec"]["hard"] = quota["status"]["hard"].clone();
        self.stored.put(quota);
        self
    }

    fn used(&self, name: &str) -> Value {
        self.stored.stored("ns", name).unwrap().value_at(&["status", "used"]).cloned().unwrap_or_default()
    }

    async fn create(&self, group: &str, resource: &str, object: Value) -> Result<(), String> {
        self.send(&mut Request::new(registry(), group, resource, object, Value::Null)).await
    }

    async fn update(
        &self,
        resource: &str,
        subresource: &'static str,
        new: Value,
        old: Value,
    ) -> Result<(), String> {
        self.send(&mut Request::new(registry(), "", resource, new, old).with_subresource(subresource)).await
    }

    async fn send(&self, request: &mut Request<'_>) -> Result<(), String> {
        outcome(request.admit(&self.plugin).await).map_err(|(code, message)| {
            assert_eq!(code, 403, "{message}");
            message
        })
    }
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

fn container(name: &str, cpu: &str) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
}

fn refused(object: &str, why: &str) -> Result<(), String> {
    Err(format!("{object} is forbidden: {why}"))
}

#[tokio::test]
async fn quota_without_status_counts_nothing() {
    let setup = Setup::new();
    setup
        .stored
        .put(json!({"metadata": {"name": "fresh", "namespace": "ns"}, "spec": {"hard": {"pods": "0"}}}));
    assert_eq!(setup.create("", "pods", pod(json!([]))).await, Ok(()));
    let setup = Setup::new().quota("fresh", json!({"pods": "2", "configmaps": "1"}), json!({}), json!({}));
    let unknown = refused(r#"pods "p""#, "status unknown for quota: fresh, resources: pods");
    assert_eq!(setup.create("", "pods", pod(json!([]))).await, unknown);
    assert_eq!(setup.create("", "secrets", named("s")).await, Ok(()));
}

#[tokio::test]
async fn counts_objects_of_any_resource() {
    let hard = json!({"count/deployments.apps": "1", "configmaps": "1", "count/secrets": "5"});
    let used = json!({"count/deployments.apps": "0", "configmaps": "0", "count/secrets": "0"});
    let setup = Setup::new().quota("q", hard, used, json!({}));
    assert_eq!(setup.create("apps", "deployments", named("a")).await, Ok(()));
    let exceeded = "exceeded quota: q, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1";
    assert_eq!(
        setup.create("apps", "deployments", named("b")).await,
        refused(r#"deployments.apps "b""#, exceeded)
    );
    assert_eq!(setup.create("", "configmaps", named("a")).await, Ok(()));
    assert!(setup.create("", "configmaps", named("b")).await.is_err());
    assert_eq!(setup.create("", "events", named("e")).await, Ok(()));
    assert_eq!(setup.update("secrets", "", named("s"), named("s")).await, Ok(()));
    assert_eq!(
        setup.used("q"),
        json!({"count/deployments.apps": "1", "configmaps": "1", "count/secrets": "0"})
    );
}

#[tokio::test]
async fn pods_must_specify_limited_resources() {
    let hard = json!({"requests.cpu": "2", "limits.memory": "4Gi"});
    let setup =
        Setup::new().quota("compute", hard, json!({"requests.cpu": "0", "limits.memory": "0"}), json!({}));
    let told = "failed quota: compute: must specify limits.memory for: a,b; requests.cpu for: b";
    let given = pod(json!([{"name": "b"}, container("a", "1")]));
    assert_eq!(setup.create("", "pods", given).await, refused(r#"pods "p""#, told));
    let mut whole = pod(json!([{"name": "a"}]));
    whole["spec"]["resources"] = json!({"requests": {"cpu": "50m"}, "limits": {"memory": "50Mi"}});
    assert_eq!(setup.create("", "pods", whole).await, Ok(()));
    assert_eq!(setup.used("compute"), json!({"requests.cpu": "50m", "limits.memory": "50Mi"}));
}

#[tokio::test]
async fn resize_charges_increases_only() {
    let setup =
        Setup::new().quota("q", json!({"requests.cpu": "2"}), json!({"requests.cpu": "1750m"}), json!({}));
    let of = |cpu: &str| pod(json!([container("a", cpu)]));
    let resize = async |to: &str, from: &str| setup.update("pods", "resize", of(to), of(from)).await;
    assert_eq!(resize("300m", "200m").await, Ok(()));
    assert_eq!(setup.used("q"), json!({"requests.cpu": "1850m"}));
    let exceeded =
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=1850m, limited: requests.cpu=2";
    assert_eq!(resize("700m", "200m").await, refused(r#"pods "p""#, exceeded));
    assert_eq!(resize("100m", "300m").await, Ok(()));
    assert_eq!(setup.update("pods", "", of("5"), of("1")).await, Ok(()), "plain updates take nothing");
    assert_eq!(setup.used("q"), json!({"requests.cpu": "1850m"}));
}

#[tokio::test]
async fn counts_services_and_claims() {
    let hard = json!({"services": "5", "services.nodeports": "2", "fast.storageclass.storage.k8s.io/requests.storage": "1Gi"});
    let used = json!({"services": "0", "services.nodeports": "0", "fast.storageclass.storage.k8s.io/requests.storage": "0"});
    let setup = Setup::new().quota("q", hard, used, json!({}));
    let service = |kind: &str, ports: usize| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": vec![json!({"port": 1}); ports]}});
    assert_eq!(setup.create("", "services", service("ClusterIP", 1)).await, Ok(()));
    assert_eq!(setup.update("services", "", service("NodePort", 2), service("ClusterIP", 2)).await, Ok(()));
    let exceeded = "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=2, limited: services.nodeports=2";
    assert_eq!(
        setup.create("", "services", service("NodePort", 1)).await,
        refused(r#"services "s""#, exceeded)
    );
    let claim = |class: &str, size: &str| json!({"metadata": {"name": "c"}, "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}});
    assert_eq!(setup.create("", "persistentvolumeclaims", claim("slow", "9Gi")).await, Ok(()));
    assert!(setup.create("", "persistentvolumeclaims", claim("fast", "2Gi")).await.is_err());
    assert_eq!(setup.create("", "persistentvolumeclaims", claim("fast", "512Mi")).await, Ok(()));
    assert!(
        setup
            .update("persistentvolumeclaims", "", claim("fast", "2Gi"), claim("fast", "512Mi"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn scopes_select_pods() {
    let by_class = |operator: &str| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}})
    };
    let (hard, used) = (json!({"pods": "1"}), json!({"pods": "0"}));
    let setup = Setup::new()
        .quota("important", hard.clone(), used.clone(), by_class("In"))
        .quota("others", hard.clone(), used.clone(), by_class("NotIn"))
        .quota("ending", hard, used, json!({"scopes": ["Terminating"]}));
    let of = |class: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [], "priorityClassName": class}});
    assert_eq!(setup.create("", "pods", of(json!("high"))).await, Ok(()));
    let exceeded = "exceeded quota: important, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(setup.create("", "pods", of(json!("high"))).await, refused(r#"pods "p""#, exceeded));
    assert_eq!(setup.create("", "pods", of(json!(null))).await, Ok(()));
    assert!(setup.create("", "pods", of(json!("low"))).await.is_err());
    assert_eq!(
        [setup.used("important"), setup.used("others"), setup.used("ending")],
        [json!({"pods": "1"}), json!({"pods": "1"}), json!({"pods": "0"})]
    );
}

#[tokio::test]
async fn updates_into_a_scope_are_charged_in_full() {
    let (hard, used) = (json!({"pods": "1", "requests.cpu": "2"}), |n| json!({"pods": n, "requests.cpu": n}));
    let by_class = json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}]}});
    let claims = |n| json!({"persistentvolumeclaims": n});
    let setup = Setup::new()
        .quota("ending", hard.clone(), used("0"), json!({"scopes": ["Terminating"]}))
        .quota("lasting", hard, used("1"), json!({"scopes": ["NotTerminating"]}))
        .quota("golden", claims("1"), claims("0"), by_class);
    let with_deadline = |seconds: Value| {
        let mut pod = pod(json!([container("c", "1")]));
        pod["spec"]["activeDeadlineSeconds"] = seconds;
        pod
    };
    let (lasting, ending) = (with_deadline(json!(null)), with_deadline(json!(5)));
    assert_eq!(setup.update("pods", "", ending.clone(), lasting).await, Ok(()));
    // An update within a scope is not charged, and the controller releases the usage of the other scope.
    assert_eq!(setup.update("pods", "", with_deadline(json!(4)), ending.clone()).await, Ok(()));
    assert_eq!([setup.used("ending"), setup.used("lasting")], [used("1"), used("1")]);
    let exceeded = "exceeded quota: ending, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(setup.create("", "pods", ending).await, refused(r#"pods "p""#, exceeded));

    let claim =
        |class: &str| json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": class}});
    for (new, old, is_admitted) in [
        ("gold", "silver", true),
        ("gold", "gold", true),
        ("silver", "gold", true),
        ("gold", "silver", false),
    ] {
        let updated = setup.update("persistentvolumeclaims", "", claim(new), claim(old)).await;
        assert_eq!(updated.is_ok(), is_admitted, "{old} to {new}");
    }
    assert_eq!(setup.used("golden"), claims("1"));
}

#[tokio::test]
async fn dry_run_is_checked_but_not_charged() {
    let setup = Setup::new().quota("q", json!({"pods": "1"}), json!({"pods": "0"}), json!({}));
    let dry_run = async || {
        let mut request = Request::new(registry(), "", "pods", pod(json!([])), Value::Null);
        request.options.dry_run = true;
        setup.send(&mut request).await
    };
    assert_eq!((dry_run().await, dry_run().await), (Ok(()), Ok(())));
    assert_eq!(setup.used("q"), json!({"pods": "0"}));
    assert_eq!(setup.create("", "pods", pod(json!([]))).await, Ok(()));
    assert!(dry_run().await.is_err());
}

#[tokio::test]
async fn concurrent_creates_never_exceed() {
    let setup = Setup::new().quota("q", json!({"pods": "50"}), json!({"pods": "0"}), json!({}));
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let plugin = Arc::clone(&setup.plugin);
        requests.spawn(async move {
            let mut request = Request::new(registry(), "", "pods", pod(json!([])), Value::Null);
            request.admit(&plugin).await.is_ok()
        });
    }
    // Another writer of the status, such as the quota controller, interferes.
    for _ in 0..5 {
        tokio::task::yield_now().await;
        let stored = setup.stored.stored("ns", "q").unwrap();
        setup.stored.put(stored.as_value().clone());
    }
    let admitted = requests.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 50);
    assert_eq!(setup.used("q"), json!({"pods": "50"}));
}

#[tokio::test]
async fn counts_usage_that_is_not_cached_yet() {
    let setup = Setup::new().quota("q", json!({"pods": "1"}), json!({"pods": "0"}), json!({}));
    assert_eq!(setup.create("", "pods", pod(json!([]))).await, Ok(()));
    // Writes to the in-memory cluster do not update its cache, which still shows a usage of 0.
    assert_eq!(setup.stored.get("ns", "q").unwrap().unwrap().str_at(&["status", "used", "pods"]), Some("0"));
    assert!(setup.create("", "pods", pod(json!([]))).await.is_err());
}

#[tokio::test]
async fn limited_resources_need_a_covering_quota() {
    let content = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration", "limitedResources": [
        {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high", "higher"]}]},
        {"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass"]}]});
    let config = PluginConfig::default().with_plugin("ResourceQuota", content);
    let setup = Setup::with(config.clone());
    let of = |class: &str| json!({"metadata": {"name": "p"}, "spec": {"containers": [], "priorityClassName": class}});
    let uncovered = "insufficient quota to match these scopes: [{PriorityClass In [high higher]}]";
    assert_eq!(setup.create("", "pods", of("high")).await, refused(r#"pods "p""#, uncovered));
    assert_eq!(setup.create("", "pods", of("low")).await, Ok(()));
    let claim = |class: &str| json!({"metadata": {"name": "c"}, "spec": {"storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}});
    let uncovered = "insufficient quota to consume: gold.storageclass.storage.k8s.io/persistentvolumeclaims,gold.storageclass.storage.k8s.io/requests.storage";
    let claims = "persistentvolumeclaims";
    assert_eq!(
        setup.create("", claims, claim("gold")).await,
        refused(r#"persistentvolumeclaims "c""#, uncovered)
    );
    assert_eq!(setup.create("", claims, claim("silver")).await, Ok(()));
    let scopes = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
    let setup = Setup::with(config).quota("q", json!({"pods": "1"}), json!({"pods": "0"}), scopes);
    assert_eq!(setup.create("", "pods", of("high")).await, Ok(()));
}

#[test]
fn rejects_invalid_configurations() {
    for wrong in [
        json!({"kind": "ResourceQuotaConfiguration"}),
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "Other"}),
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration", "limitedResources": [{}]}),
    ] {
        let config = PluginConfig::default().with_plugin("ResourceQuota", wrong.clone());
        assert!(config::read(&config).is_err(), "{wrong}");
    }
}
