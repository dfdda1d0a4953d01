//! What a namespace that is being deleted says about it, in its conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How far the deletion of a namespace's content is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Groups and versions whose resources could not be found out.
    pub(super) undiscovered: Vec<String>,
    /// What went wrong with the deletion of single resources.
    pub(super) failures: Vec<String>,
    /// Objects that are left, by resource and group.
    pub(super) remaining: BTreeMap<(String, String), usize>,
    /// Objects that are left, by the finalizer that keeps them.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// After so many seconds more may be gone.
    pub(super) estimate_seconds: i64,
}

impl Progress {
    /// Returns whether nothing is left, as far as could be seen.
    pub(super) fn is_done(&self) -> bool {
        self.failures.is_empty() && self.undiscovered.is_empty() && self.remaining.is_empty()
    }

    /// What went wrong, for the log.
    pub(super) fn error(&self) -> Option<String> {
        let discovery = self.undiscovered.iter().map(|group| format!("cannot discover {group}"));
        let all: Vec<_> = discovery.chain(self.failures.iter().cloned()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Puts what there is to say into the namespace's status; whether that changed it.
    pub(super) fn write_to(&self, status: &mut NamespaceStatus, now: Timestamp) -> bool {
        let mut changed = false;
        for told in self.told() {
            let conditions = status.conditions.get_or_insert_default();
            let status = if told.trouble.is_some() { "True" } else { "False" };
            let (reason, message) = match &told.trouble {
                Some(trouble) => (told.bad, trouble.as_str()),
                None => (told.good, told.all_is_well),
            };
            let same = |old: &NamespaceCondition| {
                old.status == status
                    && old.reason.as_deref() == Some(reason)
                    && old.message.as_deref() == Some(message)
            };
            let at = conditions.iter().position(|old| old.type_ == told.type_);
            if at.is_some_and(|at| same(&conditions[at])) {
                continue;
            }
            changed = true;
            let condition = NamespaceCondition {
                type_: told.type_.to_owned(),
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

    fn told(&self) -> [Told; 5] {
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
            Told {
                type_: "NamespaceDeletionDiscoveryFailure",
                trouble: some(&self.undiscovered, undiscovered),
                bad: "DiscoveryFailed",
                good: "ResourcesDiscovered",
                all_is_well: "All resources successfully discovered",
            },
            Told {
                // Discovery names groups and versions apart: there is nothing that could be misread.
                type_: "NamespaceDeletionGroupVersionParsingFailure",
                trouble: None,
                bad: "GroupVersionParsingFailed",
                good: "ParsedGroupVersions",
                all_is_well: "All legacy kube types successfully parsed",
            },
            Told {
                type_: "NamespaceDeletionContentFailure",
                trouble: some(&self.failures, failures),
                bad: "ContentDeletionFailed",
                good: "ContentDeleted",
                all_is_well: "All content successfully deleted, may be waiting on finalization",
            },
            Told {
                type_: "NamespaceContentRemaining",
                trouble: some(&remaining, format!("Some resources are remaining: {}", remaining.join(", "))),
                bad: "SomeResourcesRemain",
                good: "ContentRemoved",
                all_is_well: "All content successfully removed",
            },
            Told {
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

/// A condition: true if there is trouble.
struct Told {
    type_: &'static str,
    trouble: Option<String>,
    bad: &'static str,
    good: &'static str,
    all_is_well: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(progress: &Progress) -> Vec<String> {
        let mut status = NamespaceStatus::default();
        assert!(progress.write_to(&mut status, Timestamp::UNIX_EPOCH));
        assert!(!progress.write_to(&mut status, Timestamp::now()), "the same again changes nothing");
        let conditions = status.conditions.unwrap();
        let line = |it: NamespaceCondition| {
            format!("{} {} {}: {}", it.type_, it.status, it.reason.unwrap(), it.message.unwrap())
        };
        conditions.into_iter().map(line).collect()
    }

    #[test]
    fn all_five_conditions_say_when_all_is_well() {
        let told = told(&Progress::default());
        assert_eq!(told.len(), 5);
        assert_eq!(
            told[0],
            "NamespaceDeletionDiscoveryFailure False ResourcesDiscovered: All resources successfully discovered"
        );
        assert!(told.iter().all(|line| line.contains(" False ")));
    }

    #[test]
    fn what_is_left_and_what_failed_is_told() {
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
        let told = told(&progress);
        assert_eq!(
            told[0],
            "NamespaceDeletionDiscoveryFailure True DiscoveryFailed: Discovery failed for some groups, 1 failing: a.io/v1"
        );
        assert_eq!(
            told[2],
            "NamespaceDeletionContentFailure True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: no, never"
        );
        assert_eq!(
            told[3],
            "NamespaceContentRemaining True SomeResourcesRemain: Some resources are remaining: pods. has 2 resource instances, things.x.io has 1 resource instances"
        );
        assert_eq!(
            told[4],
            "NamespaceFinalizersRemaining True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances"
        );
        assert_eq!(progress.error().unwrap(), "cannot discover a.io/v1, no, never");
    }
}
