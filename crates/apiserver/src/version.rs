//! The version of Kubernetes that the server implements.

/// Major, minor and patch of the Kubernetes version served.
pub const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "36", "2");
