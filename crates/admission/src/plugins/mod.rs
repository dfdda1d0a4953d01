//! The plugins, and the list that names, orders and constructs them.

mod always;
mod always_pull_images;
mod certificates;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod image_policy_webhook;
mod limit_pod_hard_anti_affinity_topology;
mod limit_ranger;
mod live;
mod namespace_auto_provision;
mod namespace_exists;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod node_taint;
mod owner_references;
mod persistent_volume_claim_resize;
mod pod_node_selector;
mod pod_resize;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
mod pods;
mod priority;
mod rbac_escalation;
mod resource_claims;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use;
mod tolerations;
mod webhooks;

use std::sync::Arc;

use nave_authz::rbac::Rbac;
use nave_machinery::{Object, Reason, Status, Value};
use nave_webhook::ClientManager;

use crate::chain::{Chain, Plugin};
use crate::cluster::Cluster;
use crate::config::{ConfigError, PluginConfig};
use crate::expressions::Programs;
use crate::matching::Matcher;
use crate::metrics::Metrics;
use crate::objects::ObjectInterfaces;
use crate::policies::{self, ParamKinds};

pub use certificates::set_certificate_requester;
pub(crate) use webhooks::WebhookMetrics;

/// The dependencies of plugins.
#[derive(Clone)]
pub struct Parts {
    /// Access to the cluster.
    pub cluster: Cluster,
    /// Matches requests against the criteria of webhooks and policies.
    pub matcher: Matcher,
    /// Converts objects for webhooks and policies.
    pub interfaces: Arc<dyn ObjectInterfaces>,
    /// The clients of admission webhooks.
    pub webhooks: Arc<ClientManager>,
    /// The compiled expressions of webhooks and policies.
    pub programs: Programs,
    /// Reads the parameters of policies.
    pub params: Arc<dyn ParamKinds>,
    /// The authorizer, for plugins that check access.
    pub authorizer: nave_authz::Chain,
    /// The roles and bindings for escalation checks.
    pub rbac: Arc<Rbac>,
    /// `--default-not-ready-toleration-seconds`.
    pub default_not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub default_unreachable_toleration_seconds: i64,
}

/// An entry of the list.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The plugin's name in flags, configuration files and metrics.
    pub name: &'static str,
    /// True if the plugin is enabled by default.
    pub enabled_by_default: bool,
    make: Make,
}

/// The constructor of a plugin.
#[derive(Clone, Copy)]
enum Make {
    /// A function of the dependencies and the configuration.
    Plain(fn(&Parts, &PluginConfig) -> Result<Plugin, ConfigError>),
    /// A function that also takes the metrics.
    WithMetrics(MakeWithMetrics),
    /// The plugin is behind a feature gate that is off by default.
    Gated,
}

