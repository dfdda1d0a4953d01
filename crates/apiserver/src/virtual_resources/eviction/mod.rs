//! `pods/eviction`: deletes a pod unless a disruption budget forbids it (upstream: `EvictionREST`).
//!
//! If a budget selects the pod, the eviction is first recorded in the budget's status: one allowed disruption less, and
//! the pod is listed as disrupted. Concurrent evictions therefore succeed only as often as the budget allows.
//!
//! The eviction itself has been admitted. As upstream, its changes of the pod do not run admission again.

mod budget;

use async_trait::async_trait;
use nave_admission::Chain;
use nave_machinery::options::{DeleteOptions, UpdateOptions};
use nave_machinery::{
    FieldError, FieldPath, GroupKind, Object, Reason, Status, Value, conditions, meta, time,
};
use nave_resources::ResourceDef;
use serde_json::json;

use crate::endpoints::Endpoint;
use crate::endpoints::view::View;
use crate::endpoints::virtual_resource::{VirtualRequest, VirtualResource};
use crate::endpoints::write::{Change, Target, Write};
use crate::lifecycle;
use crate::storage::ResourceStorage;

/// Maximum number of attempts if the pod changes in the meantime.
const MAX_ATTEMPTS: usize = 20;

/// Evicts pods.
pub(super) struct Eviction;

#[async_trait]
impl VirtualResource for Eviction {
    async fn create(&self, request: &VirtualRequest<'_>, eviction: Value) -> Result<Value, Status> {
        if meta::name(&eviction) != request.name() {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = options(&eviction, request.options.dry_run)?;
        if let Some(pod) = evict_unguarded(request, &options).await? {
            evict_guarded(request, &pod, options).await?;
        }
        Ok(Status::success(201).to_value())
    }

    fn accepts(&self, api_version: &str) -> bool {
        api_version == "policy/v1beta1"
    }
}

/// Returns the options of the deletion. A dry run can be requested in the query or the body; if both are set, they must
/// agree.
fn options(eviction: &Value, dry_run: bool) -> Result<DeleteOptions, Status> {
    let body = eviction.get("deleteOptions").unwrap_or(&Value::Null);
    let ignore = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if body.get(ignore) == Some(&Value::Bool(true)) {
        let at = FieldPath::new("deleteOptions").child(ignore);
        let why = "can not be set for pod eviction, try after removing the option";
        let kind = GroupKind { group: "policy".to_owned(), kind: "Eviction".to_owned() };
        return Err(Status::invalid(&kind, meta::name(eviction), &[FieldError::invalid(&at, true, why)]));
    }
    let own = body.get("dryRun").and_then(Value::as_array).filter(|own| !own.is_empty());
    if let Some(own) = own.filter(|own| dry_run && **own != ["All"]) {
        let own: Vec<&str> = own.iter().filter_map(Value::as_str).collect();
        let why = "Non-matching dry-run options in request and content: [All] and";
        return Err(Status::failure(500, Reason::Unknown, format!("{why} [{}]", own.join(" "))));
    }
    let mut options = DeleteOptions::parse(&[], body)?;
    options.dry_run |= dry_run;
    Ok(options)
}

/// Deletes a pod whose deletion is not a disruption, regardless of budgets. Returns any other pod.
async fn evict_unguarded(
    request: &VirtualRequest<'_>,
    options: &DeleteOptions,
) -> Result<Option<Value>, Status> {
    let mut attempts = 1;
    loop {
        let pod = read_pod(request).await?;
        if is_disruption(&pod) {
            return Ok(Some(pod));
        }
        let mut exact = options.clone();
        // A pending pod may become ready before the deletion.
        if is_pending(&pod) && exact.preconditions.resource_version.is_none() {
            exact.preconditions.resource_version = Some(meta::resource_version(&pod).to_owned());
        }
        match remove_pod(request, exact).await {
            Err(status) if attempts < MAX_ATTEMPTS && is_race(&status, options) => attempts += 1,
            outcome => return outcome.map(|()| None),
        }
    }
}

/// Deletes a pod if the budgets that select it allow it.
async fn evict_guarded(
    request: &VirtualRequest<'_>,
    pod: &Value,
    options: DeleteOptions,
) -> Result<(), Status> {
    match budget::of_pod(request, pod).await?.as_slice() {
        [] => {}
        [budget] if budget::is_expendable(pod, budget) => {
            let mut exact = options.clone();
            exact.preconditions.resource_version = Some(meta::resource_version(pod).to_owned());
            return match remove_pod(request, exact).await {
                // The pod may have become ready, in which case the eviction must be counted.
                Err(status) if is_race(&status, &options) => Err(budget::unprocessed(meta::name(budget))),
                outcome => outcome,
            };
        }
        [budget] => budget::take(request, meta::name(budget), options.dry_run).await?,
        _ => {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::failure(500, Reason::Unknown, text));
        }
    }
    remove_pod(request, options).await
}

