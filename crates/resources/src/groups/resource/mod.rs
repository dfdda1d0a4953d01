//! `resource.k8s.io`: devices and device claims (dynamic resource allocation).

mod capacity;
mod parts;
mod slices;
mod status;
mod strategies;
mod validation;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::KeptMetadata;
use crate::read;
use crate::table::{Column, age, field, name, text};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("DeviceClass", "deviceclasses")
            .cluster()
            .generation(&["spec"])
            .returns_deleted()
            .strategy(strategies::DeviceClassStrategy),
        resource("ResourceClaim", "resourceclaims")
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .returns_deleted()
            .columns(claim_columns())
            .strategy(strategies::ResourceClaimStrategy),
        resource("ResourceClaimTemplate", "resourceclaimtemplates")
            .returns_deleted()
            .strategy(strategies::ResourceClaimTemplateStrategy),
        resource("ResourceSlice", "resourceslices")
            .cluster()
            .generation(&["spec"])
            .returns_deleted()
            .field("spec.nodeName")
            .indexed()
            .field("spec.driver")
            .columns(slice_columns())
            .strategy(slices::ResourceSliceStrategy),
    ];
    declare("resource.k8s.io", "io.k8s.api.resource", resources)
}

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
