//! Maps kinds to built-in types.

use nave_machinery::GroupVersionKind;
use nave_schema::TypeId;

/// Returns the built-in type of a kind; `None` for other kinds. Kinds that belong to no group (`Status`,
/// `DeleteOptions`, …) are found in every group.
pub(crate) fn type_of(gvk: &GroupVersionKind) -> Option<TypeId> {
    let GroupVersionKind { group, version, kind } = gvk;
    // Older clients send evictions in this version, which has the form of v1. The group does not serve it.
    let is_old_eviction =
        (group.as_str(), version.as_str(), kind.as_str()) == ("policy", "v1beta1", "Eviction");
    let version = if is_old_eviction { "v1" } else { version };
    let package = match group.as_str() {
        "" => "api.core",
        "apiextensions.k8s.io" => "apiextensions-apiserver.pkg.apis.apiextensions",
        "apiregistration.k8s.io" => "kube-aggregator.pkg.apis.apiregistration",
        "meta.k8s.io" => "apimachinery.pkg.apis.meta",
        other => &format!("api.{}", other.split('.').next().unwrap_or_default()),
    };
    let set = nave_schema::builtin();
    set.find(&format!("io.k8s.{package}.{version}.{kind}"))
        .or_else(|| set.find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_its_package() {
        let found = [
            ("", "v1", "Pod"),
            ("apps", "v1", "Deployment"),
            ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
            ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "v1", "APIService"),
            ("policy", "v1beta1", "Eviction"),
            ("", "v1", "Status"),
            ("apps", "v1", "DeleteOptions"),
        ];
        for (group, version, kind) in found {
            assert!(type_of(&GroupVersionKind::new(group, version, kind)).is_some(), "{kind}");
        }
        assert_eq!(type_of(&GroupVersionKind::new("policy", "v1beta1", "PodDisruptionBudget")), None);
        assert_eq!(type_of(&GroupVersionKind::new("example.com", "v1", "Widget")), None);
    }
}
