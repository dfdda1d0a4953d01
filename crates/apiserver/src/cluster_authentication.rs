//! Publishes the authentication settings of this server for extension API servers, in the config map
//! `kube-system/extension-apiserver-authentication` (upstream: `controller/clusterauthenticationtrust`).
//!
//! Servers that share a store write the same config map, so each server preserves the entries of the others: lists are
//! merged, and certificates are kept until they expire.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nave_authn::certificates_to_pem;
use nave_cacher::{CachedObject, Delivery};
use nave_machinery::backoff::Backoff;
use nave_machinery::options::UpdateOptions;
use nave_machinery::{GroupVersionResource, Object, Status, Value, time};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::sync::{Notify, watch};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::catalog::Catalog;
use crate::endpoints::view::View;
use crate::endpoints::{Endpoint, Resources};
use crate::internal::InternalWriter;
use crate::storage::{Follower, Following};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// How long a certificate is kept after its expiry, in seconds, to allow for clock skew.
const EXPIRY_SLACK: i64 = 300;
/// Pauses between retries.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_mins(1));

/// The settings for client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterAuthentication {
    /// The client CA certificates.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// The settings for authenticating proxies.
    pub request_header: RequestHeader,
}

/// The authenticating proxies, and the headers in which they send the user. Without proxies, `ca` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RequestHeader {
    pub ca: Vec<CertificateDer<'static>>,
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

type Data = BTreeMap<String, String>;

/// Updates the config map if it differs from `required`.
///
/// # Errors
/// The config map cannot be written.
pub(crate) async fn publish(resources: &Resources, required: &ClusterAuthentication) -> Result<(), Status> {
    let catalog = resources.catalog();
    let Some(endpoint) = config_maps(&catalog) else { return Ok(()) };
    let storage = endpoint.storage()?;
    let found = storage.find(NAMESPACE, NAME);
    let found = found.map(|cached| storage.codec().parse_cached(&cached)).transpose()?;
    let existing = found.as_ref().map(data_of).unwrap_or_default();
    let now = time::now().unix_seconds();
    let wanted = required.combined_with(&existing, now);
    if found.is_some() && wanted == existing {
        return Ok(());
    }
    tracing::info!(config_map = NAME, namespace = NAMESPACE, "config map for extension servers updated");
    let writer = InternalWriter::new(endpoint, resources.admission());
    if found.is_none() {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": wanted});
        return writer.create(NAMESPACE, object).await.map(drop);
    }
    match write(&writer, |stored| required.combined_with(&data_of(stored.as_value()), now)).await {
        // The entries of other servers have become too large, so start again without them.
        Err(status) if matches!(status.code, 413 | 422) && !existing.is_empty() => {
            write(&writer, |_| required.combined_with(&Data::new(), now)).await
        }
        outcome => outcome,
    }
}

/// Replaces the data of the config map.
async fn write(writer: &InternalWriter<'_>, data: impl Fn(&Object) -> Data + Sync) -> Result<(), Status> {
    let change = |stored: &Object| {
        let mut object = stored.clone();
        object.insert("data", json!(data(stored)));
        Ok(object.into_value())
    };
    let written = writer.update(View::Object, (NAMESPACE, NAME), &UpdateOptions::default(), &change).await;
    written.map(drop)
}

/// Updates the config map whenever it or `required` changes. Never returns.
pub(crate) async fn publish_changes(
    resources: &Resources,
    mut required: watch::Receiver<ClusterAuthentication>,
) -> Infallible {
    let changed = Arc::new(Notify::new());
    let catalog = resources.catalog();
    let storage = config_maps(&catalog).and_then(|endpoint| endpoint.storage.as_ref());
    let _following = storage.map(|storage| {
        Following::start(Arc::clone(storage.cacher()), Arc::new(Changes(Arc::clone(&changed))))
    });
    let mut pauses = RETRY.pauses();
    loop {
        let present = required.borrow_and_update().clone();
        match publish(resources, &present).await {
            Ok(()) => {
                pauses.reset();
                tokio::select! {
                    () = changed.notified() => {}
                    Ok(()) = required.changed() => {}
                }
            }
            // Another server was faster; the watch cache will deliver its change.
            Err(status) if status.code == 409 => tokio::time::sleep(RETRY.initial).await,
            Err(status) => {
                tracing::error!(error = status.message, config_map = NAME, "config map cannot be written");
                tokio::time::sleep(pauses.next_pause()).await;
            }
        }
    }
}

