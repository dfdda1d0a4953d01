//! Restricts the certificates that a kubelet requests to its own identity.

use nave_machinery::{Status, meta};
use x509_parser::oid_registry::OID_X509_COMMON_NAME;

use super::Write;
use crate::plugins::certificates::subject::subject_values;

/// The signers of kubelets' serving and client certificates.
const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub(super) fn admit(write: &Write<'_>) -> Result<(), Status> {
    let spec = |field: &str| meta::str_at(write.object, &["spec", field]).unwrap_or_default();
    if !write.attributes.is_create() || !KUBELET_SIGNERS.contains(&spec("signerName")) {
        return Ok(());
    }
    let name = common_name(spec("request"))
        .map_err(|why| write.forbidden(&format!("unable to parse csr: {why}")))?;
    let own = format!("system:node:{}", write.node);
    if name == own {
        return Ok(());
    }
    Err(write.forbidden(&format!("can only create a node CSR with CN={own}")))
}

/// The common name of a base64-encoded PEM request.
fn common_name(request: &str) -> Result<String, String> {
    let mut names = subject_values(request, &OID_X509_COMMON_NAME)?;
    // Signers could use different names.
    if names.len() > 1 {
        return Err("more than one common name".to_owned());
    }
    Ok(names.pop().unwrap_or_default())
}
