//! Names of certificate signers and of their trust bundles (upstream: `pkg/apis/core/validation/names.go`).

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors};

/// The maximum length of a signer's domain.
const DOMAIN_MAX: usize = 253;
/// The maximum length of a signer's path: a namespace, a dot and a name.
const PATH_MAX: usize = 253 + 63 + 1;

/// Checks the name of a signer, which has the form `example.com/signer-name`.
pub(crate) fn signer_name(at: At, errors: &mut Errors) {
    let name = at.text();
    if name.is_empty() {
        errors.push(at.required(""));
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(at.invalid(why));
        return;
    };
    if domain.len() > DOMAIN_MAX {
        errors.push(FieldError::too_long(&at.path(), DOMAIN_MAX));
    }
    labels(domain, names::is_dns1123_label, at, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(&at.path(), domain, why));
    }
    labels(path, names::is_dns1123_subdomain, at, errors);
    if path.len() > PATH_MAX {
        errors.push(FieldError::too_long(&at.path(), PATH_MAX));
    }
}

/// Reports the first invalid label in a part of the name.
fn labels(part: &str, check: fn(&str) -> Vec<String>, at: At, errors: &mut Errors) {
    let found = part.split('.').map(|label| (label, check(label))).find(|(_, found)| !found.is_empty());
    let (label, found) = found.unwrap_or_default();
    errors.extend(
        found
            .into_iter()
            .map(|why| FieldError::invalid(&at.path(), part, format!("validating label {label:?}: {why}"))),
    );
}

/// Returns whether a signer belongs to Kubernetes.
pub(crate) fn is_kubernetes_signer(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// Checks the name of a trust bundle. The name of a signer's bundle starts with the signer's name.
pub(crate) fn trust_bundle_name(name: &str) -> Vec<String> {
    names::is_dns1123_subdomain(name.rsplit(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn signer_name_has_domain_and_path() {
        for (name, errors) in [
            ("example.com/own", 0),
            ("example.com/a.b", 0),
            ("", 1),
            ("plain", 1),
            ("example.com/a/b", 1),
            ("local/x", 1),
            ("Example.com/x", 1),
            ("example.com/", 1),
            ("a_b.c_d/X_Y", 2),
        ] {
            let mut found = Errors::new();
            let value = json!(name);
            signer_name(At::named("signerName", Some(&value)), &mut found);
            assert_eq!(found.len(), errors, "{name}: {found:?}");
        }
    }

    #[test]
    fn trust_bundle_has_prefix_of_its_signer() {
        assert!(trust_bundle_name("a.b").is_empty());
        assert!(trust_bundle_name("example.com:own:b").is_empty());
        assert_eq!(trust_bundle_name("example.com:own:").len(), 1);
        assert!(is_kubernetes_signer("kubernetes.io/kubelet-serving"));
        assert!(!is_kubernetes_signer("notkubernetes.io/x"));
    }
}
