//! `EgressSelectorConfiguration`: the ways to the cluster's nodes, to other control plane servers and to etcd. nave dials
//! all of them directly.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file is not YAML with the fields of the configuration.
    #[error("not an EgressSelectorConfiguration: {0}")]
    Malformed(String),
    /// The file has another kind or version.
    #[error("unexpected config type {0}, Kind={1}")]
    Kind(String, String),
    /// The destinations have an unknown name.
    #[error("egressSelections: {0:?} is not one of cluster, controlplane, etcd")]
    Name(String),
    /// The destinations occur twice.
    #[error("egressSelections: {0:?} occurs twice")]
    Duplicate(String),
    /// A direct connection has a transport.
    #[error("egressSelections: {0:?}: a direct connection has no transport")]
    Transport(String),
    /// The protocol does not exist.
    #[error("egressSelections: {0:?}: unknown proxyProtocol {1:?}")]
    Protocol(String, String),
    /// The protocol needs a proxy.
    #[error("egressSelections: {0:?}: connections through a proxy ({1}) are not supported, only Direct")]
    Proxy(String, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    proxy_protocol: String,
    #[serde(default)]
    transport: Option<Value>,
}

/// Checks that the configuration in a file selects direct connections only.
///
/// # Errors
/// The file is invalid, or selects a proxy.
pub fn check_egress_file(file: &Path) -> Result<(), EgressError> {
    check(&std::fs::read_to_string(file)?)
}

fn check(document: &str) -> Result<(), EgressError> {
    let read = serde_saphyr::from_str::<Configuration>(document);
    let configuration = read.map_err(|error| EgressError::Malformed(error.to_string()))?;
    let Configuration { api_version, kind, egress_selections } = configuration;
    if kind != "EgressSelectorConfiguration" || !VERSIONS.contains(&api_version.as_str()) {
        return Err(EgressError::Kind(api_version, kind));
    }
    let mut seen = BTreeSet::new();
    for Selection { name, connection } in egress_selections {
        let name = name.to_ascii_lowercase();
        if !NAMES.contains(&name.as_str()) {
            return Err(EgressError::Name(name));
        }
        if !seen.insert(name.clone()) {
            return Err(EgressError::Duplicate(name));
        }
        match connection.proxy_protocol.as_str() {
            "Direct" if connection.transport.is_some() => return Err(EgressError::Transport(name)),
            "Direct" => {}
            "HTTPConnect" | "GRPC" => return Err(EgressError::Proxy(name, connection.proxy_protocol)),
            _ => return Err(EgressError::Protocol(name, connection.proxy_protocol)),
        }
    }
    Ok(())
}

const VERSIONS: [&str; 2] = ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1"];
const NAMES: [&str; 3] = ["cluster", "controlplane", "etcd"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_direct_connections_only() {
        let head = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n";
        for (rest, error) in [
            ("", ""),
            ("egressSelections: [{name: cluster, connection: {proxyProtocol: Direct}}]", ""),
            ("egressSelections: [{name: Etcd, connection: {proxyProtocol: Direct}}]", ""),
            ("egressSelections: [{name: master, connection: {proxyProtocol: Direct}}]", "\"master\" is not"),
            (
                "egressSelections: [{name: etcd, connection: {proxyProtocol: Direct}}, {name: ETCD, connection: {proxyProtocol: Direct}}]",
                "\"etcd\" occurs twice",
            ),
            (
                "egressSelections: [{name: etcd, connection: {proxyProtocol: Direct, transport: {}}}]",
                "no transport",
            ),
            (
                "egressSelections: [{name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: https://a}}}}]",
                "through a proxy (HTTPConnect)",
            ),
            ("egressSelections: [{name: cluster, connection: {proxyProtocol: GRPC}}]", "(GRPC)"),
            ("egressSelections: [{name: cluster, connection: {proxyProtocol: x}}]", "unknown proxyProtocol"),
            ("selections: []", "unknown field"),
        ] {
            match check(&format!("{head}{rest}")) {
                Ok(()) => assert_eq!(error, "", "{rest}"),
                Err(found) => {
                    assert!(!error.is_empty() && found.to_string().contains(error), "{rest}: {found}");
                }
            }
        }
        assert!(matches!(check("apiVersion: v1\nkind: Pod"), Err(EgressError::Kind(..))));
    }
}
