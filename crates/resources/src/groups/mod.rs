//! The built-in API groups, one module each: resources, columns and strategies.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

pub use self::apiextensions::{Approval, is_protected_group};
pub(crate) use self::core::pod_spec::pod_level::resources as pod_level_resources;
pub use self::core::validate_service_cluster_ips;
use nave_schema::SchemaSet;

use crate::registry::Group;

/// Returns the built-in groups in discovery order, with their types looked up in `schemas`.
pub(crate) fn builtin(schemas: &SchemaSet) -> Vec<Group> {
    let declared = [
        core::group(),
        apiregistration::group(),
        apps::group(),
        events::group(),
        authentication::group(),
        authorization::group(),
        autoscaling::group(),
        batch::group(),
        certificates::group(),
        networking::group(),
        policy::group(),
        rbac::group(),
        storage::group(),
        admissionregistration::group(),
        apiextensions::group(),
        scheduling::group(),
        coordination::group(),
        node::group(),
        discovery::group(),
        resource::group(),
        flowcontrol::group(),
    ];
    declared.into_iter().map(|group| group.build(schemas)).collect()
}