/// All plugins in the order in which they run (upstream: `AllOrderedPlugins`). New plugins go before the webhooks.
/// ResourceQuota runs last, apart from AlwaysDeny, so that it charges only requests that the other plugins admit.
pub const PLUGINS: [Entry; 41] = [
    disabled("AlwaysAdmit", |_, _| Ok(Plugin::default())),
    disabled("NamespaceAutoProvision", |parts, _| Ok(namespace_auto_provision::plugin(parts))),
    enabled("NamespaceLifecycle", |parts, _| Ok(namespace_lifecycle::plugin(parts))),
    disabled("NamespaceExists", |parts, _| Ok(namespace_exists::plugin(parts))),
    disabled("LimitPodHardAntiAffinityTopology", |_, _| Ok(limit_pod_hard_anti_affinity_topology::plugin())),
    enabled("LimitRanger", |parts, _| Ok(limit_ranger::plugin(parts))),
    enabled("ServiceAccount", |parts, _| Ok(service_account::plugin(parts))),
    disabled("NodeRestriction", |parts, _| Ok(node_restriction::plugin(parts))),
    enabled("TaintNodesByCondition", |_, _| Ok(node_taint::plugin())),
    disabled("AlwaysPullImages", |_, _| Ok(always_pull_images::plugin())),
    disabled("ImagePolicyWebhook", |_, config| image_policy_webhook::plugin(config)),
    with_metrics("PodSecurity", pod_security::plugin),
    disabled("PodNodeSelector", pod_node_selector::plugin),
    enabled("Priority", |parts, _| Ok(priority::plugin(parts))),
    enabled("DefaultTolerationSeconds", |parts, _| Ok(default_toleration_seconds::plugin(parts))),
    disabled("PodTolerationRestriction", pod_toleration_restriction::plugin),
    disabled("EventRateLimit", |_, config| event_rate_limit::plugin(config)),
    disabled("ExtendedResourceToleration", |_, _| Ok(extended_resource_toleration::plugin())),
    enabled("DefaultStorageClass", |parts, _| Ok(default_storage_class::plugin(parts))),
    enabled("StorageObjectInUseProtection", |_, _| Ok(storage_object_in_use::plugin())),
    Entry { name: "PodGroupProtection", enabled_by_default: true, make: Make::Gated },
    disabled("OwnerReferencesPermissionEnforcement", |parts, _| Ok(owner_references::plugin(parts))),
    enabled("PersistentVolumeClaimResize", |parts, _| Ok(persistent_volume_claim_resize::plugin(parts))),
    enabled("RuntimeClass", |parts, _| Ok(runtime_class::plugin(parts))),
    enabled("CertificateApproval", |parts, _| Ok(certificates::approval(parts))),
    enabled("CertificateSigning", |parts, _| Ok(certificates::signing(parts))),
    enabled("ClusterTrustBundleAttest", |parts, _| Ok(certificates::attest(parts))),
    enabled("CertificateSubjectRestriction", |_, _| Ok(certificates::subject_restriction())),
    enabled("DefaultIngressClass", |parts, _| Ok(default_ingress_class::plugin(parts))),
    disabled("DenyServiceExternalIPs", |_, _| Ok(deny_service_external_ips::plugin())),
    enabled("PodTopologyLabels", |parts, _| Ok(pod_topology_labels::plugin(parts))),
    Entry { name: "PodGroupWorkloadExists", enabled_by_default: true, make: Make::Gated },
    enabled("NodeDeclaredFeatureValidator", |parts, _| Ok(node_declared_features::plugin(parts))),
    Entry { name: "JobValidation", enabled_by_default: true, make: Make::Gated },
    enabled("PodResizeValidator", |parts, _| Ok(pod_resize::plugin(parts))),
    with_metrics("MutatingAdmissionPolicy", |parts, _, metrics| Ok(policies::mutating(parts, metrics))),
    with_metrics("MutatingAdmissionWebhook", webhooks::mutating),
    with_metrics("ValidatingAdmissionPolicy", |parts, _, metrics| Ok(policies::validating(parts, metrics))),
    with_metrics("ValidatingAdmissionWebhook", webhooks::validating),
    enabled("ResourceQuota", resource_quota::plugin),
    disabled("AlwaysDeny", |_, _| Ok(always::deny())),
];

type MakeFn = fn(&Parts, &PluginConfig) -> Result<Plugin, ConfigError>;

const fn enabled(name: &'static str, make: MakeFn) -> Entry {
    Entry { name, enabled_by_default: true, make: Make::Plain(make) }
}

const fn disabled(name: &'static str, make: MakeFn) -> Entry {
    Entry { name, enabled_by_default: false, make: Make::Plain(make) }
}

type MakeWithMetrics = fn(&Parts, &PluginConfig, &Metrics) -> Result<Plugin, ConfigError>;

const fn with_metrics(name: &'static str, make: MakeWithMetrics) -> Entry {
    Entry { name, enabled_by_default: true, make: Make::WithMetrics(make) }
}

/// Builds the admission chain of the enabled plugins, in the order of [`PLUGINS`]. `given` are plugins that replace those
/// of the list, by name.
///
/// # Errors
/// [`ConfigError`]: a plugin rejects its configuration.
pub fn build(
    parts: &Parts,
    config: &PluginConfig,
    given: &[(&str, Plugin)],
    metrics: Metrics,
) -> Result<Chain, ConfigError> {
    let mut plugins = Vec::new();
    for entry in PLUGINS.iter().filter(|entry| config.is_enabled(entry)) {
        let given = given.iter().find(|(name, _)| *name == entry.name);
        let plugin = match (given, entry.make) {
            (Some((_, plugin)), _) => Some(plugin.clone()),
            (None, Make::Plain(make)) => Some(make(parts, config)?),
            (None, Make::WithMetrics(make)) => Some(make(parts, config, &metrics)?),
            (None, Make::Gated) => None,
        };
        plugins.extend(plugin.map(|plugin| (entry.name, plugin)));
    }
    Ok(Chain::new(plugins, metrics)
        .with_check(rbac_escalation::check(parts))
        .with_check(policies::check_param_rights(parts))
        .with_check(resource_claims::check(parts)))
}

