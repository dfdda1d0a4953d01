//! `pods/eviction`: a deletion that a disruption budget can refuse (upstream: `EvictionREST`).
//!
//! A pod that a budget guards is deleted only after the eviction has been written into the budget's status: one
//! disruption less is allowed, and the pod stands among those that are about to go. Of evictions that come at the same
//! time only as many succeed as the budget has room for.

use async_trait::async_trait;
use nave_machinery::options::DeleteOptions;
use nave_machinery::selector::LabelSelector;
use nave_machinery::time::{self, Timestamp};
use nave_machinery::{GroupResource, GroupVersionResource, Status, Value, meta};
use nave_resources::{list_prefix, storage_key};
use serde_json::json;

use crate::endpoints::computed::{Computed, ComputedRequest};
use crate::endpoints::view::View;
use crate::endpoints::write::Target;
use crate::endpoints::{Endpoint, delete};
use crate::storage::{ResourceStorage, Stored, Update};

/// Evictions of a budget that may be under way at a time; more are a sign that nothing confirms them.
const MAX_DISRUPTED_PODS: usize = 2000;
/// Seconds after which it makes sense to ask again while a budget's status is behind its specification.
const RETRY_UNPROCESSED: u32 = 10;
/// The reason of the cause by which a client knows that a budget refused.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// The condition of a budget that says whether disruptions are allowed.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// Evicts a pod.
pub(super) struct Eviction;

#[async_trait]
impl Computed for Eviction {
    async fn create(&self, request: &ComputedRequest<'_>, eviction: Value) -> Result<Value, Status> {
        if meta::name(&eviction) != request.name() {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = options(&eviction, request.options.dry_run)?;
        let pod = read_pod(request).await?;
        if !is_disruption(&pod) {
            // Between this look and the deletion a pending pod may have become ready.
            if is_pending(&pod) && options.preconditions.resource_version.is_none() {
                options.preconditions.resource_version = Some(meta::resource_version(&pod).to_owned());
            }
            delete_pod(request, &options).await?;
            return Ok(Status::success(201).to_value());
        }
        match budgets_of(request, &pod).await?.as_slice() {
            [] => {}
            [budget] if is_expendable(&pod, budget) => {
                options.preconditions.resource_version = Some(meta::resource_version(&pod).to_owned());
            }
            [budget] => take_from_budget(request, meta::name(budget), options.dry_run).await?,
            _ => {
                let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::failure(500, nave_machinery::Reason::Unknown, text));
            }
        }
        if !options.dry_run {
            let revision = mark_pod(request, &options).await?;
            // The mark is the only change since the state that the client or this function has seen.
            if let Some(version) = &mut options.preconditions.resource_version {
                *version = revision.to_string();
            }
        }
        delete_pod(request, &options).await?;
        Ok(Status::success(201).to_value())
    }
}

/// The options of the deletion. A dry run asked for in one place is one, asked for in both it is the same one.
fn options(eviction: &Value, dry_run: bool) -> Result<DeleteOptions, Status> {
    let body = eviction.get("deleteOptions").unwrap_or(&Value::Null);
    let mut options = DeleteOptions::parse(&[], body)?;
    options.dry_run |= dry_run;
    Ok(options)
}

async fn read_pod(request: &ComputedRequest<'_>) -> Result<Value, Status> {
    let storage = up_to_date(request.endpoint).await?;
    let found = storage.find(request.namespace(), request.name());
    let cached = found.ok_or_else(|| Status::not_found(&request.endpoint.resource(), request.name()))?;
    storage.codec().parse_cached(&cached)
}

/// A resource's storage, whose cache has all that was written before the eviction.
async fn up_to_date(endpoint: &Endpoint) -> Result<&ResourceStorage, Status> {
    let storage = endpoint.storage()?;
    storage.wait_until(storage.current_revision().await?).await?;
    Ok(storage)
}

/// Whether the pod's deletion disturbs anything: it runs, and is not on its way out already.
fn is_disruption(pod: &Value) -> bool {
    let phase = meta::str_at(pod, &["status", "phase"]).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && meta::deletion_timestamp(pod).is_none()
}

fn is_pending(pod: &Value) -> bool {
    meta::str_at(pod, &["status", "phase"]) == Some("Pending") && meta::deletion_timestamp(pod).is_none()
}

