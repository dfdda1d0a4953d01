//! The discovery documents of a peer: `/api` and `/apis` in the aggregated form, without the resources of its own peers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use nave_machinery::GroupVersionResource;
use nave_machinery::user::UserInfo;

use super::{PEER_PROXIED, Peers};
use crate::aggregator::identity;
use crate::aggregator::remote_discovery::{self, Group, MAX_DOCUMENT};
use crate::connect::exchange::{self, Link};

/// The accepted form, and the form of servers that do not merge documents.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,\
     application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Maximum time to read a document.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of resources and subresources of a peer.
const MAX_RESOURCES: usize = 16_384;

/// The resources of a peer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PeerDocuments {
    /// The groups at `/apis`.
    pub(super) groups: Vec<Group>,
    /// All resources, those of the core group too.
    pub(super) resources: HashSet<GroupVersionResource>,
}

/// The reason why the documents of a peer are unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    /// The request cannot be made.
    #[error("{0}")]
    Request(String),
    /// The peer does not answer, or its document is invalid.
    #[error("{path}: {why}")]
    Document { path: &'static str, why: String },
}

/// Reads the documents of the peer at an address.
///
/// # Errors
/// [`DocumentError`].
pub(super) async fn read(peers: &Peers, address: SocketAddr) -> Result<PeerDocuments, DocumentError> {
    let (core, named) = (groups(peers, address, "/api").await?, groups(peers, address, "/apis").await?);
    PeerDocuments::new(&core, named).map_err(|why| DocumentError::Document { path: "/apis", why })
}

async fn groups(peers: &Peers, address: SocketAddr, path: &'static str) -> Result<Vec<Group>, DocumentError> {
    let head = get(path, address).map_err(DocumentError::Request)?;
    let read = tokio::time::timeout(TIMEOUT, fetch(peers, head)).await;
    let read = read.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
    read.map_err(|why| DocumentError::Document { path, why })
}

async fn fetch(peers: &Peers, head: Request<()>) -> Result<Vec<Group>, String> {
    let transport = peers.transport();
    let no_body: Option<&mut Empty<Bytes>> = None;
    let sent = exchange::send(Link::Pooled(&transport.pool), head, no_body).await;
    let exchange = sent.map_err(|error| error.to_string())?;
    let status = exchange.response.status();
    peers.metrics.rerouted(status.as_u16(), None);
    if status != StatusCode::OK {
        return Err(format!("discovery request failed with status: {}", status.as_u16()));
    }
    if !remote_discovery::is_aggregated(exchange.response.headers()) {
        return Err("the peer has no aggregated discovery".to_owned());
    }
    let document = exchange.read_all(MAX_DOCUMENT).await?;
    remote_discovery::groups(&document)
}

/// Returns a request of this server as the user `system:apiserver`.
fn get(path: &'static str, address: SocketAddr) -> Result<Request<()>, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    headers.insert(PEER_PROXIED, HeaderValue::from_static("true"));
    identity::set_user(&mut headers, &apiserver_user()).map_err(|error| error.to_string())?;
    let host = HeaderValue::try_from(address.to_string()).map_err(|error| error.to_string())?;
    headers.insert(header::HOST, host);
    Ok(exchange::head(Method::GET, Uri::from_static(path), headers))
}

fn apiserver_user() -> UserInfo {
    UserInfo {
        name: "system:apiserver".to_owned(),
        uid: "system:apiserver".to_owned(),
        groups: vec!["system:authenticated".to_owned()],
        ..UserInfo::default()
    }
}

impl PeerDocuments {
    fn new(core: &[Group], named: Vec<Group>) -> Result<Self, String> {
        let mut resources = HashSet::new();
        let mut count = 0_usize;
        let groups = core.iter().filter(|group| group.metadata.name.is_empty());
        for group in groups.chain(named.iter().filter(|group| !group.metadata.name.is_empty())) {
            for version in &group.versions {
                for found in &version.resources {
                    count = count.saturating_add(1 + found.subresources.len());
                    if count > MAX_RESOURCES {
                        return Err(format!("the peer has more than {MAX_RESOURCES} resources"));
                    }
                    let (group, version) = (&*group.metadata.name, &*version.version);
                    resources.insert(GroupVersionResource::new(group, version, &*found.resource));
                }
            }
        }
        let groups = named.into_iter().filter(|group| !group.metadata.name.is_empty()).collect();
        Ok(Self { groups, resources })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(items: &serde_json::Value) -> Vec<Group> {
        remote_discovery::groups(json!({"items": items}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn knows_the_resources_of_both_documents() {
        let version = |name: &str| json!([{"version": "v1", "resources": [{"resource": name}]}]);
        let core = groups(
            &json!([{"versions": version("pods")}, {"metadata": {"name": "x"}, "versions": version("x")}]),
        );
        let named = groups(&json!([{"metadata": {"name": "apps"}, "versions": version("deployments")},
            {"versions": version("secrets")}]));
        let documents = PeerDocuments::new(&core, named).unwrap();
        let serves = |group: &str, name: &str| documents.serve(&GroupVersionResource::new(group, "v1", name));
        assert!(serves("", "pods") && serves("apps", "deployments"));
        // A document describes its own groups only.
        assert!(!serves("x", "x") && !serves("", "secrets") && documents.groups.len() == 1);
    }

    #[test]
    fn the_number_of_resources_is_limited() {
        let subresources = vec![json!({"subresource": "s"}); 60];
        let resources = vec![json!({"resource": "a", "subresources": subresources}); 200];
        let all: Vec<_> = (0..3)
            .map(|group| json!({"metadata": {"name": format!("g{group}")}, "versions": [{"version": "v1", "resources": resources}]}))
            .collect();
        assert!(PeerDocuments::new(&[], groups(&json!(all[..1]))).is_ok());
        assert!(PeerDocuments::new(&[], groups(&json!(all))).is_err());
    }
}
