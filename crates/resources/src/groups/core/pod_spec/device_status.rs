//! Validation of the devices in a pod's status: their health, and the claim of extended resources (upstream:
//! `validateContainerStatusAllocatedResourcesStatus`, `validatePodExtendedResourceClaimStatus`).

use std::collections::HashSet;

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, checked, required_checked};

const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
/// The maximum length of a message about a device's health, in bytes.
const MESSAGE_MAX: usize = 1024;

pub(super) fn validate(status: At, spec: At, errors: &mut Errors) {
    for (list, containers) in
        [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")]
    {
        let containers = spec.field(containers);
        for container_status in status.field(list).items() {
            let name = container_status.field("name").text();
            let container = containers.items().find(|container| container.field("name").text() == name);
            for resource in container_status.field("allocatedResourcesStatus").items() {
                if let Some(container) = &container {
                    allocated(&resource, container, errors);
                }
                health(&resource, errors);
            }
        }
    }
    for container_status in status.field("ephemeralContainerStatuses").items() {
        let allocated = container_status.field("allocatedResourcesStatus");
        if allocated.len() > 0 {
            errors.push(allocated.forbidden("must not be specified in container status"));
        }
    }
    extended_claim(status.field("extendedResourceClaimStatus"), spec, errors);
}

/// Checks that the container requests the resource or uses the claim.
fn allocated(resource: &At, container: &At, errors: &mut Errors) {
    let name = resource.field("name");
    let resources = container.field("resources");
    let (is_known, why) = if name.text().starts_with("claim:") {
        let is_known = resources.field("claims").items().any(|claim| {
            let (claim, request) = (claim.field("name").text(), claim.field("request").text());
            let shown = if request.is_empty() {
                format!("claim:{claim}")
            } else {
                format!("claim:{claim}/{request}")
            };
            shown == name.text()
        });
        (
            is_known,
            "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
        )
    } else {
        let is_known = resources.field("requests").key(name.text()).is_set();
        (is_known, "must match one of the container's resource requests")
    };
    if !is_known {
        errors.push(name.invalid_text(why));
    }
}

fn health(resource: &At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for device in resource.field("resources").items() {
        let (health, message, id) =
            (device.field("health"), device.field("message"), device.field("resourceID"));
        if !HEALTH.contains(&health.text()) {
            errors.push(health.not_supported(&HEALTH));
        }
        if message.is_set() && message.text().is_empty() {
            errors.push(message.required("must be non-empty if specified"));
        } else if message.text().len() > MESSAGE_MAX {
            errors.push(FieldError::too_long(&message.path(), MESSAGE_MAX));
        }
        if !seen.insert(id.text()) {
            errors.push(id.duplicate());
        }
    }
}

/// Checks the claim that has the devices for extended resources of the containers.
fn extended_claim(claim: At, spec: At, errors: &mut Errors) {
    if !claim.is_set() {
        return;
    }
    let mappings = claim.field("requestMappings");
    if mappings.len() == 0 {
        errors.push(mappings.required("at least one request mapping is required"));
    }
    let mut seen = HashSet::new();
    for mapping in mappings.items() {
        let (container_name, resource, request) =
            (mapping.field("containerName"), mapping.field("resourceName"), mapping.field("requestName"));
        let (containers, init) = (spec.field("containers"), spec.field("initContainers"));
        let container = containers
            .items()
            .chain(init.items())
            .find(|it| it.field("name").text() == container_name.text());
        match container {
            Some(container)
                if !container.field("resources").field("requests").key(resource.text()).is_set() =>
            {
                errors.push(resource.invalid_text("must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"));
            }
            Some(_) => {}
            None => errors.push(container_name.invalid_text(
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            )),
        }
        // Upstream's path leaves out the mapping.
        checked(claim.field("requestName").with(request.value()), names::is_dns1123_label, errors);
        if !seen.insert((container_name.text(), resource.text(), request.text())) {
            errors.extend([container_name, resource, request].map(|at| at.duplicate()));
        }
    }
    required_checked(claim.field("resourceClaimName"), names::is_dns1123_subdomain, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn checks_devices() {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}, "claims": [{"name": "a"}, {"name": "b", "request": "r"}]}}]});
        let container = |resource: Value| json!({"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [resource]}]});
        let claim = |mapping: Value, name: &str| json!({"extendedResourceClaimStatus": {"requestMappings": [mapping], "resourceClaimName": name}});
        let device = |health: &str| json!({"resourceID": "d", "health": health});
        for (status, expected) in [
            (container(json!({"name": "example.com/gpu", "resources": [device("Healthy")]})), &[][..]),
            (container(json!({"name": "claim:a"})), &[]),
            (container(json!({"name": "claim:b/r"})), &[]),
            (
                container(json!({"name": "claim:b"})),
                &["status.containerStatuses[0].allocatedResourcesStatus[0].name"],
            ),
            (
                container(json!({"name": "cpu"})),
                &["status.containerStatuses[0].allocatedResourcesStatus[0].name"],
            ),
            (
                container(json!({"name": "claim:a", "resources": [device("Good"), device("Unknown")]})),
                &[
                    "status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health",
                    "status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].resourceID",
                ],
            ),
            (
                json!({"ephemeralContainerStatuses": [{"name": "e", "allocatedResourcesStatus": [{"name": "cpu"}]}]}),
                &["status.ephemeralContainerStatuses[0].allocatedResourcesStatus"],
            ),
            (
                claim(
                    json!({"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"}),
                    "x",
                ),
                &[],
            ),
            (
                claim(json!({"containerName": "d", "resourceName": "cpu", "requestName": "R"}), ""),
                &[
                    "status.extendedResourceClaimStatus.requestMappings[0].containerName",
                    "status.extendedResourceClaimStatus.requestName",
                    "status.extendedResourceClaimStatus.resourceClaimName",
                ],
            ),
            (
                claim(json!({"containerName": "c", "resourceName": "cpu", "requestName": "r"}), "x"),
                &["status.extendedResourceClaimStatus.requestMappings[0].resourceName"],
            ),
        ] {
            let pod = json!({"spec": spec, "status": status});
            let (root, mut errors) = (At::root(&pod), Errors::new());
            validate(root.field("status"), root.field("spec"), &mut errors);
            let fields: Vec<String> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{status}");
        }
    }
}
