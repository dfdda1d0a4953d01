//! The documentation of the API's types and fields. It is generated on demand and dropped after use.
//!
//! The text comes from the types of the `k8s-openapi` crate at run time; it is not part of our sources. The structure
//! of the API comes from [`nave_schema::builtin`], except for the type names of fields with untyped JSON, which the
//! schema set lacks.

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use k8s_openapi::schemars::SchemaGenerator;
use nave_machinery::{Map, Value};

/// The documentation of types.
pub(crate) struct Documentation {
    schemas: Map,
}

/// Adds the schemas of these types and of all types that they refer to.
macro_rules! add {
    ($generator:ident: $($module:path { $($kind:ident)* })*) => {
        $({ use $module as module; $($generator.subschema_for::<module::$kind>();)* })*
    };
}

impl Documentation {
    /// Collects the documentation of all served kinds.
    pub(crate) fn new() -> Self {
        let mut generator = SchemaGenerator::default();
        add_all(&mut generator);
        generator.subschema_for::<meta::v1::WatchEvent<Value>>();
        Self { schemas: generator.take_definitions(false) }
    }

    /// Returns the documentation of a type; empty if the type is not documented.
    pub(crate) fn of_type(&self, type_name: &str) -> &str {
        text(self.schemas.get(type_name))
    }

    /// Returns the documentation of a field; empty if the field is not documented.
    pub(crate) fn of_field(&self, type_name: &str, field: &str) -> &str {
        text(self.field(type_name, field).or_else(|| self.field_of_list(type_name, field)))
    }

    /// Returns the documentation of a field of an undocumented type, such as a list: `apiVersion`, `kind` and
    /// `metadata` are documented as in other types.
    fn field_of_list(&self, type_name: &str, field: &str) -> Option<&Value> {
        let known =
            self.schemas.contains_key(type_name) || !matches!(field, "apiVersion" | "kind" | "metadata");
        if known { None } else { self.field(STATUS, field) }
    }

    /// Returns the type name of a field with untyped JSON, or of its innermost items.
    pub(crate) fn type_behind(&self, type_name: &str, field: &str) -> Option<&str> {
        let mut schema = self.field(type_name, field)?;
        while let Some(inner) = schema.get("items").or_else(|| schema.get("additionalProperties")) {
            schema = inner;
        }
        schema.get("$ref")?.as_str()?.rsplit('/').next()
    }

    fn field(&self, type_name: &str, field: &str) -> Option<&Value> {
        self.schemas.get(type_name)?.get("properties")?.get(field)
    }
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

fn text(schema: Option<&Value>) -> &str {
    schema.and_then(|schema| schema.get("description")?.as_str()).unwrap_or_default()
}

fn add_all(generator: &mut SchemaGenerator) {
    add! { generator:
        api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
        }
        api::admissionregistration::v1alpha1 { MutatingAdmissionPolicy MutatingAdmissionPolicyBinding }
        api::admissionregistration::v1beta1 { MutatingAdmissionPolicy MutatingAdmissionPolicyBinding }
        api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
        }
        api::autoscaling::v1 { HorizontalPodAutoscaler Scale }
        api::autoscaling::v2 { HorizontalPodAutoscaler }
        api::batch::v1 { CronJob Job }
        api::certificates::v1 { CertificateSigningRequest }
        api::coordination::v1 { Lease }
        api::coordination::v1alpha2 { LeaseCandidate }
        api::coordination::v1beta1 { LeaseCandidate }
        api::core::v1 {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        api::networking::v1beta1 { IPAddress ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::policy::v1 { Eviction PodDisruptionBudget }
        api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        api::resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::resource::v1alpha3 { DeviceTaintRule }
        api::resource::v1beta1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::resource::v1beta2 { DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::scheduling::v1 { PriorityClass }
        api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
        }
        api::storage::v1beta1 { VolumeAttributesClass }
        apiextensions::v1 { CustomResourceDefinition }
        apiregistration::v1 { APIService }
        meta::v1 {
            APIGroup APIGroupList APIResourceList APIVersions DeleteOptions ListMeta MicroTime Patch Status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_documented() {
        let documentation = Documentation::new();
        assert!(documentation.of_type("io.k8s.api.core.v1.Pod").contains("containers"));
        assert!(documentation.of_field("io.k8s.api.core.v1.PodSpec", "nodeName").contains("node"));
        assert_eq!(documentation.of_field("io.k8s.api.core.v1.PodSpec", "noSuchField"), "");
        assert_eq!(
            documentation.type_behind("io.k8s.api.apps.v1.ControllerRevision", "data"),
            Some("io.k8s.apimachinery.pkg.runtime.RawExtension")
        );
    }
}
