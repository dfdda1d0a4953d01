//! `apiextensions.k8s.io`: the definitions of custom resources.

mod approval;
mod beta;
mod columns;
mod conversion;
mod definition;
mod names;
mod schema;
mod strategy;
mod versions;

pub use approval::{Approval, is_protected_group};
use strategy::DefinitionStrategy;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::table;

pub(crate) fn group() -> GroupBuilder {
    let definitions = resource("CustomResourceDefinition", "customresourcedefinitions")
        .cluster()
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .prefix("apiextensions.k8s.io/customresourcedefinitions")
        .status()
        .generation(&["spec"])
        .conditional_update()
        .own_deletion()
        .packed()
        .columns(table::name_and_creation())
        .strategy(DefinitionStrategy);
    declare(
        "apiextensions.k8s.io",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
        vec![definitions],
    )
}