/// Returns whether a deletion failed because the pod has changed, and not because of the client's preconditions.
fn is_race(status: &Status, options: &DeleteOptions) -> bool {
    status.reason == Some(Reason::Conflict) && options.preconditions.resource_version.is_none()
}

async fn read_pod(request: &VirtualRequest<'_>) -> Result<Value, Status> {
    let storage = up_to_date(request.endpoint).await?;
    let found = storage.find(request.namespace(), request.name());
    let cached = found.ok_or_else(|| Status::not_found(&request.endpoint.resource(), request.name()))?;
    storage.codec().parse_cached(&cached)
}

/// Returns a resource's storage once its cache has caught up with all earlier writes.
async fn up_to_date(endpoint: &Endpoint) -> Result<&ResourceStorage, Status> {
    let storage = endpoint.storage()?;
    storage.wait_until(storage.current_revision().await?).await?;
    Ok(storage)
}

/// Returns whether the pod's deletion is a disruption: the pod is running and not being deleted.
fn is_disruption(pod: &Value) -> bool {
    let phase = meta::str_at(pod, &["status", "phase"]).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && meta::deletion_timestamp(pod).is_none()
}

fn is_pending(pod: &Value) -> bool {
    meta::str_at(pod, &["status", "phase"]) == Some("Pending") && meta::deletion_timestamp(pod).is_none()
}

/// Sets the `DisruptionTarget` condition in the pod's status and deletes the pod.
async fn remove_pod(request: &VirtualRequest<'_>, mut options: DeleteOptions) -> Result<(), Status> {
    let (name, unadmitted) = (request.name(), Chain::default());
    let pod = Target { admission: &unadmitted, ..request.target(request.endpoint, name) };
    if !options.dry_run {
        let status = Target { view: View::Status, ..pod.clone() };
        let mark = |pod: &Object| marked(&request.endpoint.def, pod, &options);
        let update = UpdateOptions::default();
        let marked =
            Write::new(&status, Change::ComputeUnowned(&mark), &update).run(name).await?.into_object();
        // The condition is the only change since the version in the preconditions.
        if let Some(version) = &mut options.preconditions.resource_version {
            meta::resource_version(&marked).clone_into(version);
        }
    }
    Write::delete(&pod, &options).run(name).await.map(drop)
}

/// Returns the pod with the `DisruptionTarget` condition.
///
/// # Errors
/// 409 if a precondition of the deletion fails, in which case the pod does not change.
fn marked(def: &ResourceDef, pod: &Object, options: &DeleteOptions) -> Result<Value, Status> {
    lifecycle::check_preconditions(def, pod.uid(), pod.resource_version(), options, pod.name())?;
    let mut pod = pod.as_value().clone();
    let condition = json!({"type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastTransitionTime": time::now().rfc3339()});
    conditions::set(&mut pod, condition);
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_pods_that_do_not_run_is_no_disruption() {
        let pod = |phase: &str| json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
        for (phase, disturbs) in
            [("Running", true), ("Pending", false), ("Failed", false), ("Succeeded", false)]
        {
            assert_eq!(is_disruption(&pod(phase)), disturbs, "{phase}");
        }
        let mut leaving = pod("Running");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_disruption(&leaving));
    }

    #[test]
    fn options_are_those_of_the_eviction_and_of_the_request() {
        let eviction = |options: Value| json!({"metadata": {"name": "p"}, "deleteOptions": options});
        assert!(options(&eviction(json!(null)), true).unwrap().dry_run);
        assert!(options(&eviction(json!({"dryRun": ["All"]})), false).unwrap().dry_run);
        let refused =
            options(&eviction(json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true})), false);
        assert_eq!(refused.unwrap_err().code, 422);
    }

    #[test]
    fn preconditions_are_checked_before_the_pod_is_marked() {
        let registry = nave_resources::Registry::builtin(nave_schema::builtin());
        let gvr = nave_machinery::GroupVersionResource::new("", "v1", "pods");
        let def = registry.lookup(&gvr).unwrap();
        let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"}});
        let pod = Object::try_from(pod).unwrap();
        let check = |preconditions: Value| {
            let eviction = json!({"deleteOptions": {"preconditions": preconditions}});
            marked(def, &pod, &options(&eviction, false).unwrap()).map_err(|status| status.message)
        };
        let marked = check(json!({"uid": "u", "resourceVersion": "7"})).unwrap();
        assert!(conditions::is_true(&marked, "DisruptionTarget"));
        let conflict = "Operation cannot be fulfilled on Pod \"p\": ";
        assert!(check(json!({"uid": "v"})).unwrap_err().starts_with(conflict));
        assert!(check(json!({"resourceVersion": "8"})).unwrap_err().starts_with(conflict));
    }
}
