//! The pod failure policy and success policy of a job.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::pods::{condition, phase};

/// Returns whether a failed pod counts towards the backoff limit.
pub(super) fn counts_towards_backoff_limit(spec: &JobSpec, pod: &Pod) -> bool {
    matching(spec, pod).is_none_or(|(_, rule, _)| rule.action != "Ignore")
}

/// Returns whether a failed pod makes its index fail immediately.
pub(super) fn fails_index(spec: &JobSpec, pod: &Pod) -> bool {
    spec.backoff_limit_per_index.is_some()
        && matching(spec, pod).is_some_and(|(_, rule, _)| rule.action == "FailIndex")
}

/// The message of the rule by which a failed pod fails the whole job.
pub(super) fn fails_job(spec: &JobSpec, pod: &Pod) -> Option<String> {
    let (place, rule, what) = matching(spec, pod)?;
    let what = match what {
        Cause::Exit { container, code } => {
            format!("Container {container} for pod {} failed with exit code {code}", full_name(pod))
        }
        Cause::Condition(type_) => format!("Pod {} has condition {type_}", full_name(pod)),
    };
    (rule.action == "FailJob").then(|| format!("{what} matching {} rule at index {place}", rule.action))
}

/// The position of the first success policy rule that these indexes satisfy.
pub(super) fn satisfied_rule(spec: &JobSpec, succeeded: &Indexes) -> Option<usize> {
    let completions = spec.completions.unwrap_or(0);
    spec.success_policy.as_ref()?.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let done = wanted.iter().filter(|index| succeeded.contains(*index)).count();
            i32::try_from(done).is_ok_and(|done| done >= rule.succeeded_count.unwrap_or(wanted.len()))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    })
}

enum Cause<'a> {
    Exit { container: &'a str, code: i32 },
    Condition(&'a str),
}

/// The first rule that a failed pod matches, its position, and the match.
fn matching<'a>(spec: &'a JobSpec, pod: &'a Pod) -> Option<(usize, &'a PodFailurePolicyRule, Cause<'a>)> {
    let policy = spec.pod_failure_policy.as_ref().filter(|_| phase(pod) == "Failed")?;
    policy.rules.iter().enumerate().find_map(|(place, rule)| {
        let cause = match &rule.on_exit_codes {
            Some(requirement) => exit_code(requirement, pod),
            None => rule.on_pod_conditions.iter().flatten().find_map(|pattern| {
                let found = condition(pod, &pattern.type_)?;
                let wanted = pattern.status.as_deref().unwrap_or("True");
                (found.status == wanted).then_some(Cause::Condition(&pattern.type_))
            }),
        };
        Some((place, rule, cause?))
    })
}

fn exit_code<'a>(requirement: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<Cause<'a>> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    all.filter(|container| requirement.container_name.as_ref().is_none_or(|name| *name == container.name))
        .find_map(|container| {
            let code = ended_with(container)?;
            let listed = requirement.values.contains(&code);
            let matches = listed == (requirement.operator == "In");
            (code != 0 && matches).then_some(Cause::Exit { container: &container.name, code })
        })
}

fn ended_with(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn full_name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{job, pod};
    use super::*;

    fn failed(code: i32) -> Pod {
        let mut pod = pod("a", "Failed");
        pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(json!([
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code}}}
        ]))
        .unwrap();
        pod
    }

    #[test]
    fn first_matching_rule_applies() {
        let job = job(&json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
            {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1]}}
        ]}}));
        let spec = job.spec.as_ref().unwrap();
        assert_eq!(
            fails_job(spec, &failed(42)).as_deref(),
            Some("Container c for pod default/a failed with exit code 42 matching FailJob rule at index 1")
        );
        assert!(
            counts_towards_backoff_limit(spec, &failed(42))
                && counts_towards_backoff_limit(spec, &failed(1))
                && !counts_towards_backoff_limit(spec, &failed(2))
        );
        assert_eq!(fails_job(spec, &failed(1)), None);
        let mut disrupted = failed(42);
        disrupted.status.as_mut().unwrap().conditions =
            serde_json::from_value(json!([{"type": "DisruptionTarget", "status": "True"}])).unwrap();
        assert!(fails_job(spec, &disrupted).is_none() && !counts_towards_backoff_limit(spec, &disrupted));
    }

    #[test]
    fn success_policy_requires_indexes_or_count() {
        let job = job(&json!({"completions": 9, "completionMode": "Indexed", "successPolicy": {"rules": [
            {"succeededIndexes": "0,2-3"}, {"succeededCount": 5}, {"succeededIndexes": "6-8", "succeededCount": 1}
        ]}}));
        let rule = |text: &str| satisfied_rule(job.spec.as_ref().unwrap(), &Indexes::parse(text, 9));
        assert_eq!(rule("0,2"), None);
        assert_eq!(rule("0,2,3"), Some(0));
        assert_eq!(rule("1-5"), Some(1));
        assert_eq!(rule("7"), Some(2));
    }
}
