//! The version of Kubernetes that the server implements.

/// The Kubernetes version served: major, minor and patch.
pub const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "36", "2");