impl ClusterAuthentication {
    /// Reads the data of a config map. Without valid settings for proxies, there are no proxies.
    pub fn from_data(data: &BTreeMap<String, String>) -> Self {
        let certificates = |key: &str| certificates_in(data.get(key).map_or("", String::as_str));
        Self {
            client_ca: certificates("client-ca-file"),
            request_header: RequestHeader::from_data(data, certificates("requestheader-client-ca-file"))
                .unwrap_or_default(),
        }
    }

    /// Returns the data of the config map: the required entries, and the existing ones that are still valid. Invalid
    /// entries are dropped.
    fn combined_with(&self, existing: &Data, now: i64) -> Data {
        let known = |key: &str| existing.get(key).map_or("", String::as_str);
        let authorities =
            |key, required: &[CertificateDer<'static>]| bundle(certificates_in(known(key)), required, now);
        let mut data = Data::new();
        let client_ca = authorities("client-ca-file", &self.client_ca);
        if !client_ca.is_empty() {
            data.insert("client-ca-file".to_owned(), client_ca);
        }
        let proxy = &self.request_header;
        let proxy_ca = authorities("requestheader-client-ca-file", &proxy.ca);
        if proxy_ca.is_empty() {
            return data;
        }
        data.insert("requestheader-client-ca-file".to_owned(), proxy_ca);
        for (key, required) in [
            ("requestheader-allowed-names", &proxy.allowed_names),
            ("requestheader-username-headers", &proxy.username_headers),
            ("requestheader-uid-headers", &proxy.uid_headers),
            ("requestheader-group-headers", &proxy.group_headers),
            ("requestheader-extra-headers-prefix", &proxy.extra_headers_prefix),
        ] {
            let there: Vec<String> = serde_json::from_str(known(key)).unwrap_or_default();
            let all = union(there, required);
            // kube-apiserver removes an empty entry of this key only, and two servers must not undo each other's writes.
            if all.is_empty() && key == "requestheader-uid-headers" {
                continue;
            }
            data.insert(key.to_owned(), json!(all).to_string());
        }
        data
    }
}

impl RequestHeader {
    /// Reads the lists. Returns `None` if one is malformed: an empty list of names would allow all of them.
    fn from_data(data: &Data, ca: Vec<CertificateDer<'static>>) -> Option<Self> {
        let list = |key: &str| data.get(key).map_or(Some(Vec::new()), |text| serde_json::from_str(text).ok());
        Some(Self {
            ca,
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: list("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_headers_prefix: list("requestheader-extra-headers-prefix")?,
        })
    }
}

/// Notifies on each change of the config map.
struct Changes(Arc<Notify>);

impl Follower for Changes {
    fn replace(&self, _: &[Arc<CachedObject>]) {
        self.0.notify_one();
    }

