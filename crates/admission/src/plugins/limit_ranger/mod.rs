//! LimitRanger applies the limit ranges of a namespace to pods and claims (upstream:
//! `plugin/pkg/admission/limitranger`).
//!
//! The mutating phase sets the ranges' defaults in containers; the validating phase compares the amounts of pods,
//! containers and claims with the ranges' bounds.

mod bounds;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Map, Object, Status, Value};
use nave_resources::pod::default_pod_level_resources;

use super::Parts;
use super::live::Recent;
use super::pods::{ContainerKind, list, text};
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

/// The annotation that lists the defaulted amounts.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// LimitRanger.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::both(LimitRanger { ranges: Arc::clone(&parts.cluster.limit_ranges), empty: Recent::default() })
}

struct LimitRanger {
    ranges: Arc<dyn Lister>,
    /// Namespaces that had no limit range at their last live read.
    empty: Recent,
}

impl LimitRanger {
    async fn ranges_of(&self, namespace: &str) -> Result<Vec<Arc<Object>>, Status> {
        let ranges = self.ranges.list(Some(namespace))?;
        // The cache may lag: a new range must apply to the first pod created after it.
        if !ranges.is_empty() || self.empty.contains(namespace) {
            return Ok(ranges);
        }
        let ranges = self.ranges.list_live(Some(namespace)).await?;
        if ranges.is_empty() {
            self.empty.insert(namespace);
        }
        Ok(ranges)
    }
}

/// Pods are handled on create and on resize only, as other updates cannot change container resources.
fn handles(attributes: &Attributes<'_>) -> bool {
    let concerned = match (attributes.is_pods(), attributes.subresource) {
        (true, "resize") => attributes.is_update(),
        (true, "") => attributes.is_create(),
        (false, "") => attributes.is_write() && attributes.is_resource("", "persistentvolumeclaims"),
        _ => false,
    };
    concerned && attributes.old.is_none_or(|old| old.deletion_timestamp().is_none())
}

#[async_trait]
impl Mutate for LimitRanger {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_pods() && handles(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        for range in self.ranges_of(attributes.namespace).await? {
            set_defaults(pod, &range);
        }
        Ok(())
    }
}

#[async_trait]
impl Validate for LimitRanger {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        for range in self.ranges_of(attributes.namespace).await? {
            let limits = range.list_at(&["spec", "limits"]);
            let errors = if attributes.is_pods() {
                bounds::check_pod(limits, object)
            } else {
                bounds::check_claim(limits, object)
            };
            match errors.as_slice() {
                [] => {}
                [one] => return Err(attributes.forbidden(object, one)),
                many => return Err(attributes.forbidden(object, format_args!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// The container defaults of a limit range. If a resource occurs several times, the last item is used.
fn defaults<'r>(range: &'r Object, field: &str) -> Vec<(&'r String, &'r Value)> {
    let mut found: Vec<(&String, &Value)> = Vec::new();
    let of_containers =
        range.list_at(&["spec", "limits"]).iter().filter(|limit| text(limit, "type") == "Container");
    for (name, amount) in of_containers.filter_map(|limit| limit.get(field)?.as_object()).flatten() {
        found.retain(|(known, _)| *known != name);
        found.push((name, amount));
    }
    found.sort_unstable_by_key(|(name, _)| *name);
    found
}

fn set_defaults(pod: &mut Object, range: &Object) {
    let (limits, requests) = (defaults(range, "default"), defaults(range, "defaultRequest"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let Some(spec) = pod.map_at_mut(&["spec"]) else { return };
    let mut notes = Vec::new();
    for kind in [ContainerKind::Regular, ContainerKind::Init] {
        let containers = spec.get_mut(kind.field()).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (field, what, amounts) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let set = fill_in(container, field, amounts);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {} {name}", set.join(", "), kind.noun()));
                }
            }
        }
    }
    if !notes.is_empty() {
        // Upstream defaults a pod whenever it is read, so also after this change.
        default_pod_level_resources(spec);
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata_map_mut("annotations").insert(ANNOTATION.to_owned(), text.into());
    }
}

/// Sets missing amounts of a container; returns the names of the resources set.
fn fill_in<'r>(container: &mut Map, field: &str, amounts: &[(&'r String, &Value)]) -> Vec<&'r str> {
    let given = container.get("resources").and_then(|resources| resources.get(field)?.as_object());
    let missing: Vec<_> =
        amounts.iter().filter(|(name, _)| given.is_none_or(|given| !given.contains_key(*name))).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let Some(resources) = map_in(container, "resources") else { return Vec::new() };
    let Some(list) = map_in(resources, field) else { return Vec::new() };
    for (name, amount) in &missing {
        list.insert((*name).clone(), (*amount).clone());
    }
    missing.into_iter().map(|(name, _)| name.as_str()).collect()
}

/// Returns the map in a field; creates it if it is absent.
fn map_in<'m>(map: &'m mut Map, field: &str) -> Option<&'m mut Map> {
    let value = map.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The amounts of a resource list in an object.
fn amounts<'a>(object: &'a Value, path: [&str; 2]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(path[0]).and_then(|inner| inner.get(path[1])).and_then(Value::as_object).into_iter().flatten()
}

/// The containers and init containers of a pod.
fn all_containers(pod: &Object) -> impl Iterator<Item = &Value> {
    let spec = pod.get("spec");
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(move |field| list(spec.and_then(|spec| spec.get(field))))
}