/// Returns a 500 without a reason: upstream's response to an error that is not a status.
fn plain_error(message: impl Into<String>) -> Status {
    Status::failure(500, Reason::Unknown, message)
}

/// Returns whether an update changes only owner references, finalizers and managed fields, as garbage collection does
/// (upstream: `IsOnlyMutatingGCFields`).
fn changes_ownership_only(new: &Object, old: &Object) -> bool {
    const FREE: [&str; 4] = ["ownerReferences", "finalizers", "managedFields", "resourceVersion"];
    let same = |field: &String, a: Option<&Value>, b: Option<&Value>| {
        if field != "metadata" {
            return a == b;
        }
        let fixed = |metadata: Option<&Value>| -> Vec<(String, Value)> {
            let fields = metadata.and_then(Value::as_object).into_iter().flatten();
            let fixed = fields.filter(|(name, _)| !FREE.contains(&name.as_str()));
            fixed.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        fixed(a) == fixed(b)
    };
    let fields = new.as_map().keys().chain(old.as_map().keys());
    fields.into_iter().all(|field| same(field, new.get(field), old.get(field)))
}

#[cfg(test)]
mod tests {
    use nave_authz::Metrics as AuthzMetrics;
    use serde_json::json;

    use super::*;
    use crate::testing::{MemoryCluster, Request, outcome, registry};

    fn parts(cluster: &MemoryCluster) -> Parts {
        cluster.parts(nave_authz::Chain::new(
            Vec::new(),
            AuthzMetrics::new(&prometheus::Registry::new()).unwrap(),
        ))
    }

    #[test]
    fn distinguishes_ownership_changes_from_others() {
        let object = |value: Value| Object::try_from(value).unwrap();
        let old = object(json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": 1}));
        for (new, expected) in [
            (
                json!({"metadata": {"name": "a", "resourceVersion": "2", "finalizers": ["f"]}, "spec": 1}),
                true,
            ),
            (json!({"metadata": {"name": "a", "ownerReferences": []}, "spec": 1}), true),
            (json!({"metadata": {"name": "a", "labels": {}}, "spec": 1}), false),
            (json!({"metadata": {"name": "a"}, "spec": 2}), false),
            (json!({"metadata": {"name": "a"}}), false),
            (json!({"metadata": {"name": "a"}, "spec": 1, "status": 1}), false),
        ] {
            assert_eq!(changes_ownership_only(&object(new.clone()), &old), expected, "{new}");
        }
    }

    #[tokio::test]
    async fn default_plugins_admit_a_pod() {
        let cluster = MemoryCluster::default();
        cluster.namespaces.put(json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}));
        cluster.service_accounts.put(json!({"metadata": {"name": "default", "namespace": "ns"}}));
        let chain = build(&parts(&cluster), &PluginConfig::default(), &[], Metrics::default()).unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        let request = Request::new(registry(), "", "pods", pod.clone(), Value::Null);
        let attributes = request.attributes("p", None);
        let mut object = Object::try_from(pod).unwrap();
        assert_eq!(outcome(chain.mutate(&attributes, Some(&mut object)).await), Ok(()));
        assert_eq!(outcome(chain.validate(&attributes, Some(&object)).await), Ok(()));
        assert_eq!(object.value_at(&["spec", "priority"]), Some(&json!(0)));
        assert_eq!(object.str_at(&["spec", "serviceAccountName"]), Some("default"));
        assert_eq!(object.list_at(&["spec", "tolerations"]).len(), 2);
    }

    #[test]
    fn plugins_of_the_caller_are_ordered_by_the_list() {
        let cluster = MemoryCluster::default();
        let given = [("ValidatingAdmissionPolicy", always::deny()), ("Other", always::deny())];
        let all: Vec<String> = PLUGINS.iter().map(|entry| entry.name.to_owned()).collect();
        let without = ["ImagePolicyWebhook", "EventRateLimit"];
        let enabled: Vec<String> =
            all.iter().filter(|name| !without.contains(&name.as_str())).cloned().collect();
        let config = PluginConfig::new(&enabled, &[]).unwrap();
        assert!(build(&parts(&cluster), &config, &given, Metrics::default()).is_ok());
        // These plugins require a configuration.
        for name in without {
            let config = PluginConfig::new(&[name.to_owned()], &[]).unwrap();
            assert!(build(&parts(&cluster), &config, &[], Metrics::default()).is_err(), "{name}");
        }
    }
}
