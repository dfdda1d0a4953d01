//! The usage of objects that a `ResourceQuota` limits, for admission and for the quota controller.
//!
//! | object | names |
//! | --- | --- |
//! | [`pod`] | `pods`, `cpu`, `requests.memory`, `limits.cpu`, `hugepages-…`, `requests.example.com/gpu`, … |
//! | [`service`] | `services`, `services.nodeports`, `services.loadbalancers` |
//! | [`claim`] | `persistentvolumeclaims`, `requests.storage`, and both for each storage class |
//! | [`resource_claim`] | `count/resourceclaims.resource.k8s.io`, and the devices of each device class |
//! | [`object_count_names`] | `count/deployments.apps` for any resource, and a few without `count/` |
//!
//! The [`scopes`] of a quota select the objects that it counts.

mod claims;
mod pods;
mod resource_claims;
pub mod scopes;
mod services;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use nave_machinery::quantity::Quantity;

pub use claims::{claim, is_claim_name};
pub use pods::{charged, is_pod_name, pod};
pub use resource_claims::{is_device_name, is_resource_claim_name, resource_claim};
pub use services::{is_service_name, service};

/// Amounts by quota name.
pub type Usage = BTreeMap<String, Quantity>;

/// The prefix of object count quotas.
pub const COUNT: &str = "count/";

/// Resources that can also be counted by name, without [`COUNT`].
const COUNTED_BY_NAME: [&str; 6] = [
    "configmaps",
    "secrets",
    "replicationcontrollers",
    "resourcequotas",
    "services",
    "persistentvolumeclaims",
];

/// Returns the quota names that count the objects of a resource.
pub fn object_count_names(group: &str, resource: &str) -> impl Iterator<Item = String> {
    let full =
        if group.is_empty() { format!("{COUNT}{resource}") } else { format!("{COUNT}{resource}.{group}") };
    let short = group.is_empty() && COUNTED_BY_NAME.contains(&resource);
    std::iter::once(full).chain(short.then(|| resource.to_owned()))
}

/// Returns the plural and group of the resource that a quota name counts.
pub fn counted_resource(name: &str) -> Option<(&str, &str)> {
    if COUNTED_BY_NAME.contains(&name) {
        return Some((name, ""));
    }
    let rest = name.strip_prefix(COUNT)?;
    Some(rest.split_once('.').unwrap_or((rest, "")))
}

/// Adds the amounts of `more` to `total`.
pub fn add(total: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = *sum + *amount;
    }
}

/// Raises each amount in `total` to at least the amount in `least`.
fn raise(total: &mut Usage, least: &Usage) {
    for (name, amount) in least {
        let most = total.entry(name.clone()).or_insert(*amount);
        if *most < *amount {
            *most = *amount;
        }
    }
}

/// Parses a resource list. Ignores invalid amounts, which validation rejects.
fn read(list: Option<&BTreeMap<String, WrittenQuantity>>) -> Usage {
    let amounts = list.into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(&amount.0).ok()?))).collect()
}

fn one() -> Quantity {
    Quantity::from_value(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_objects_by_resource_and_group() {
        let names = |group: &str, resource: &str| object_count_names(group, resource).collect::<Vec<_>>();
        assert_eq!(names("apps", "deployments"), ["count/deployments.apps"]);
        assert_eq!(names("", "secrets"), ["count/secrets", "secrets"]);
        assert_eq!(counted_resource("count/deployments.apps"), Some(("deployments", "apps")));
        assert_eq!(counted_resource("count/a.example.com"), Some(("a", "example.com")));
        assert_eq!(counted_resource("count/pods"), Some(("pods", "")));
        assert_eq!(counted_resource("secrets"), Some(("secrets", "")));
        assert_eq!(counted_resource("cpu"), None);
    }
}
