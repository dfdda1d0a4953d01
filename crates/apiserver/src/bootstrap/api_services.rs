//! The APIServices of the built-in groups and versions (upstream: `autoregister` in `kube-aggregator`, and the
//! priorities of `pkg/controlplane/apiserver/aggregator.go`).
//!
//! The server creates and corrects them at start only. A deleted or changed APIService stays as it is until the next
//! start. An APIService without the label is never corrected.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use nave_machinery::options::DeleteOptions;
use nave_machinery::{GroupVersionResource, Status, Value, meta};
use serde_json::json;

use super::ensure::{ensure, with_field};
use crate::endpoints::Resources;
use crate::internal::InternalWriter;

/// Label of APIServices that the server manages, with the value for those corrected at start only.
const AUTOMANAGED: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "onstart");

/// The priority of each group.
const GROUP_PRIORITIES: [(&str, u32); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];

/// Priorities of the versions that differ from [`VERSION_PRIORITY`].
const VERSION_PRIORITIES: [(&str, &str, u32); 12] = [
    ("", "v1", 1),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("admissionregistration.k8s.io", "v1alpha1", 9),
    ("autoscaling", "v2", 30),
    ("coordination.k8s.io", "v1beta1", 13),
    ("coordination.k8s.io", "v1alpha2", 12),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("networking.k8s.io", "v1beta1", 9),
    ("resource.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1beta1", 9),
    ("resource.k8s.io", "v1alpha3", 1),
    ("storage.k8s.io", "v1beta1", 9),
];
const VERSION_PRIORITY: u32 = 15;

/// Creates missing APIServices, corrects those that have the label, and deletes those with the label whose version is no
/// longer served.
pub(super) async fn run(resources: &Resources) -> Result<(), Status> {
    delete_surplus(resources).await?;
    let ensured = resources.catalog().group_versions().into_iter().filter_map(|(group, version)| {
        let wanted = api_service(&group, &version)?;
        let api_services = GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices");
        Some(async move {
            let spec = wanted["spec"].clone();
            ensure(resources, api_services, "", wanted, &|stored| {
                let object = stored.as_value();
                let is_automanaged =
                    meta::label(object, AUTOMANAGED.0).is_some_and(|label| !label.is_empty());
                (is_automanaged && object["spec"] != spec).then(|| with_field(stored, "spec", spec.clone()))
            })
            .await
        })
    });
    try_join_all(ensured).await.map(drop)
}

async fn delete_surplus(resources: &Resources) -> Result<(), Status> {
    let catalog = resources.catalog();
    let api_services = GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices");
    let Some(endpoint) = catalog.endpoint(&api_services) else { return Ok(()) };
    let storage = endpoint.storage()?;
    let served: HashSet<String> =
        catalog.group_versions().into_iter().map(|(group, version)| format!("{version}.{group}")).collect();
    let mut surplus = Vec::new();
    for cached in storage.cacher().snapshot().range("", None).filter(|it| !served.contains(it.name())) {
        let object = storage.codec().parse_cached(cached)?;
        if meta::label(&object, AUTOMANAGED.0) == Some(AUTOMANAGED.1) {
            surplus.push(cached.name().to_owned());
        }
    }
    let writer = InternalWriter::new(endpoint, resources.admission());
    for name in surplus {
        match writer.delete(("", &name), &DeleteOptions::default()).await {
            // Another server has deleted it.
            Err(status) if status.code == 404 => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Returns the APIService of a group and version; `None` for `apiregistration.k8s.io`, which has no APIService.
fn api_service(group: &str, version: &str) -> Option<Value> {
    let (_, group_priority) = GROUP_PRIORITIES.iter().find(|(known, _)| *known == group)?;
    let priority = VERSION_PRIORITIES.iter().find(|(of, known, _)| (*of, *known) == (group, version));
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": group_priority,
        "versionPriority": priority.map_or(VERSION_PRIORITY, |(_, _, priority)| *priority),
    });
    if !group.is_empty() {
        spec["group"] = json!(group);
    }
    Some(json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED.0: AUTOMANAGED.1}},
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_services_have_the_priorities_of_group_and_version() {
        for (group, version, name, priorities) in [
            ("", "v1", "v1.", (18_000, 1)),
            ("apps", "v1", "v1.apps", (17_800, 15)),
            ("autoscaling", "v2", "v2.autoscaling", (17_500, 30)),
            ("resource.k8s.io", "v1", "v1.resource.k8s.io", (16_200, 21)),
            ("resource.k8s.io", "v1beta2", "v1beta2.resource.k8s.io", (16_200, 15)),
            ("resource.k8s.io", "v1beta1", "v1beta1.resource.k8s.io", (16_200, 9)),
        ] {
            let object = api_service(group, version).unwrap();
            assert_eq!(meta::name(&object), name);
            let spec = &object["spec"];
            assert_eq!(spec["groupPriorityMinimum"], priorities.0, "{name}");
            assert_eq!(spec["versionPriority"], priorities.1, "{name}");
            assert_eq!(spec.get("group").is_some(), !group.is_empty(), "{name}");
        }
        assert_eq!(api_service("apiregistration.k8s.io", "v1"), None);
    }
}
