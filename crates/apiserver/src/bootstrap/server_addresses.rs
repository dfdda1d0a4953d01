//! The addresses of all running servers that share a store (upstream: `reconcilers/lease.go`). Each server keeps a key
//! with its address, which expires when the server stops to renew it. Servers of both kinds read each other's keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupResource, GroupVersionResource, Status};
use nave_store::{Range, Store, Txn};
use serde_json::json;

use crate::endpoints::Resources;
use crate::storage::store_status;

/// Prefix of the keys.
const PREFIX: &str = "/registry/masterleases/";
/// Time after which the address of a server that does not renew it is removed.
const LIFETIME: Duration = Duration::from_secs(15);

/// Stores the address of this server and renews it.
pub(super) async fn renew(resources: &Resources, address: IpAddr) -> Result<(), Status> {
    let catalog = resources.catalog();
    let endpoints = GroupVersionResource::new("", "v1", "endpoints");
    let Some(storage) = catalog.storages().get(&endpoints) else { return Ok(()) };
    let value = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {},
        "subsets": [{"addresses": [{"ip": address.to_string()}]}],
    });
    let value = storage.codec().encode(&value)?;
    let txn = Txn::put(key(address), value).with_ttl(LIFETIME);
    store(resources).txn(txn).await.map(drop).map_err(|error| store_status(&error))
}

/// Removes the address of this server.
pub(super) async fn remove(resources: &Resources, address: IpAddr) -> Result<(), Status> {
    store(resources).txn(Txn::delete(key(address))).await.map(drop).map_err(|error| store_status(&error))
}

/// Returns the addresses of all running servers with the IP family of `address`, sorted as text.
pub(super) async fn list(resources: &Resources, address: IpAddr) -> Result<Vec<String>, Status> {
    let found = store(resources).range(Range::all(PREFIX)).await.map_err(|error| store_status(&error))?;
    let addresses = found.items.iter().filter_map(|kv| kv.key.strip_prefix(PREFIX)?.parse::<IpAddr>().ok());
    let same_family = addresses.filter(|other| other.is_ipv4() == address.is_ipv4());
    let mut addresses: Vec<String> = same_family.map(|other| other.to_string()).collect();
    addresses.sort();
    Ok(addresses)
}

fn store(resources: &Resources) -> Arc<dyn Store> {
    let addresses = GroupResource { group: String::new(), resource: "apiserveripinfo".to_owned() };
    resources.catalog().storages().stores().for_resource(&addresses)
}

fn key(address: IpAddr) -> String {
    format!("{PREFIX}{address}")
}
