//! `apiextensions.k8s.io`: the definitions of custom resources.

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
        .columns(table::name_and_creation());
    declare(
        "apiextensions.k8s.io",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
        vec![definitions],
    )
}
