//! `resource.k8s.io`: devices and device claims (dynamic resource allocation).

mod beta;
mod capacity;
mod parts;
mod slices;
mod status;
mod strategies;
mod taint_rules;
mod validation;

pub(super) use slices::is_semantic_version;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::KeptMetadata;
use crate::read;
use crate::table::{Column, age, field, name, text};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("DeviceClass", "deviceclasses")
            .optional(BETA)
            .cluster()
            .generation(&["spec"])
            .returns_deleted()
            .strategy(strategies::DeviceClassStrategy),
        // Stored in the oldest version, which 1.35 can read.
        resource("DeviceTaintRule", "devicetaintrules")
            .only(&["v1beta2", "v1alpha3"])
            .stored_as("resource.k8s.io", "v1alpha3", PACKAGE)
            .cluster()
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .generation(&["spec"])
            .returns_deleted()
            .columns(taint_rules::columns())
            .strategy(taint_rules::DeviceTaintRuleStrategy),
        resource("ResourceClaim", "resourceclaims")
            .optional(BETA)
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .returns_deleted()
            .columns(claim_columns())
            .strategy(strategies::ResourceClaimStrategy),
        resource("ResourceClaimTemplate", "resourceclaimtemplates")
            .optional(BETA)
            .returns_deleted()
            .strategy(strategies::ResourceClaimTemplateStrategy),
        resource("ResourceSlice", "resourceslices")
            .optional(BETA)
            .cluster()
            .generation(&["spec"])
            .returns_deleted()
            .field("spec.nodeName")
            .indexed()
            .field("spec.driver")
            .columns(slice_columns())
            .strategy(slices::ResourceSliceStrategy),
    ];
    declare("resource.k8s.io", PACKAGE, resources)
}

const PACKAGE: &str = "io.k8s.api.resource";
/// The versions before v1. `v1beta2` differs only in name.
const BETA: &[&str] = &["v1beta2", "v1beta1"];

fn claim_columns() -> Vec<Column> {
    vec![name(), text("State", state).about("The allocation state of the claim"), age()]
}

fn state(claim: &Value) -> String {
    let deleted = read::is_being_deleted(claim);
    let allocated = read::map(claim, "status.allocation").is_some();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if allocated {
        states.push("allocated");
        if !read::list(claim, "status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

fn slice_columns() -> Vec<Column> {
    let spec = "resource.v1.ResourceSliceSpec";
    vec![
        name(),
        field("Node", "spec.nodeName", "").described_by(spec, "nodeName"),
        field("Driver", "spec.driver", "").described_by(spec, "driver"),
        field("Pool", "spec.pool.name", "").described_by(spec, "pool"),
        age(),
    ]
}
