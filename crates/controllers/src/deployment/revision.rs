//! The revision annotations that `kubectl rollout history` and `kubectl rollout undo` read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::scale::max_surge;

/// Annotation of a replica set: its revision; of a deployment: the current revision.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a replica set: its earlier revisions, before a rollback made it current again.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation of a replica set: the deployment's size when the set was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a replica set: the maximum number of pods of the deployment when the set was last scaled.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the deployment that are not copied to its replica sets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// The maximum length of the history annotation in bytes; longer histories lose their oldest revisions.
const HISTORY_MAX: usize = 2000;

/// A replica set's revision; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set.metadata.annotations.as_ref(), REVISION).unwrap_or(0)
}

/// A number in an annotation.
pub(super) fn number<N: std::str::FromStr>(
    annotations: Option<&BTreeMap<String, String>>,
    key: &str,
) -> Option<N> {
    annotations?.get(key)?.parse().ok()
}

/// The highest revision of the old sets plus one.
pub(super) fn next_revision(old: &[ReplicaSet]) -> i64 {
    old.iter().map(revision).max().unwrap_or(0) + 1
}

/// Sets the annotations of the current replica set; returns whether anything changed.
pub(super) fn annotate_new(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) -> bool {
    let before = set.metadata.annotations.clone();
    let annotations = set.metadata.annotations.get_or_insert_default();
    let copied = deployment.metadata.annotations.iter().flatten();
    annotations.extend(
        copied
            .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let old = annotations.get(REVISION).cloned();
    // Keeps a value that is not a number.
    if let Ok(old_number) = old.as_deref().unwrap_or("0").parse::<i64>()
        && old_number < revision
    {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            *history = append_revision(history, &old);
        }
    }
    let changed = before.as_ref() != Some(&*annotations);
    if annotations.is_empty() {
        set.metadata.annotations = before;
        return false;
    }
    changed
}

fn append_revision(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|part| !part.is_empty()).collect();
    all.push(revision);
    let mut length = all.iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    let mut first = 0;
    while length > HISTORY_MAX {
        length -= all[first].len() + 1;
        first += 1;
    }
    all[first..].join(",")
}

/// Sets the size annotations of a replica set; returns whether anything changed.
pub(super) fn annotate_size(set: &mut ReplicaSet, deployment: &Deployment) -> bool {
    let replicas = super::replicas(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED, replicas), (MAX, replicas + max_surge(deployment))] {
        let value = value.to_string();
        changed |= annotations.get(key) != Some(&value);
        annotations.insert(key.to_owned(), value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{deployment, set};
    use super::*;

    #[test]
    fn rolled_back_set_keeps_its_revision_history() {
        let mut set = set("a", 1, 1);
        let deployment = deployment(1);
        assert!(annotate_new(&mut set, &deployment, 1));
        assert!(!annotate_new(&mut set, &deployment, 1));
        assert!(annotate_new(&mut set, &deployment, 3));
        assert!(annotate_new(&mut set, &deployment, 5));
        let annotations = set.metadata.annotations.unwrap();
        assert_eq!((annotations[REVISION].as_str(), annotations[HISTORY].as_str()), ("5", "1,3"));
    }

    #[test]
    fn copies_annotations_of_the_deployment() {
        let mut deployment = deployment(1);
        let cause = ("kubernetes.io/change-cause".to_owned(), "because".to_owned());
        let applied = (NOT_COPIED[0].to_owned(), "{}".to_owned());
        deployment.metadata.annotations = Some([cause, applied].into());
        let mut set = set("a", 1, 1);
        assert!(annotate_new(&mut set, &deployment, 1));
        let keys: Vec<String> = set.metadata.annotations.unwrap().into_keys().collect();
        assert_eq!(keys, [REVISION, "kubernetes.io/change-cause"]);
    }

    #[test]
    fn long_histories_lose_their_oldest_revisions() {
        let long = (1000..1500).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let history = append_revision(&long, "1500");
        assert!(history.len() <= HISTORY_MAX && history.ends_with(",1500") && !history.starts_with("1000"));
        assert_eq!(append_revision("", "7"), "7");
    }
}
