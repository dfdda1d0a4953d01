//! Disruption budgets: finds the budgets that select a pod, and records evictions in their status.

use nave_machinery::options::UpdateOptions;
use nave_machinery::selector::LabelSelector;
use nave_machinery::time::{self, Timestamp};
use nave_machinery::{GroupResource, GroupVersionResource, Object, Status, Value, conditions, meta};
use nave_resources::list_prefix;
use serde_json::json;

use super::up_to_date;
use crate::endpoints::Endpoint;
use crate::endpoints::view::View;
use crate::endpoints::virtual_resource::VirtualRequest;
use crate::internal::InternalWriter;

/// Maximum number of unconfirmed evictions per budget, as upstream. More mean that the controller does not confirm
/// evictions.
const MAX_DISRUPTED_PODS: usize = 2000;
/// Retry delay while a budget's status is older than its spec, in seconds.
const RETRY_UNPROCESSED: u32 = 10;
/// The type of the status cause for a refusal by a budget.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// The condition that tells whether disruptions are allowed.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// Returns the budgets that select a pod. An invalid selector matches no pods.
pub(super) async fn of_pod(request: &VirtualRequest<'_>, pod: &Value) -> Result<Vec<Value>, Status> {
    let Some(labels) = meta::labels(pod).filter(|labels| !labels.is_empty()) else { return Ok(Vec::new()) };
    let endpoint = endpoint(request)?;
    let storage = up_to_date(endpoint).await?;
    let prefix = list_prefix(&endpoint.def, Some(request.namespace()))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut found = Vec::new();
    for cached in storage.cacher().snapshot().range(&prefix, None) {
        let budget = storage.codec().parse_cached(cached)?;
        let selector = meta::value_at(&budget, &["spec", "selector"]).map(LabelSelector::from_value);
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        if let Some(Ok(selector)) = selector
            && selector.matches(label)
        {
            found.push(budget);
        }
    }
    Ok(found)
}

/// Returns whether a budget allows evicting a pod that is not ready without counting the eviction.
pub(super) fn is_expendable(pod: &Value, budget: &Value) -> bool {
    if conditions::is_true(pod, "Ready") {
        return false;
    }
    let always = meta::str_at(budget, &["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
    let desired = number(budget, "desiredHealthy");
    always || (desired > 0 && number(budget, "currentHealthy") >= desired)
}

/// Records the eviction of the request's pod in the budget's status, as the server's own user.
pub(super) async fn take(request: &VirtualRequest<'_>, budget: &str, dry_run: bool) -> Result<(), Status> {
    let endpoint = endpoint(request)?;
    let writer = InternalWriter::new(endpoint, request.resources.admission());
    let options = UpdateOptions { dry_run, ..UpdateOptions::default() };
    let take = |budget: &Object| taken(budget.as_value(), request.name(), time::now());
    writer.update(View::Status, (request.namespace(), budget), &options, &take).await.map(drop)
}

/// Returns 429: the budget's status does not tell yet whether the eviction is allowed.
pub(super) fn unprocessed(budget: &str) -> Status {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    refused(&why, RETRY_UNPROCESSED)
}

fn endpoint<'a>(request: &VirtualRequest<'a>) -> Result<&'a Endpoint, Status> {
    let budgets = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
    request.catalog.endpoint(&budgets).ok_or_else(Status::no_such_path)
}

fn refused(why: &str, retry_after_seconds: u32) -> Status {
    let text = "Cannot evict pod as it would violate the pod's disruption budget.";
    Status::too_many_requests(text, retry_after_seconds).with_cause(BUDGET_CAUSE, why, "")
}

