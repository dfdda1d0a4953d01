//! Warns if pods do not trust this server, because another server of the cluster publishes another CA.
//!
//! Each server creates its own CA by default. Over one etcd, the server that runs the controllers publishes its CA in the
//! config map `kube-root-ca.crt` of each namespace, so pods trust only servers with that CA. A server with the serving
//! certificate of its flags is not checked: its CA is unknown.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;

/// Checks the published CA until one is published.
pub(super) async fn check(client: kube::Client, own: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    for _ in 0..ATTEMPTS {
        // Errors pass. The check is only for a warning.
        if let Ok(Some(map)) = maps.get_opt("kube-root-ca.crt").await {
            let published = map.data.unwrap_or_default().remove("ca.crt").unwrap_or_default();
            if !includes(&published, own) {
                tracing::warn!(
                    "pods do not trust this server: the config maps kube-root-ca.crt have the CA certificate of \
                     another server; give all servers of the cluster the same CA (copy pki/ca.crt and pki/ca.key of \
                     the first server's --data-dir before the others start)"
                );
            }
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Returns whether a bundle of PEM certificates has all those of another one.
fn includes(bundle: &str, certificates: &str) -> bool {
    let bundle: Vec<String> = certificates_of(bundle).collect();
    certificates_of(certificates).all(|certificate| bundle.contains(&certificate))
}

/// Returns the certificates of a bundle without white space.
fn certificates_of(bundle: &str) -> impl Iterator<Item = String> {
    let ends = bundle.split_inclusive("-----END CERTIFICATE-----");
    ends.filter_map(|text| Some(text.split_once("-----BEGIN CERTIFICATE-----")?.1))
        .map(|text| text.split_whitespace().collect())
}

const ATTEMPTS: u32 = 30;
const INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_certificates() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let (one, two) = (pem("MIIB\nAAAA"), pem("MIIB\nBBBB"));
        assert!(includes(&one, &one) && includes(&one.replace('\n', "\r\n"), &one));
        assert!(includes(&format!("# CA\n{two}{one}"), &one));
        assert!(!includes(&two, &one) && !includes("", &one) && !includes(&one, &format!("{one}{two}")));
    }
}
