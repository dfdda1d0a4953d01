//! Which labels of its own node a kubelet may set (upstream: `kubelet/pkg/apis`, `IsKubeletLabel`).
//!
//! Labels steer workloads. Those under `node-restriction.kubernetes.io/` are kept from kubelets so that nodes can be
//! set apart by them; of the other labels of Kubernetes itself a kubelet may set those that it is known to.

use std::collections::BTreeSet;

use nave_machinery::{Value, meta};

const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Labels of Kubernetes that kubelets set.
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

/// Prefixes, and what ends in them after a dot, under which kubelets may set labels.
const KUBELETS_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The labels that differ between two states and that a kubelet may not touch.
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

/// Whether a prefix is this domain or one below it.
fn is_under(prefix: &str, domain: &str) -> bool {
    prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_kubernetes_are_kept_from_kubelets_but_for_their_own() {
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