/// Returns the budget with one allowed disruption less.
///
/// # Errors
/// 429 if no disruption is allowed, 403 if the status was not written by the controller.
fn taken(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = meta::name(budget);
    let forbidden =
        |why: &str| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why);
    if number(budget, "observedGeneration") < meta::generation(budget) {
        return Err(unprocessed(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    let disrupted = meta::value_at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
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
    if allowed == 1 {
        let observed = number(&budget, "observedGeneration");
        let condition = json!({"type": DISRUPTION_ALLOWED, "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": observed, "lastTransitionTime": now.rfc3339()});
        conditions::set(&mut budget, condition);
    }
    let status = &mut budget["status"];
    status["disruptionsAllowed"] = json!(allowed - 1);
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = json!(now.rfc3339());
    Ok(budget)
}

fn why_none_is_allowed(budget: &Value) -> String {
    let name = meta::name(budget);
    let condition = conditions::find(budget, DISRUPTION_ALLOWED);
    let text = |field: &str| condition.and_then(|it| it[field].as_str()).unwrap_or_default();
    let (status, reason, message) = (text("status"), text("reason"), text("message"));
    let says_why = status == "False" && !message.is_empty();
    let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
    let refuses = format!("The disruption budget {name} does not allow evicting pods currently");
    // The numbers are valid only if the last sync succeeded.
    if says_why && reason == "SyncFailed" {
        format!("{refuses} because it failed sync: {message}")
    } else if current <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    } else if says_why {
        format!("{refuses} ({reason}): {message}")
    } else {
        refuses
    }
}

fn number(budget: &Value, field: &str) -> i64 {
    meta::value_at(budget, &["status", field]).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {"minAvailable": 2}, "status": {
            "observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2 + allowed}})
    }

    fn now() -> Timestamp {
        Timestamp::from_unix(0, 0).unwrap()
    }

    #[test]
    fn an_eviction_uses_one_disruption() {
        let left = taken(&budget(2), "p", now()).unwrap();
        assert_eq!(left["status"]["disruptionsAllowed"], 1);
        assert_eq!(left["status"]["disruptedPods"], json!({"p": "1970-01-01T00:00:00Z"}));
        assert!(left["status"].get("conditions").is_none());
        let left = taken(&left, "q", now()).unwrap();
        assert_eq!(left["status"]["disruptedPods"].as_object().unwrap().len(), 2);
        assert_eq!(conditions::find(&left, DISRUPTION_ALLOWED).unwrap()["reason"], "InsufficientPods");
        let refused = taken(&left, "r", now()).unwrap_err();
        assert_eq!(refused.code, 429);
    }

    #[test]
    fn a_refusal_says_why() {
        const REFUSES: &str = "The disruption budget b does not allow evicting pods currently";
        let condition = |reason: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "no scale"}]);
        let cases: [(Value, u32, String); 5] = [
            (json!({}), 0, "The disruption budget b needs 2 healthy pods and has 2 currently".to_owned()),
            (
                json!({"conditions": condition("SyncFailed")}),
                0,
                format!("{REFUSES} because it failed sync: no scale"),
            ),
            (
                json!({"currentHealthy": 3, "conditions": condition("Other")}),
                0,
                format!("{REFUSES} (Other): no scale"),
            ),
            (json!({"currentHealthy": 3}), 0, REFUSES.to_owned()),
            (
                json!({"observedGeneration": 1}),
                10,
                "The disruption budget b is still being processed by the server.".to_owned(),
            ),
        ];
        for (status, retry, why) in cases {
            let mut budget = budget(0);
            for (field, value) in status.as_object().unwrap() {
                budget["status"][field] = value.clone();
            }
            let refused = taken(&budget, "p", now()).unwrap_err();
            let details = refused.details.unwrap();
            assert_eq!((refused.code, details.causes[0].reason.as_str()), (429, "DisruptionBudget"));
            assert_eq!((&details.causes[0].message, details.retry_after_seconds), (&why, retry));
        }
        assert_eq!(taken(&budget(-1), "p", now()).unwrap_err().code, 403);
    }

    #[test]
    fn unready_pods_are_evicted_by_the_budgets_policy() {
        let pod = |ready: bool| {
            let status = if ready { "True" } else { "False" };
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}})
        };
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
            assert_eq!(is_expendable(&pod(ready), budget), goes);
        }
    }
}
