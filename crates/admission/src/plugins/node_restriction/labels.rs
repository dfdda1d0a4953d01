//! The labels that a kubelet may set on its node (upstream: `kubelet/pkg/apis`, `IsKubeletLabel`).
//!
//! Node labels control scheduling. Kubelets may not set labels with the prefix `node-restriction.kubernetes.io/`, so
//! that administrators can use them to isolate nodes. Of the other labels of Kubernetes, kubelets may only set known
//! ones.

use std::collections::BTreeSet;

use nave_machinery::{Value, meta};

const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// The labels of Kubernetes that kubelets may set.
const KUBELETS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The prefixes of labels that kubelets may set, including their subdomains.
const KUBELETS_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Returns the labels that differ between two states and that a kubelet may not set.
pub(super) fn forbidden<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let value = |object: &'a Value, key: &str| meta::labels(object).and_then(|labels| labels.get(key));
    let keys = [new, old].into_iter().filter_map(meta::labels).flat_map(|labels| labels.keys());
    let changed = keys.map(String::as_str).filter(|key| value(new, key) != value(old, key));
    changed.filter(|key| is_forbidden(key)).collect()
}

fn is_forbidden(label: &str) -> bool {
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    if is_under(prefix, RESTRICTED) {
        return true;
    }
    let of_kubernetes = is_under(prefix, "kubernetes.io") || is_under(prefix, "k8s.io");
    let of_kubelets =
        KUBELETS.contains(&label) || KUBELETS_PREFIXES.iter().any(|allowed| is_under(prefix, allowed));
    of_kubernetes && !of_kubelets
}

/// Returns whether a prefix is this domain or one of its subdomains.
fn is_under(prefix: &str, domain: &str) -> bool {
    prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_may_only_set_known_kubernetes_labels() {
        for (label, kept) in [
            ("node-restriction.kubernetes.io/pci", true),
            ("x.node-restriction.kubernetes.io/pci", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("kubernetes.io/role", true),
            ("x.k8s.io/y", true),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("x.kubelet.kubernetes.io/anything", false),
            ("topology.kubernetes.io/zone", false),
            ("example.com/zone", false),
            ("notkubernetes.io/x", false),
            ("zone", false),
        ] {
            assert_eq!(is_forbidden(label), kept, "{label}");
        }
    }
}
