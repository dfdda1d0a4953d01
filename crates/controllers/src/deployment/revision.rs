//! Revisions: the annotations by which `kubectl rollout history` and `rollout undo` find their way.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::scale::max_surge;

/// Which revision of the deployment a replica set is; on the deployment, which one it is at.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a replica set was before it became the newest again.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the replica set was last resized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods that the deployment could have when the replica set was last resized.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the deployment that say nothing of its replica sets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Longer histories lose their beginning.
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

/// The revision of a template that comes after all these.
pub(super) fn next(old: &[ReplicaSet]) -> i64 {
    old.iter().map(revision).max().unwrap_or(0) + 1
}

/// Gives the set of the present template what it must be annotated with; whether anything changed.
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
    // What is not a number was put there by someone else, and stays.
    if let Ok(old_number) = old.as_deref().unwrap_or("0").parse::<i64>()
        && old_number < revision
    {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            *history = extended(history, &old);
        }
    }
    let changed = before.as_ref() != Some(&*annotations);
    if annotations.is_empty() {
        set.metadata.annotations = before;
        return false;
    }
    changed
}

fn extended(history: &str, revision: &str) -> String {
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

/// Returns whether a set's annotations speak of the deployment's present size, and if not, makes them.
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
    fn a_template_that_comes_back_keeps_what_it_was() {
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
    fn annotations_of_the_deployment_reach_its_newest_set() {
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
    fn long_histories_lose_their_beginning() {
        let long = (1000..1500).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let history = extended(&long, "1500");
        assert!(history.len() <= HISTORY_MAX && history.ends_with(",1500") && !history.starts_with("1000"));
        assert_eq!(extended("", "7"), "7");
    }
}