    fn apply(&self, changes: &[Delivery]) {
        let is_ours = |object: &CachedObject| object.namespace() == NAMESPACE && object.name() == NAME;
        if changes.iter().any(|change| is_ours(&change.object())) {
            self.0.notify_one();
        }
    }
}

fn config_maps(catalog: &Catalog) -> Option<&Endpoint> {
    catalog.endpoint(&GroupVersionResource::new("", "v1", "configmaps"))
}

fn data_of(config_map: &Value) -> Data {
    let data = config_map.get("data").and_then(Value::as_object).into_iter().flatten();
    data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn certificates_in(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// Returns the unexpired certificates of both lists in PEM, without duplicates.
fn bundle(there: Vec<CertificateDer<'static>>, required: &[CertificateDer<'static>], now: i64) -> String {
    let all = union(there, required);
    certificates_to_pem(all.iter().filter(|certificate| expires(certificate) > now - EXPIRY_SLACK))
}

/// Returns the expiry of a certificate in seconds since 1970. Invalid certificates count as expired.
fn expires(certificate: &CertificateDer<'_>) -> i64 {
    X509Certificate::from_der(certificate).map_or(i64::MIN, |(_, read)| read.validity().not_after.timestamp())
}

/// Returns the entries of both lists in order, without duplicates.
fn union<T: Clone + PartialEq>(there: Vec<T>, required: &[T]) -> Vec<T> {
    let mut all = Vec::with_capacity(there.len() + required.len());
    for one in there.into_iter().chain(required.iter().cloned()) {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const NOW: i64 = 1_750_000_000;

    /// Returns a certificate that expires at the end of a year.
    fn certificate(year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 12, 31);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn publishes_only_the_client_ca_without_proxies() {
        let ca = certificate(2090);
        let required = ClusterAuthentication { client_ca: vec![ca.clone()], ..Default::default() };
        let data = required.combined_with(&Data::new(), NOW);
        assert_eq!(data, Data::from([("client-ca-file".to_owned(), certificates_to_pem([&ca]))]));
        assert_eq!(required.combined_with(&data, NOW), data);
        assert_eq!(ClusterAuthentication::default().combined_with(&Data::new(), NOW), Data::new());
    }

    #[test]
    fn entries_of_other_servers_stay_until_they_expire() {
        let (old, expired, new) = (certificate(2090), certificate(2001), certificate(2091));
        let existing = Data::from([
            ("client-ca-file".to_owned(), certificates_to_pem([&old, &expired, &old])),
            ("requestheader-client-ca-file".to_owned(), "damaged".to_owned()),
            ("requestheader-allowed-names".to_owned(), r#"["b","a","b"]"#.to_owned()),
            ("requestheader-group-headers".to_owned(), "damaged".to_owned()),
            ("more".to_owned(), "not ours".to_owned()),
        ]);
        let required = ClusterAuthentication {
            client_ca: vec![new.clone(), old.clone()],
            request_header: RequestHeader {
                ca: vec![new.clone()],
                allowed_names: texts(&["a", "c"]),
                group_headers: texts(&["x-remote-group"]),
                ..RequestHeader::default()
            },
        };
        let mut pairs = vec![
            ("client-ca-file", certificates_to_pem([&old, &new])),
            ("requestheader-client-ca-file", certificates_to_pem([&new])),
        ];
        for (key, value) in [
            ("requestheader-allowed-names", r#"["b","a","c"]"#),
            ("requestheader-username-headers", "[]"),
            ("requestheader-group-headers", r#"["x-remote-group"]"#),
            ("requestheader-extra-headers-prefix", "[]"),
        ] {
            pairs.push((key, value.to_owned()));
        }
        let wanted: Data = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(required.combined_with(&existing, NOW), wanted);
    }

    #[test]
    fn reads_what_it_publishes() {
        let published = ClusterAuthentication {
            client_ca: vec![certificate(2090), certificate(2091)],
            request_header: RequestHeader {
                ca: vec![certificate(2092)],
                allowed_names: texts(&["a"]),
                username_headers: texts(&["X-Remote-User"]),
                uid_headers: texts(&["X-Remote-Uid"]),
                group_headers: texts(&["X-Remote-Group", "X-Group"]),
                extra_headers_prefix: texts(&["X-Remote-Extra-"]),
            },
        };
        assert_eq!(ClusterAuthentication::from_data(&published.combined_with(&Data::new(), NOW)), published);
        let mut damaged = published.combined_with(&Data::new(), NOW);
        damaged.insert("requestheader-allowed-names".to_owned(), "a".to_owned());
        let read = ClusterAuthentication::from_data(&damaged);
        assert_eq!(read.request_header, RequestHeader::default(), "not all names are allowed");
        assert_eq!(read.client_ca, published.client_ca);
    }

    #[test]
    fn proxy_settings_are_omitted_without_a_proxy_certificate() {
        let request_header = RequestHeader {
            allowed_names: texts(&["a"]),
            ca: vec![certificate(2001)],
            ..RequestHeader::default()
        };
        let required = ClusterAuthentication { request_header, ..ClusterAuthentication::default() };
        assert_eq!(required.combined_with(&Data::new(), NOW), Data::new());
    }
}
