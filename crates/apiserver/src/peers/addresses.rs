//! The addresses of the servers that share a store, for their peers (upstream: `reconcilers/peer_endpoint_lease.go`).
//! Each server keeps a key with its address, which expires when the server stops to renew it. Servers of both kinds read
//! each other's keys.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupResource, GroupVersionResource, Status, Value};
use nave_store::{Range, Store, Txn};
use serde_json::json;

use crate::endpoints::Resources;
use crate::storage::{ResourceStorage, store_status};

/// Prefix of the keys.
const PREFIX: &str = "/registry/peerserverleases/";
/// Time after which the address of a server that does not renew it is removed.
const LIFETIME: Duration = Duration::from_secs(15);
/// Maximum number of addresses that are read.
const MAX_ADDRESSES: usize = 256;

/// Stores the address of the server with this identity and renews it.
pub(crate) async fn renew(resources: &Resources, id: &str, address: SocketAddr) -> Result<(), Status> {
    let Some(storage) = endpoints(resources) else { return Ok(()) };
    let value = storage.codec().encode(&to_json(id, address))?;
    let txn = Txn::put(key(id), value).with_ttl(LIFETIME);
    store(resources).txn(txn).await.map(drop).map_err(|error| store_status(&error))
}

/// Removes the address of a server.
pub(crate) async fn remove(resources: &Resources, id: &str) -> Result<(), Status> {
    store(resources).txn(Txn::delete(key(id))).await.map(drop).map_err(|error| store_status(&error))
}

/// Returns the addresses of all running servers by their identities.
pub(super) async fn list(resources: &Resources) -> Result<HashMap<String, SocketAddr>, Status> {
    let Some(storage) = endpoints(resources) else { return Ok(HashMap::new()) };
    let range = Range { limit: MAX_ADDRESSES, ..Range::all(PREFIX) };
    let found = store(resources).range(range).await.map_err(|error| store_status(&error))?;
    let addresses = found.items.iter().filter_map(|kv| {
        let id = kv.key.strip_prefix(PREFIX)?.to_owned();
        // A value that cannot be read is no address.
        Some((id, from_json(&storage.codec().decode(kv).ok()?)?))
    });
    Ok(addresses.collect())
}

fn to_json(id: &str, address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"labels": {"apiserverIdentity": id}},
        "subsets": [{
            "addresses": [{"ip": address.ip().to_string()}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        }],
    })
}

fn from_json(endpoints: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = endpoints.pointer("/subsets/0/addresses/0/ip")?.as_str()?.parse().ok()?;
    let port = endpoints.pointer("/subsets/0/ports/0/port")?.as_u64()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok().filter(|port| *port != 0)?))
}

fn endpoints(resources: &Resources) -> Option<Arc<ResourceStorage>> {
    let endpoints = GroupVersionResource::new("", "v1", "endpoints");
    resources.catalog().storages().get(&endpoints).cloned()
}

fn store(resources: &Resources) -> Arc<dyn Store> {
    let addresses = GroupResource { group: String::new(), resource: "apiserverpeeripinfo".to_owned() };
    resources.catalog().storages().stores().for_resource(&addresses)
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for address in ["192.0.2.1:6443", "[2001:db8::1]:443"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(from_json(&to_json("apiserver-a", address)), Some(address));
        }
        for subsets in [
            json!([]),
            json!([{"addresses": [{"ip": "host.example"}], "ports": [{"port": 1}]}]),
            json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": []}]),
            json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 0}]}]),
            json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 65536}]}]),
        ] {
            assert_eq!(from_json(&json!({"subsets": subsets})), None, "{subsets}");
        }
    }
}