/// Whether a budget lets a pod go that is not ready, without counting it.
fn is_expendable(pod: &Value, budget: &Value) -> bool {
    if condition(pod, "Ready").and_then(|ready| ready.get("status")) == Some(&json!("True")) {
        return false;
    }
    let always = meta::str_at(budget, &["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
    let desired = number(budget, "desiredHealthy");
    always || (desired > 0 && number(budget, "currentHealthy") >= desired)
}

/// The budgets that select a pod. One whose selector cannot be read selects nothing.
async fn budgets_of(request: &ComputedRequest<'_>, pod: &Value) -> Result<Vec<Value>, Status> {
    let Some(labels) = meta::labels(pod).filter(|labels| !labels.is_empty()) else { return Ok(Vec::new()) };
    let endpoint = budgets(request)?;
    let storage = up_to_date(endpoint).await?;
    let prefix = list_prefix(&endpoint.def, Some(request.namespace()))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut found = Vec::new();
    for cached in storage.cacher().snapshot().range(&prefix, None) {
        let budget = storage.codec().parse_cached(cached)?;
        let selector = meta::at(&budget, &["spec", "selector"]).map(LabelSelector::from_value);
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        if let Some(Ok(selector)) = selector
            && selector.matches(label)
        {
            found.push(budget);
        }
    }
    Ok(found)
}

fn budgets<'a>(request: &ComputedRequest<'a>) -> Result<&'a Endpoint, Status> {
    let budgets = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
    request.resources.endpoint(&budgets).ok_or_else(Status::no_such_path)
}

/// Writes the eviction into the budget's status.
async fn take_from_budget(request: &ComputedRequest<'_>, name: &str, dry_run: bool) -> Result<(), Status> {
    let endpoint = budgets(request)?;
    let take = |current: &Stored| {
        let budget = taken(current.object.as_value(), request.name(), time::now())?;
        Ok(if dry_run { Update::Keep(budget) } else { Update::Put(budget) })
    };
    update(endpoint, request.namespace(), name, take).await.map(drop)
}

/// The budget with one disruption less.
///
/// # Errors
/// 429 where no disruption is allowed, 403 where the status is not one that a controller writes.
fn taken(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = meta::name(budget);
    let refused = |message: &str, retry: u32| {
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        Status::too_many_requests(text, retry).with_cause(BUDGET_CAUSE, message, "")
    };
    let forbidden =
        |why: &str| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why);
    if number(budget, "observedGeneration") < meta::generation(budget) {
        let text = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&text, RETRY_UNPROCESSED));
    }
    let allowed = number(budget, "disruptionsAllowed");
    let disrupted = meta::at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if disrupted.is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        return Err(forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(refused(&why_none_is_allowed(budget), 0));
    }
    let mut budget = budget.clone();
    let observed = number(&budget, "observedGeneration");
    let status = &mut budget["status"];
    status["disruptionsAllowed"] = json!(allowed - 1);
    if allowed == 1 {
        let condition = json!({"type": DISRUPTION_ALLOWED, "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": observed, "lastTransitionTime": now.rfc3339()});
        set_condition(status, condition);
    }
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = json!(now.rfc3339());
    Ok(budget)
}

fn why_none_is_allowed(budget: &Value) -> String {
    let name = meta::name(budget);
    let text = |condition: &Value, field: &str| {
        condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    match condition(budget, DISRUPTION_ALLOWED) {
        Some(condition) if text(condition, "reason") == "SyncFailed" => {
            let why = text(condition, "message");
            format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
            )
        }
        _ => {
            let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
    }
}

/// Says in the pod's status why it goes; the answer is the revision.
async fn mark_pod(request: &ComputedRequest<'_>, options: &DeleteOptions) -> Result<u64, Status> {
    let mark = |current: &Stored| {
        check_preconditions(current.object.as_value(), options)?;
        let mut pod = current.object.as_value().clone();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            "lastTransitionTime": time::now().rfc3339()});
        if let Some(fields) = pod.as_object_mut() {
            set_condition(fields.entry("status").or_insert_with(|| json!({})), condition);
        }
        Ok(Update::Put(pod))
    };
    Ok(update(request.endpoint, request.namespace(), request.name(), mark).await?.revision)
}

/// The deletion's preconditions hold of the pod before it is marked, or nothing happens to it.
fn check_preconditions(pod: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let refuse = |what: &str, wanted: &str, found: &str, happened: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {happened}"
        );
        Err(Status::conflict(&GroupResource::new("", "pods"), meta::name(pod), &why))
    };
    let wanted = &options.preconditions;
    match (&wanted.uid, &wanted.resource_version) {
        (Some(uid), _) if !uid.is_empty() && uid != meta::uid(pod) => {
            refuse("UID", uid, meta::uid(pod), "deleted and then recreated")
        }
        (_, Some(version)) if !version.is_empty() && version != meta::resource_version(pod) => {
            refuse("ResourceVersion", version, meta::resource_version(pod), "modified")
        }
        _ => Ok(()),
    }
}

async fn delete_pod(request: &ComputedRequest<'_>, options: &DeleteOptions) -> Result<(), Status> {
    let target = Target {
        context: request.context,
        endpoint: request.endpoint,
        view: View::Object,
        namespace: request.namespace(),
        name: request.name(),
        admission: request.resources.admission(),
    };
    delete::delete(&target, options).await.map(drop)
}

