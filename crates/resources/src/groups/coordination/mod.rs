//! `coordination.k8s.io`: leases.

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::table::{age, field, name};

pub(crate) fn group() -> GroupBuilder {
    let leases = resource("Lease", "leases").create_on_update().conditional_update().columns(vec![
        name(),
        field("Holder", "spec.holderIdentity", "").of("coordination.v1.LeaseSpec", "holderIdentity"),
        age(),
    ]);
    declare("coordination.k8s.io", "io.k8s.api.coordination", vec![leases])
}
