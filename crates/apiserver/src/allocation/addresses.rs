//! Cluster IPs, stored as `IPAddress` objects (upstream: `pkg/registry/core/service/ipallocator`).
//!
//! An address is allocated by creating the object with its name, so servers that share a store never allocate the same
//! address twice. Free addresses are searched in the watch cache, which may lag; the create in the store is decisive.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use nave_machinery::{Status, Value, meta, time};
use nave_store::{Expect, KeyValue, Range, Store, Txn, TxnOutcome};
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use uuid::Uuid;

use super::error::AddressError;
use super::range::Family;
use super::service::ServiceName;
use super::service_cidr::ServiceCidrs;
use crate::storage::{Latest, NO_REVISION, ResourceStorage, send_until_known, store_status};

/// Label with the family of an address.
pub(super) const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
/// Label with the manager of an address.
pub(super) const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
/// Manager of the addresses of services.
pub(super) const MANAGER: &str = "ipallocator.k8s.io";

/// Allocates cluster IPs.
pub(super) struct Addresses {
    pub(super) store: Arc<dyn Store>,
    pub(super) objects: Arc<ResourceStorage>,
    pub(super) cidrs: ServiceCidrs,
    /// Runs tasks that must complete even if the request is dropped.
    pub(super) runtime: Handle,
    /// The addresses that are being released.
    releasing: Mutex<HashSet<IpAddr>>,
    released: Notify,
}

/// An address claimed by a write attempt. Dropping it releases the address.
pub(super) struct AddressClaim {
    addresses: Arc<Addresses>,
    pub(super) address: IpAddr,
    uid: String,
    /// The revision of the object; `None` if the create may have failed.
    revision: Option<u64>,
    is_kept: bool,
}