async fn update<F>(endpoint: &Endpoint, namespace: &str, name: &str, change: F) -> Result<Stored, Status>
where
    F: FnMut(&Stored) -> Result<Update, Status> + Send,
{
    let storage: &ResourceStorage = endpoint.storage()?;
    let key = storage_key(&endpoint.def, Some(namespace), name)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(storage.guaranteed_update(&key, name, change).await?.stored)
}

fn number(budget: &Value, field: &str) -> i64 {
    meta::at(budget, &["status", field]).and_then(Value::as_i64).unwrap_or(0)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = meta::at(object, &["status", "conditions"])?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

/// Puts a condition in the place of the one of its type; its time stays if its status does.
fn set_condition(status: &mut Value, mut condition: Value) {
    let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let at = conditions.iter().position(|old| old.get("type") == condition.get("type"));
    match at {
        Some(at) => {
            if conditions[at].get("status") == condition.get("status") {
                condition["lastTransitionTime"] = conditions[at]["lastTransitionTime"].take();
            }
            conditions[at] = condition;
        }
        None => conditions.push(condition),
    }
    status["conditions"] = Value::Array(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {"minAvailable": 2}, "status": {
            "observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2 + allowed}})
    }

    fn pod(phase: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({"metadata": {"name": "p"}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn now() -> Timestamp {
        Timestamp::from_unix(0, 0).unwrap()
    }

    #[test]
    fn an_eviction_takes_one_disruption() {
        let left = taken(&budget(2), "p", now()).unwrap();
        assert_eq!(left["status"]["disruptionsAllowed"], 1);
        assert_eq!(left["status"]["disruptedPods"], json!({"p": "1970-01-01T00:00:00Z"}));
        assert!(left["status"].get("conditions").is_none());
        let left = taken(&left, "q", now()).unwrap();
        assert_eq!(left["status"]["disruptedPods"].as_object().unwrap().len(), 2);
        assert_eq!(condition(&left, DISRUPTION_ALLOWED).unwrap()["reason"], "InsufficientPods");
        let refused = taken(&left, "r", now()).unwrap_err();
        assert_eq!(refused.code, 429);
    }

    #[test]
    fn a_refusal_says_why() {
        let refused = |change: fn(&mut Value)| {
            let mut budget = budget(0);
            change(&mut budget);
            let status = taken(&budget, "p", now()).unwrap_err();
            (status.code, status.details.unwrap())
        };
        let (code, details) = refused(|_| {});
        assert_eq!((code, details.causes[0].reason.as_str()), (429, "DisruptionBudget"));
        assert_eq!(
            details.causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        let (_, details) = refused(|budget| budget["metadata"]["generation"] = json!(3));
        assert_eq!(details.retry_after_seconds, 10);
        assert!(details.causes[0].message.ends_with("is still being processed by the server."));
        let (_, details) = refused(|budget| {
            budget["status"]["conditions"] =
                json!([{"type": "DisruptionAllowed", "reason": "SyncFailed", "message": "no scale"}]);
        });
        assert!(details.causes[0].message.ends_with("because it failed sync: no scale"));
        assert_eq!(refused(|budget| budget["status"]["disruptionsAllowed"] = json!(-1)).0, 403);
    }

    #[test]
    fn pods_that_do_not_run_disturb_nothing() {
        for (phase, disturbs) in
            [("Running", true), ("Pending", false), ("Failed", false), ("Succeeded", false)]
        {
            assert_eq!(is_disruption(&pod(phase, true)), disturbs, "{phase}");
        }
        let mut leaving = pod("Running", true);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_disruption(&leaving));
    }

    #[test]
    fn a_pod_that_is_not_ready_may_go_by_the_budgets_policy() {
        let mut below = budget(0);
        below["status"]["currentHealthy"] = json!(1);
        let mut always = below.clone();
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        for (ready, budget, goes) in [
            (false, &budget(0), true),
            (true, &budget(0), false),
            (false, &below, false),
            (false, &always, true),
            (true, &always, false),
        ] {
            assert_eq!(is_expendable(&pod("Running", ready), budget), goes);
        }
    }

    #[test]
    fn preconditions_are_checked_before_the_pod_is_marked() {
        let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"}});
        let check = |preconditions: Value| {
            let eviction = json!({"deleteOptions": {"preconditions": preconditions}});
            check_preconditions(&pod, &options(&eviction, false).unwrap()).map_err(|status| status.code)
        };
        assert_eq!(check(json!({"uid": "u", "resourceVersion": "7"})), Ok(()));
        assert_eq!(check(json!({"uid": "v"})), Err(409));
        assert_eq!(check(json!({"resourceVersion": "8"})), Err(409));
    }
}
