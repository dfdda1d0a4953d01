//! The core group: pods, services, nodes, namespaces and related kinds.

mod claims;
mod columns;
mod config;
mod controllers;
mod endpoints;
mod limits;
mod namespaces;
mod nodes;
mod persistent_volumes;
pub(crate) mod pod_spec;
mod pods;
mod quotas;
mod services;
mod volume_sources;
mod volumes;

use std::time::Duration;

pub(crate) use claims::{claim_spec, claim_template, spec_warnings as claim_spec_warnings};
pub(crate) use persistent_volumes::inline_volume;
pub(crate) use pod_spec::same_but;
pub use services::cluster_ips as validate_service_cluster_ips;
pub(crate) use services::load_balancer;
pub(crate) use volumes::claim_defaults;

use crate::builder::{Builder, GroupBuilder, group as declare, resource, review};
use crate::def::{KeptMetadata, NameRule, Verb};
use crate::groups::events;
use crate::scale::ScalePaths;
use crate::table;

use Verb::{Create, Delete, Get, List, Patch, Update, Watch};

/// The verbs of a subresource that opens a connection.
const CONNECT: &[Verb] = &[Create, Get];
/// The verbs of a subresource that proxies requests with any method.
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];

/// The default of `--event-ttl`.
pub(crate) const EVENT_TTL: Duration = Duration::from_hours(1);

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        review("Binding", "bindings"),
        component_statuses(),
        config_maps(),
        endpoints(),
        core_events(),
        limit_ranges(),
        namespaces(),
        node_resource(),
        persistent_volume_claims(),
        persistent_volumes(),
        pod_resource(),
        pod_templates(),
        replication_controllers(),
        resource_quotas(),
        secrets(),
        service_accounts(),
        service_resource(),
    ];
    declare("", "io.k8s.api.core", resources)
}

fn component_statuses() -> Builder {
    resource("ComponentStatus", "componentstatuses")
        .cluster()
        .short(&["cs"])
        .verbs(&[Get, List])
        .virtual_resource()
        .columns(columns::component_status())
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
}

fn config_maps() -> Builder {
    resource("ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(columns::config_map())
        .strategy(config::ConfigMapStrategy)
}

fn endpoints() -> Builder {
    resource("Endpoints", "endpoints")
        .short(&["ep"])
        .prefix("services/endpoints")
        .create_on_update()
        .columns(columns::endpoints())
        .strategy(endpoints::EndpointsStrategy)
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
}

fn core_events() -> Builder {
    let event = resource("Event", "events")
        .short(&["ev"])
        .named(NameRule::With(events::any_name))
        .create_on_update()
        .without_dependents()
        .ttl(EVENT_TTL)
        .columns(events::columns())
        .strategy(events::CoreEventStrategy);
    events::core_fields(event)
}

fn limit_ranges() -> Builder {
    resource("LimitRange", "limitranges")
        .short(&["limits"])
        .create_on_update()
        .columns(table::name_and_creation())
        .strategy(limits::LimitRangeStrategy)
}

fn namespaces() -> Builder {
    resource("Namespace", "namespaces")
        .cluster()
        .short(&["ns"])
        .verbs(&[Create, Delete, Get, List, Patch, Update, Watch])
        .status()
        .restricted_update("finalize", &[Update])
        .named(NameRule::Label)
        .returns_deleted()
        .own_deletion()
        .field("status.phase")
        .columns(columns::namespace())
        .strategy(namespaces::NamespaceStrategy)
}

fn node_resource() -> Builder {
    resource("Node", "nodes")
        .cluster()
        .short(&["no"])
        .prefix("minions")
        .status()
        .creates_with_status()
        .special("proxy", ("", "", "NodeProxyOptions"), PROXY)
        .field_at("spec.unschedulable", "spec.unschedulable", "false")
        .columns(nodes::columns())
        .strategy(nodes::NodeStrategy)
}

fn persistent_volume_claims() -> Builder {
    resource("PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .status()
        .returns_deleted()
        .columns(volumes::claim_columns())
        .strategy(volumes::ClaimStrategy)
}

fn persistent_volumes() -> Builder {
    resource("PersistentVolume", "persistentvolumes")
        .cluster()
        .short(&["pv"])
        .status()
        .returns_deleted()
        .columns(volumes::volume_columns())
        .strategy(volumes::VolumeStrategy)
}

fn pod_resource() -> Builder {
    resource("Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .status()
        .special("attach", ("", "", "PodAttachOptions"), CONNECT)
        .special("binding", ("", "", "Binding"), Verb::CREATE)
        .restricted_update("ephemeralcontainers", Verb::VIEW)
        .special("eviction", ("policy", "v1", "Eviction"), Verb::CREATE)
        .special("exec", ("", "", "PodExecOptions"), CONNECT)
        .special("log", ("", "", "Pod"), &[Get])
        .special("portforward", ("", "", "PodPortForwardOptions"), CONNECT)
        .special("proxy", ("", "", "PodProxyOptions"), PROXY)
        .restricted_update("resize", Verb::VIEW)
        .keeps_metadata(KeptMetadata::OWNERS_AND_DELETION)
        .generation(&["spec"])
        .returns_deleted()
        .field("spec.nodeName")
        .indexed()
        .field("spec.restartPolicy")
        .field("spec.schedulerName")
        .field("spec.serviceAccountName")
        .field_at("spec.hostNetwork", "spec.hostNetwork", "false")
        .field("status.phase")
        .field("status.podIP")
        .field("status.podIPs")
        .field("status.nominatedNodeName")
        // The legacy selector for `spec.nodeName`.
        .field_at("spec.host", "spec.nodeName", "")
        .columns(pods::columns())
        .strategy(pods::PodStrategy)
}

fn pod_templates() -> Builder {
    resource("PodTemplate", "podtemplates")
        .generation(&["template"])
        .returns_deleted()
        .columns(columns::pod_template())
        .strategy(controllers::PodTemplateStrategy)
}

fn replication_controllers() -> Builder {
    resource("ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .categories(&["all"])
        .prefix("controllers")
        .status()
        .scale(ScalePaths::workload())
        .generation(&["spec"])
        .orphans_dependents()
        .field_at("status.replicas", "status.replicas", "0")
        .columns(columns::replication_controller())
        .strategy(controllers::ReplicationControllerStrategy)
}

fn resource_quotas() -> Builder {
    resource("ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .status()
        .returns_deleted()
        .columns(columns::resource_quota())
        .strategy(quotas::QuotaStrategy)
}

fn secrets() -> Builder {
    resource("Secret", "secrets").field("type").columns(columns::secret()).strategy(config::SecretStrategy)
}

fn service_accounts() -> Builder {
    resource("ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .special("token", ("authentication.k8s.io", "v1", "TokenRequest"), Verb::CREATE)
        .returns_deleted()
        .strategy(config::ServiceAccountStrategy)
}

fn service_resource() -> Builder {
    resource("Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .prefix("services/specs")
        .status()
        .special("proxy", ("", "", "ServiceProxyOptions"), PROXY)
        .named(NameRule::Label)
        .create_on_update()
        .returns_deleted()
        .field("spec.clusterIP")
        .field("spec.type")
        .columns(services::columns())
        .strategy(services::ServiceStrategy)
}