/// The expected owner of an address object that is to be deleted.
#[derive(Clone, Copy)]
pub(super) enum Holder<'a> {
    /// The write attempt that created the object, by the object's uid.
    Uid(&'a str),
    /// A service.
    Service(&'a ServiceName),
    /// No expected owner: the object is deleted only at the known revision.
    None,
}

impl Addresses {
    pub(super) fn new(
        store: Arc<dyn Store>,
        objects: Arc<ResourceStorage>,
        cidrs: ServiceCidrs,
        runtime: Handle,
    ) -> Self {
        let (releasing, released) = (Mutex::default(), Notify::new());
        Self { store, objects, cidrs, runtime, releasing, released }
    }

    /// Claims an address for a service.
    ///
    /// # Errors
    /// [`AddressError`].
    pub(super) async fn claim(
        self: &Arc<Self>,
        address: IpAddr,
        service: &ServiceName,
    ) -> Result<AddressClaim, AddressError> {
        self.cidrs.check(address).await?;
        let (this, service) = (Arc::clone(self), service.clone());
        self.owned(async move {
            loop {
                let is_releasing = this.releasing.lock().contains(&address);
                match this.create(address, &service).await {
                    // An earlier attempt of this write, or a deletion, is still releasing the address.
                    Err(AddressError::Allocated) if is_releasing => this.wait_released(address).await,
                    outcome => return outcome,
                }
            }
        })
        .await
    }

    /// Claims a free address of the family for a service.
    ///
    /// # Errors
    /// [`AddressError`].
    pub(super) async fn claim_any(
        self: &Arc<Self>,
        family: Family,
        service: &ServiceName,
    ) -> Result<AddressClaim, AddressError> {
        let (this, service) = (Arc::clone(self), service.clone());
        self.owned(async move {
            let known = this.objects.cacher().snapshot();
            match this.claim_free(|key| known.get(key).is_none(), family, &service).await {
                // The cache may lag behind released addresses and new ranges.
                Err(AddressError::Full) => {}
                outcome => return outcome,
            }
            this.cidrs.catch_up().await?;
            match this.objects.latest().await? {
                Latest::Memory(known) => {
                    this.claim_free(|key| known.get(key).is_none(), family, &service).await
                }
                Latest::Store(_) => {
                    let known = this.stored_keys().await?;
                    this.claim_free(|key| !known.contains(key), family, &service).await
                }
            }
        })
        .await
    }

    /// Checks whether a claim would succeed, for a dry run, without creating an object.
    pub(super) async fn check_claim(
        &self,
        wanted: Option<IpAddr>,
        family: Family,
    ) -> Result<IpAddr, AddressError> {
        let Some(address) = wanted else {
            // As upstream, return the network address, which is never assigned to a service.
            return self.cidrs.ready(family).first().map(|range| range.base()).ok_or(AddressError::Full);
        };
        // As upstream, a dry run does not find an address that is taken.
        self.cidrs.check(address).await.map(|()| address)
    }

    /// Deletes the object of an address if `holder` owns it. Returns once the store has confirmed the deletion.
    pub(super) async fn release(&self, address: IpAddr, holder: Holder<'_>, revision: Option<u64>) {
        let Ok(key) = self.key(address) else { return };
        let mut expected = revision;
        loop {
            let txn = Txn::delete(&*key).expecting(Expect::Revision(expected.unwrap_or(NO_REVISION)));
            match send_until_known(&*self.store, txn).await {
                Ok(TxnOutcome::Failed { current: Some(kv), .. })
                    if expected != Some(kv.mod_revision) && self.is_held_by(&kv, &holder) =>
                {
                    expected = Some(kv.mod_revision);
                }
                _ => return,
            }
        }
    }

    /// Deletes the object of an address at a known revision; a changed object is kept.
    pub(super) async fn release_as_seen(&self, address: IpAddr, revision: u64) {
        self.release(address, Holder::None, Some(revision)).await;
    }

    /// Returns the revision of the address object in the cache.
    pub(super) fn known_revision(&self, address: IpAddr) -> Option<u64> {
        self.objects.find("", &address.to_string()).map(|object| object.resource_version())
    }

    /// Creates the address object.
    ///
    /// # Errors
    /// [`AddressError`].
    pub(super) async fn create(
        self: &Arc<Self>,
        address: IpAddr,
        service: &ServiceName,
    ) -> Result<AddressClaim, AddressError> {
        let object = object(address, service);
        let txn = Txn::create(self.key(address)?, self.objects.codec().encode(&object)?);
        let outcome = self.store.txn(txn).await;
        let claim = |revision| {
            let (addresses, uid) = (Arc::clone(self), meta::uid(&object).to_owned());
            AddressClaim { addresses, address, uid, revision, is_kept: false }
        };
        match outcome {
            Ok(TxnOutcome::Committed { revision, .. }) => Ok(claim(Some(revision))),
            Ok(TxnOutcome::Failed { .. }) => Err(AddressError::Allocated),
            Err(error) => {
                if error.is_outcome_unknown() {
                    // Delete the object if it was created after all.
                    drop(claim(None));
                }
                Err(store_status(&error).into())
            }
        }
    }

    async fn claim_free(
        self: &Arc<Self>,
        may_be_free: impl Fn(&str) -> bool,
        family: Family,
        service: &ServiceName,
    ) -> Result<AddressClaim, AddressError> {
        for range in self.cidrs.ready(family) {
            for address in range.candidates() {
                if !may_be_free(&self.key(address)?) {
                    continue;
                }
                match self.create(address, service).await {
                    Err(AddressError::Allocated) => {}
                    outcome => return outcome,
                }
            }
        }
        Err(AddressError::Full)
    }

    /// Lists the keys of all objects from the store.
    async fn stored_keys(&self) -> Result<HashSet<Arc<str>>, Status> {
        let prefix = nave_resources::list_prefix(self.objects.def(), None).map_err(Status::internal)?;
        let found = self.objects.range(Range::all(prefix)).await?;
        Ok(found.items.into_iter().map(|kv| kv.key).collect())
    }

    /// Completes a claim even if the caller is dropped; the claim is then released.
    async fn owned(
        &self,
        claim: impl Future<Output = Result<AddressClaim, AddressError>> + Send + 'static,
    ) -> Result<AddressClaim, AddressError> {
        match self.runtime.spawn(claim).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Status::internal(error).into()),
        }
    }

    async fn wait_released(&self, address: IpAddr) {
        loop {
            let released = self.released.notified();
            if !self.releasing.lock().contains(&address) {
                return;
            }
            released.await;
        }
    }

    fn is_held_by(&self, kv: &KeyValue, holder: &Holder<'_>) -> bool {
        let Ok(object) = self.objects.codec().decode(kv) else { return false };
        match holder {
            Holder::Uid(uid) => meta::uid(&object) == *uid,
            Holder::Service(service) => parent(&object).as_ref() == Some(*service),
            Holder::None => false,
        }
    }

    fn key(&self, address: IpAddr) -> Result<String, Status> {
        nave_resources::storage_key(self.objects.def(), None, &address.to_string()).map_err(Status::internal)
    }
}

impl AddressClaim {
    /// Makes the claim permanent.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }

    /// Releases the address and waits until it is released.
    pub(super) async fn release(mut self) {
        self.is_kept = true;
        let addresses = Arc::clone(&self.addresses);
        addresses.release(self.address, Holder::Uid(&self.uid), self.revision).await;
    }
}

impl Drop for AddressClaim {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (addresses, address) = (Arc::clone(&self.addresses), self.address);
        let (uid, revision) = (std::mem::take(&mut self.uid), self.revision);
        addresses.releasing.lock().insert(address);
        self.addresses.runtime.spawn(async move {
            addresses.release(address, Holder::Uid(&uid), revision).await;
            addresses.releasing.lock().remove(&address);
            addresses.released.notify_waiters();
        });
    }
}

/// Returns the service that the parent reference of an address object names; `None` for other parents.
pub(super) fn parent(object: &Value) -> Option<ServiceName> {
    let reference = object.get("spec")?.get("parentRef")?;
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("group").is_empty() && text("resource") == "services")
        .then(|| ServiceName { namespace: text("namespace").to_owned(), name: text("name").to_owned() })
}

/// Builds the address object for a service.
fn object(address: IpAddr, service: &ServiceName) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": Uuid::new_v4().to_string(),
            "creationTimestamp": time::now().rfc3339(),
            "labels": {FAMILY_LABEL: Family::from_address(address).as_str(), MANAGER_LABEL: MANAGER},
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": "services",
            "namespace": service.namespace,
            "name": service.name,
        }},
    })
}
