//! `node.k8s.io`: ways to run containers.

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::table::{age, field, name};

pub(crate) fn group() -> GroupBuilder {
    let classes =
        resource("RuntimeClass", "runtimeclasses").cluster().create_on_update().conditional_update().columns(
            vec![name(), field("Handler", "handler", "").of("node.v1.RuntimeClass", "handler"), age()],
        );
    declare("node.k8s.io", "io.k8s.api.node", vec![classes])
}
