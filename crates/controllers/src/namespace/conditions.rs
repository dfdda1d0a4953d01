//! The conditions of a terminating namespace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The progress of the deletion of a namespace's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The group versions for which discovery failed.
    pub(super) undiscovered: Vec<String>,
    /// The errors from deleting individual resources.
    pub(super) failures: Vec<String>,
    /// The number of remaining objects by resource and group.
    pub(super) remaining: BTreeMap<(String, String), usize>,
    /// The number of remaining objects by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// The estimated number of seconds until more objects are gone.
    pub(super) estimate_seconds: i64,
}

impl Progress {
    /// Returns whether all objects are gone and no step failed.
    pub(super) fn is_done(&self) -> bool {
        self.failures.is_empty() && self.undiscovered.is_empty() && self.remaining.is_empty()
    }

    /// Joins the errors for the log.
    pub(super) fn error(&self) -> Option<String> {
        let discovery = self.undiscovered.iter().map(|group| format!("cannot discover {group}"));
        let all: Vec<_> = discovery.chain(self.failures.iter().cloned()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Updates the status conditions; returns whether anything changed.
    pub(super) fn update_conditions(&self, status: &mut NamespaceStatus, now: Timestamp) -> bool {
        let mut changed = false;
        for condition in self.condition_states() {
            let conditions = status.conditions.get_or_insert_default();
            let status = if condition.trouble.is_some() { "True" } else { "False" };
            let (reason, message) = match &condition.trouble {
                Some(trouble) => (condition.bad, trouble.as_str()),
                None => (condition.good, condition.all_is_well),
            };
            let same = |old: &NamespaceCondition| {
                old.status == status
                    && old.reason.as_deref() == Some(reason)
                    && old.message.as_deref() == Some(message)
            };
            let at = conditions.iter().position(|old| old.type_ == condition.type_);
            if at.is_some_and(|at| same(&conditions[at])) {
                continue;
            }
            changed = true;
            let condition = NamespaceCondition {
                type_: condition.type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            };
            match at {
                Some(at) => conditions[at] = condition,
                None => conditions.push(condition),
            }
        }
        changed
    }

    fn condition_states(&self) -> [ConditionState; 5] {
        let some = |list: &[String], text: String| (!list.is_empty()).then_some(text);
        let undiscovered = format!(
            "Discovery failed for some groups, {} failing: {}",
            self.undiscovered.len(),
            self.undiscovered.join(", ")
        );
        let failures = format!(
            "Failed to delete all resource types, {} remaining: {}",
            self.failures.len(),
            self.failures.join(", ")
        );
        let remaining: Vec<_> = self
            .remaining
            .iter()
            .map(|((resource, group), count)| format!("{resource}.{group} has {count} resource instances"))
            .collect();
        let finalizers: Vec<_> = self
            .finalizers
            .iter()
            .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
            .collect();
        [
            ConditionState {
                type_: "NamespaceDeletionDiscoveryFailure",
                trouble: some(&self.undiscovered, undiscovered),
                bad: "DiscoveryFailed",
                good: "ResourcesDiscovered",
                all_is_well: "All resources successfully discovered",
            },
            ConditionState {
                // Always healthy: discovery returns group and version separately, so parsing cannot fail.
                type_: "NamespaceDeletionGroupVersionParsingFailure",
                trouble: None,
                bad: "GroupVersionParsingFailed",
                good: "ParsedGroupVersions",
                all_is_well: "All legacy kube types successfully parsed",
            },
            ConditionState {
                type_: "NamespaceDeletionContentFailure",
                trouble: some(&self.failures, failures),
                bad: "ContentDeletionFailed",
                good: "ContentDeleted",
                all_is_well: "All content successfully deleted, may be waiting on finalization",
            },
            ConditionState {
                type_: "NamespaceContentRemaining",
                trouble: some(&remaining, format!("Some resources are remaining: {}", remaining.join(", "))),
                bad: "SomeResourcesRemain",
                good: "ContentRemoved",
                all_is_well: "All content successfully removed",
            },
            ConditionState {
                type_: "NamespaceFinalizersRemaining",
                trouble: some(
                    &finalizers,
                    format!(
                        "Some content in the namespace has finalizers remaining: {}",
                        finalizers.join(", ")
                    ),
                ),
                bad: "SomeFinalizersRemain",
                good: "ContentHasNoFinalizers",
                all_is_well: "All content-preserving finalizers finished",
            },
        ]
    }
}

/// The desired state of a condition. `True` means a problem.
struct ConditionState {
    type_: &'static str,
    trouble: Option<String>,
    bad: &'static str,
    good: &'static str,
    all_is_well: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition_lines(progress: &Progress) -> Vec<String> {
        let mut status = NamespaceStatus::default();
        assert!(progress.update_conditions(&mut status, Timestamp::UNIX_EPOCH));
        assert!(!progress.update_conditions(&mut status, Timestamp::now()), "the same again changes nothing");
        let conditions = status.conditions.unwrap();
        let line = |it: NamespaceCondition| {
            format!("{} {} {}: {}", it.type_, it.status, it.reason.unwrap(), it.message.unwrap())
        };
        conditions.into_iter().map(line).collect()
    }

    #[test]
    fn all_five_conditions_are_set_without_problems() {
        let condition = condition_lines(&Progress::default());
        assert_eq!(condition.len(), 5);
        assert_eq!(
            condition[0],
            "NamespaceDeletionDiscoveryFailure False ResourcesDiscovered: All resources successfully discovered"
        );
        assert!(condition.iter().all(|line| line.contains(" False ")));
    }

    #[test]
    fn reports_remaining_objects_and_errors() {
        let progress = Progress {
            undiscovered: vec!["a.io/v1".to_owned()],
            failures: vec!["no".to_owned(), "never".to_owned()],
            remaining: [
                (("pods".to_owned(), String::new()), 2),
                (("things".to_owned(), "x.io".to_owned()), 1),
            ]
            .into(),
            finalizers: [("x.io/hold".to_owned(), 1)].into(),
            estimate_seconds: 15,
        };
        assert!(!progress.is_done());
        let condition = condition_lines(&progress);
        assert_eq!(
            condition[0],
            "NamespaceDeletionDiscoveryFailure True DiscoveryFailed: Discovery failed for some groups, 1 failing: a.io/v1"
        );
        assert_eq!(
            condition[2],
            "NamespaceDeletionContentFailure True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: no, never"
        );
        assert_eq!(
            condition[3],
            "NamespaceContentRemaining True SomeResourcesRemain: Some resources are remaining: pods. has 2 resource instances, things.x.io has 1 resource instances"
        );
        assert_eq!(
            condition[4],
            "NamespaceFinalizersRemaining True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances"
        );
        assert_eq!(progress.error().unwrap(), "cannot discover a.io/v1, no, never");
    }
}
