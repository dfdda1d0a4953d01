//! The lease that announces a running server (upstream: `start-kube-apiserver-identity-lease-controller`, on by
//! default; KEP-1965).

use std::net::SocketAddr;

use aws_lc_rs::digest;
use futures_util::future::try_join_all;
use nave_machinery::options::{DeleteOptions, Preconditions};
use nave_machinery::{GroupVersionResource, Status, Value, meta, time};
use serde_json::json;

use super::ensure::{ensure, with_field};
use crate::endpoints::Resources;
use crate::internal::InternalWriter;

pub(crate) const NAMESPACE: &str = "kube-system";
/// Label of identity leases, with the value for kube-apiserver.
pub(crate) const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// Duration of a lease, in seconds.
const DURATION: i64 = 3600;

/// The identity of one server.
pub(super) struct Identity {
    pub(super) name: String,
    hostname: String,
    /// The lease holder: this process.
    holder: String,
    /// The address for peers.
    pub(super) advertise: SocketAddr,
}

/// Returns the identity of a server on a host: the name of its lease, derived from the host name and the kind of server.
pub fn server_identity(hostname: &str) -> String {
    let mut hashed = Vec::new();
    for part in [hostname, LABEL.1] {
        hashed.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hashed.extend_from_slice(part.as_bytes());
    }
    let hash = digest::digest(&digest::SHA256, &hashed);
    format!("apiserver-{}", base32(&hash.as_ref()[..HASH_BYTES]))
}

impl Identity {
    /// Creates the identity of a server on this host.
    pub(super) fn new(hostname: &str, advertise: SocketAddr) -> Self {
        let name = server_identity(hostname);
        let holder = format!("{name}_{}", uuid::Uuid::new_v4());
        Self { name, hostname: hostname.to_owned(), holder, advertise }
    }

    /// Creates or renews the lease.
    pub(super) async fn renew(&self, resources: &Resources) -> Result<(), Status> {
        let spec = json!({
            "holderIdentity": self.holder,
            "leaseDurationSeconds": DURATION,
            "renewTime": time::now().rfc3339_micro(),
        });
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "labels": {LABEL.0: LABEL.1, "kubernetes.io/hostname": self.hostname},
                "annotations": {"kubernetes.io/peer-advertise-address": self.advertise.to_string()},
            },
            "spec": spec,
        });
        let metadata = lease["metadata"].clone();
        ensure(resources, leases(), NAMESPACE, lease, &|stored| {
            let mut renewed = with_field(stored, "spec", spec.clone());
            for field in ["labels", "annotations"] {
                meta::set(&mut renewed, field, metadata[field].clone());
            }
            Some(renewed)
        })
        .await
    }

    /// Deletes the lease of a server that stops, unless another process holds it.
    pub(super) async fn release(&self, resources: &Resources) -> Result<(), Status> {
        let catalog = resources.catalog();
        let Some(endpoint) = catalog.endpoint(&leases()) else { return Ok(()) };
        let storage = endpoint.storage()?;
        let Some(object) = storage.find(NAMESPACE, &self.name) else { return Ok(()) };
        let lease = storage.codec().parse_cached(&object)?;
        if meta::str_at(&lease, &["spec", "holderIdentity"]) != Some(&*self.holder) {
            return Ok(());
        }
        delete(&InternalWriter::new(endpoint, resources.admission()), &lease).await
    }

    /// Deletes the expired identity leases of all servers.
    pub(super) async fn remove_expired(&self, resources: &Resources) -> Result<(), Status> {
        let catalog = resources.catalog();
        let Some(endpoint) = catalog.endpoint(&leases()) else { return Ok(()) };
        let storage = endpoint.storage()?;
        let now = time::now();
        let mut expired = Vec::new();
        for object in storage.cacher().snapshot().range(&prefix(endpoint)?, None) {
            if object.name().starts_with("apiserver-") && object.name() != self.name {
                let lease = storage.codec().parse_cached(object)?;
                if is_expired(&lease, now) {
                    expired.push(lease);
                }
            }
        }
        let writer = &InternalWriter::new(endpoint, resources.admission());
        try_join_all(expired.iter().map(|lease| delete(writer, lease))).await.map(drop)
    }
}

/// Deletes a lease that has not changed.
async fn delete(writer: &InternalWriter<'_>, lease: &Value) -> Result<(), Status> {
    let version = Some(meta::resource_version(lease).to_owned());
    let preconditions = Preconditions { uid: None, resource_version: version };
    let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
    match writer.delete((NAMESPACE, meta::name(lease)), &options).await {
        // The lease was renewed or deleted in the meantime.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        outcome => outcome,
    }
}

/// Number of bytes of the hash in the lease name.
const HASH_BYTES: usize = 16;

fn leases() -> GroupVersionResource {
    GroupVersionResource::new("coordination.k8s.io", "v1", "leases")
}

fn prefix(endpoint: &crate::endpoints::Endpoint) -> Result<String, Status> {
    nave_resources::list_prefix(&endpoint.def, Some(NAMESPACE)).map_err(Status::internal)
}

/// Returns whether a lease is an expired identity lease.
fn is_expired(lease: &Value, now: time::Timestamp) -> bool {
    let renewed = meta::str_at(lease, &["spec", "renewTime"]).and_then(time::Timestamp::parse);
    let holds =
        meta::value_at(lease, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64).unwrap_or(DURATION);
    meta::label(lease, LABEL.0) == Some(LABEL.1)
        && renewed.is_none_or(|renewed| now.seconds_since(renewed) > holds)
}

/// Encodes in RFC 4648 base32, in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = bytes.len() * 8;
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit = |start: usize| (start..start + 5).fold(0, |digit, at| digit << 1 | bit(at));
    (0..bits).step_by(5).map(|start| char::from(ALPHABET[usize::from(digit(start))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_base32_as_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn names_are_derived_from_the_host() {
        let address = "192.0.2.2:6443".parse().unwrap();
        let identity = Identity::new("vm", address);
        assert_eq!(identity.name, "apiserver-wlv32tlttr4jl3gtroqexyxapa");
        assert_ne!(identity.holder, Identity::new("vm", address).holder);
    }

    #[test]
    fn only_leases_of_servers_expire() {
        let now = time::Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
        let lease = |label: &str, renewed: &str| {
            json!({"metadata": {"labels": {LABEL.0: label}},
                "spec": {"leaseDurationSeconds": 3600, "renewTime": renewed}})
        };
        for (lease, expired) in [
            (lease("kube-apiserver", "2026-01-01T10:00:00.000000Z"), true),
            (lease("kube-apiserver", "2026-01-01T11:30:00.000000Z"), false),
            (lease("kube-apiserver", ""), true),
            (lease("other", "2026-01-01T10:00:00.000000Z"), false),
        ] {
            assert_eq!(is_expired(&lease, now), expired, "{lease}");
        }
    }
}
