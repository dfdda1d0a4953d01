//! Service CIDRs: adds a finalizer to a range before it becomes ready, and keeps the finalizer while any of its
//! addresses is in use (upstream: `pkg/controller/servicecidrs`).

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use nave_client::{Action, Lister, Object, ObjectName};
use nave_machinery::{Cidr, conditions};
use serde_json::{Value, json};

use crate::api::ignore_not_found;
use crate::finalizers::{FinalizerAction, add_finalizer, finalizer_action, remove_finalizer};
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// The minimum time between deletion and the removal of the finalizer. In this time all servers stop allocating
/// addresses from the range.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) const SERVICE_CIDR: Descriptor = Descriptor {
    name: "service-cidr-controller",
    alias: "service-cidr-controller",
    service_account: "service-cidrs-controller",
    on_by_default: true,
    workers: Workers::fixed(5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, cidrs) = context.controller_for::<ServiceCIDR>("ipaddresses");
    let addresses = builder.informer::<IPAddress>();
    // Only ranges that are being deleted depend on the other ranges and on addresses.
    let terminating = TerminatingRanges(cidrs.lister());
    builder.enqueue_mapped(&cidrs, move |changed| {
        let changed = blocks(changed);
        terminating.keys_where(|block| changed.iter().any(|changed| changed.overlaps(*block)))
    });
    let terminating = TerminatingRanges(cidrs.lister());
    builder.enqueue_mapped(&addresses, move |address| {
        let address = service_address(address);
        terminating.keys_where(|block| address.is_some_and(|address| block.is_host(address)))
    });
    builder.run(Controller {
        client: context.client.clone(),
        events: context.events.with_component("service-cidr-controller"),
        cidrs: cidrs.lister(),
        addresses: addresses.lister(),
    })
}

/// The ranges that are being deleted.
struct TerminatingRanges(Lister<ServiceCIDR>);

impl TerminatingRanges {
    /// Returns the keys of the ranges with a block for which `concerns` is true.
    fn keys_where(&self, concerns: impl Fn(&Cidr) -> bool) -> Vec<ObjectName> {
        let all = self.0.list().into_iter().filter(Object::is_being_deleted);
        all.filter(|cidr| blocks(cidr).iter().any(&concerns)).map(|cidr| cidr.key()).collect()
    }
}

struct Controller {
    client: kube::Client,
    events: EventRecorder,
    cidrs: Lister<ServiceCIDR>,
    addresses: Lister<IPAddress>,
}

impl Reconciler for Controller {
    /// Adds the finalizer and sets the condition `Ready`. If the range is being deleted and not in use, removes the
    /// finalizer.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cidr) = self.cidrs.get_by_key(&key) else { return Ok(Action::Done) };
        let api = Api::all_with(self.client.clone(), &ApiResource::erase::<ServiceCIDR>(&()));
        let action = finalizer_action(&cidr, FINALIZER);
        if let Some(deleted) = cidr.deletion_timestamp() {
            if self.is_needed(&cidr) {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
                set_ready(&api, &cidr, "False", "Terminating", message).await?;
                return Ok(Action::Done);
            }
            let age = Duration::try_from(Timestamp::now().duration_since(deleted)).unwrap_or_default();
            if let Some(left) = GRACE.checked_sub(age).filter(|left| !left.is_zero()) {
                return Ok(Action::RequeueAfter(left));
            }
            if action == FinalizerAction::Remove {
                remove_finalizer(&api, &cidr, FINALIZER).await?;
            }
            return Ok(Action::Done);
        }
        if action == FinalizerAction::Add {
            // The event of this write triggers another sync, which sets the condition.
            add_finalizer(&api, &cidr, FINALIZER).await?;
            return Ok(Action::Done);
        }
        if let Err(error) = set_ready(&api, &cidr, "True", "", "Kubernetes Service CIDR is ready").await {
            let message = "The ServiceCIDR Status can not be set to Ready=True";
            let object = reference_of(&cidr.decode()?);
            self.events.record(&object, EventKind::Warning, "KubernetesServiceCIDRError", message);
            return Err(error);
        }
        Ok(Action::Done)
    }
}

impl Controller {
    /// Returns whether an address would be outside all ranges without this range.
    fn is_needed(&self, cidr: &Object<ServiceCIDR>) -> bool {
        let others: Vec<Cidr> =
            self.cidrs.list().iter().filter(|other| other.name() != cidr.name()).flat_map(blocks).collect();
        let addresses: Vec<IpAddr> = self.addresses.list().iter().filter_map(service_address).collect();
        leaves_orphans(&blocks(cidr), &others, &addresses)
    }
}

/// Returns whether an address is in `blocks` but not in `others`.
fn leaves_orphans(blocks: &[Cidr], others: &[Cidr], addresses: &[IpAddr]) -> bool {
    let is_covered = |block: &Cidr| others.iter().any(|other| other.contains_block(*block));
    if blocks.iter().all(is_covered) {
        return false;
    }
    let is_in = |blocks: &[Cidr], address: IpAddr| blocks.iter().any(|block| block.is_host(address));
    addresses.iter().any(|address| is_in(blocks, *address) && !is_in(others, *address))
}

fn blocks(cidr: &Object<ServiceCIDR>) -> Vec<Cidr> {
    let texts: Vec<String> = cidr
        .json_at(&["spec", "cidrs"])
        .and_then(|json| serde_json::from_slice(json).ok())
        .unwrap_or_default();
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Returns the address if it belongs to a service.
fn service_address(address: &Object<IPAddress>) -> Option<IpAddr> {
    (address.label(MANAGER_LABEL) == Some(MANAGER)).then(|| address.name().parse().ok())?
}

/// Sets the condition `Ready` on the cached object if its value differs.
async fn set_ready(
    api: &Api<DynamicObject>,
    seen: &Object<ServiceCIDR>,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), SyncError> {
    let mut object: Value = serde_json::from_slice(seen.json())?;
    let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let is_same = |found: &Value| {
        ["status", "reason", "message"].iter().all(|field| found[*field] == condition[*field])
    };
    if conditions::find(&object, "Ready").is_some_and(is_same) {
        return Ok(());
    }
    conditions::set(&mut object, condition);
    let object: DynamicObject = serde_json::from_value(object)?;
    ignore_not_found(api.replace_status(seen.name(), &PostParams::default(), &object).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_needed_while_an_address_is_in_no_other() {
        let blocks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
        let used: [IpAddr; 2] = ["10.0.0.5", "fd00::5"].map(|text| text.parse().unwrap());
        for (range, others, is_needed) in [
            (&["10.0.0.0/24"][..], &[][..], true),
            (&["10.1.0.0/24"], &[], false),
            (&["10.0.0.0/24"], &["10.0.0.0/16"], false),
            (&["10.0.0.0/24"], &["10.0.0.0/24"], false),
            (&["10.0.0.0/24"], &["10.0.0.0/28"], false),
            (&["10.0.0.0/24"], &["10.0.0.128/25"], true),
            (&["10.0.0.0/24", "fd00::/108"], &["10.0.0.0/16"], true),
            (&["10.0.0.0/24", "fd00::/108"], &["10.0.0.0/16", "fd00::/64"], false),
            // The network address of a block cannot be allocated from it.
            (&["10.0.0.0/24"], &["10.0.0.5/32"], true),
        ] {
            assert_eq!(
                leaves_orphans(&blocks(range), &blocks(others), &used),
                is_needed,
                "{range:?} {others:?}"
            );
        }
    }
}
