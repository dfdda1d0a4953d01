//! The versions that are served only if they are enabled: those before the stable version of a kind.

use crate::custom::versions;

/// The minor version of Kubernetes 1 that the server has.
const CURRENT: u8 = 36;

/// The lifecycle of optional versions: group, version, kind (empty for the others of the version), the minor versions of
/// Kubernetes 1 that deprecate and remove it, and whether the warning names the stable version.
const LIFECYCLES: [(&str, &str, &str, u8, u8, bool); 9] = [
    ("admissionregistration.k8s.io", "v1alpha1", "", 35, 38, false),
    ("coordination.k8s.io", "v1alpha2", "", 35, 38, false),
    ("coordination.k8s.io", "v1beta1", "", 36, 39, false),
    ("networking.k8s.io", "v1beta1", "", 34, 37, false),
    ("resource.k8s.io", "v1alpha3", "", 36, 39, false),
    ("resource.k8s.io", "v1beta1", "", 35, 38, false),
    ("resource.k8s.io", "v1beta2", "DeviceTaintRule", 39, 42, false),
    ("resource.k8s.io", "v1beta2", "", 36, 39, false),
    ("storage.k8s.io", "v1beta1", "", 34, 37, true),
];

/// Returns whether a built-in version is served by default: stable versions are.
pub fn is_enabled_by_default(version: &str) -> bool {
    versions::is_stable(version)
}

/// Returns the warning for clients of a deprecated version.
pub(crate) fn deprecation(group: &str, version: &str, kind: &str) -> Option<String> {
    let mut lifecycles = LIFECYCLES.iter().filter(|(of, known, ..)| (*of, *known) == (group, version));
    let lifecycle = lifecycles.find(|(_, _, of, ..)| of.is_empty() || *of == kind)?;
    let (_, _, _, since, until, is_replaced) = lifecycle;
    if *since > CURRENT {
        return None;
    }
    let replacement = if *is_replaced { format!("; use {group}/v1 {kind}") } else { String::new() };
    Some(format!(
        "{group}/{version} {kind} is deprecated in v1.{since}+, unavailable in v1.{until}+{replacement}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_name_the_versions_of_kubernetes_and_the_replacement() {
        for (group, version, kind, expected) in [
            (
                "storage.k8s.io",
                "v1beta1",
                "VolumeAttributesClass",
                Some(
                    "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; \
                     use storage.k8s.io/v1 VolumeAttributesClass",
                ),
            ),
            (
                "resource.k8s.io",
                "v1beta2",
                "ResourceClaim",
                Some("resource.k8s.io/v1beta2 ResourceClaim is deprecated in v1.36+, unavailable in v1.39+"),
            ),
            ("resource.k8s.io", "v1", "ResourceClaim", None),
            ("resource.k8s.io", "v1beta2", "DeviceTaintRule", None),
            ("admissionregistration.k8s.io", "v1beta1", "MutatingAdmissionPolicy", None),
        ] {
            assert_eq!(deprecation(group, version, kind).as_deref(), expected, "{group}/{version}");
        }
    }
}
