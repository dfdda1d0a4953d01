//! The steps of a rollout.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::scale::{max_unavailable, new_set_size};
use super::template::age_order;
use super::{Resize, Sets, available, replicas, size};

/// Returns the next step of a rolling update: scales the new set up as far as the surge allows; if that is not
/// possible, scales old sets down as far as availability allows.
pub(super) fn rolling_step<'a>(deployment: &Deployment, sets: &'a Sets) -> Vec<Resize<'a>> {
    let Some(new) = &sets.new else { return Vec::new() };
    let wanted = replicas(deployment);
    if size(new) != wanted {
        let to = if size(new) > wanted {
            wanted
        } else {
            new_set_size(deployment, sets.all().map(size).sum(), size(new))
        };
        if to != size(new) {
            return vec![Resize { set: new, to }];
        }
    }
    shrink_old(deployment, sets, new)
}

/// Scales old sets down: unhealthy pods first, then healthy pods of the oldest set.
fn shrink_old<'a>(deployment: &Deployment, sets: &'a Sets, new: &ReplicaSet) -> Vec<Resize<'a>> {
    let mut old: Vec<(&ReplicaSet, i32)> =
        sets.old.iter().map(|set| (set, size(set))).filter(|(_, size)| *size > 0).collect();
    if old.is_empty() {
        return Vec::new();
    }
    old.sort_by(|(a, _), (b, _)| age_order(&a.metadata, &b.metadata));
    let all: i32 = sets.all().map(size).sum();
    let min_available = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = size(new) - available(new);
    let unhealthy_room = all - min_available - new_unavailable;
    if unhealthy_room <= 0 {
        return Vec::new();
    }
    take_pods(&mut old, unhealthy_room, |set, size| size - available(set));
    let healthy_room = sets.all().map(available).sum::<i32>() - min_available;
    take_pods(&mut old, healthy_room, |_, size| size);
    old.retain(|(set, to)| size(set) != *to);
    old.into_iter().map(|(set, to)| Resize { set, to }).collect()
}

/// Removes pods from sets in order: at most `max_of(set, size)` from each, at most `limit` in total.
fn take_pods(sets: &mut [(&ReplicaSet, i32)], mut limit: i32, max_of: impl Fn(&ReplicaSet, i32) -> i32) {
    for (set, size) in sets {
        let taken = max_of(set, *size).min(limit).min(*size).max(0);
        *size -= taken;
        limit -= taken;
    }
}

/// The step of a `Recreate` rollout: scales all old sets to 0.
pub(super) fn scale_down_old(sets: &Sets) -> Vec<Resize<'_>> {
    sets.old.iter().filter(|set| size(set) > 0).map(|set| Resize { set, to: 0 }).collect()
}

/// Old sets beyond the history limit, oldest revision first. Excludes sets that have or will have pods.
pub(super) fn expired<'a>(deployment: &Deployment, old: &'a [ReplicaSet]) -> Vec<&'a ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return Vec::new() };
    let mut live: Vec<&ReplicaSet> =
        old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let excess = live.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    live.sort_by_key(|set| (super::revision::revision(set), set.metadata.creation_timestamp.clone()));
    live.truncate(excess);
    live.retain(|set| {
        let status = set.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
        size(set) == 0
            && status.is_none_or(|status| status.replicas == 0)
            && set.metadata.generation.unwrap_or(0) <= observed
    });
    live
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{deployment, rolling, set};
    use super::*;

    fn resized(sets: &Sets, deployment: &Deployment) -> Vec<(String, i32)> {
        let steps = rolling_step(deployment, sets).into_iter();
        steps.map(|resize| (resize.set.metadata.name.clone().unwrap(), resize.to)).collect()
    }

    #[test]
    fn rollout_respects_surge_and_availability() {
        let three = rolling(3, "25%", "25%");
        let sets = |new, old| Sets { new: Some(new), old: vec![old] };
        assert_eq!(resized(&sets(set("new", 0, 0), set("old", 3, 3)), &three), [("new".to_owned(), 1)]);
        assert_eq!(resized(&sets(set("new", 1, 0), set("old", 3, 3)), &three), []);
        assert_eq!(resized(&sets(set("new", 1, 1), set("old", 3, 3)), &three), [("old".to_owned(), 2)]);
        assert_eq!(resized(&sets(set("new", 3, 3), set("old", 0, 0)), &three), []);
        assert_eq!(resized(&sets(set("new", 4, 4), set("old", 0, 0)), &three), [("new".to_owned(), 3)]);
    }

    #[test]
    fn removes_unhealthy_old_pods_first() {
        // All pods of set "a" are broken and the new set is not available yet: unhealthy pods are removed up to the
        // surge in use.
        let sets = Sets { new: Some(set("new", 1, 0)), old: vec![set("a", 2, 0), set("b", 2, 2)] };
        assert_eq!(resized(&sets, &rolling(4, "1", "2")), [("a".to_owned(), 0)]);
    }

    #[test]
    fn expires_sets_without_pods_beyond_the_limit() {
        let mut deployment = deployment(1);
        deployment.spec.as_mut().unwrap().revision_history_limit = Some(1);
        let mut old: Vec<ReplicaSet> = ["a", "b", "c", "d"].iter().map(|name| set(name, 0, 0)).collect();
        for (place, set) in old.iter_mut().enumerate() {
            let pair = (super::super::revision::REVISION.to_owned(), (10 - place).to_string());
            set.metadata.annotations = Some([pair].into());
        }
        old[3].status.as_mut().unwrap().replicas = 1;
        let names: Vec<_> =
            expired(&deployment, &old).into_iter().map(|set| set.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["c", "b"]);
    }

    proptest::proptest! {
        /// The rollout respects both bounds and finishes, regardless of how fast pods become available.
        #[test]
        fn rollout_respects_its_bounds_and_finishes(
            wanted in 1..20_i32, surge in 0..5_i32, unavailable in 0..5_i32, paces in proptest::collection::vec(0..4, 1..40),
        ) {
            let deployment = rolling(wanted, &surge.to_string(), &unavailable.to_string());
            let (most, least) = (wanted + super::super::scale::max_surge(&deployment), wanted - max_unavailable(&deployment));
            let mut sets = Sets { new: Some(set("new", 0, 0)), old: vec![set("old", wanted, wanted)] };
            let mut paces = paces.into_iter().chain(std::iter::repeat(1));
            for _ in 0..500 {
                let steps: Vec<(String, i32)> = resized(&sets, &deployment);
                for (name, to) in steps {
                    let new = sets.new.iter_mut().chain(&mut sets.old);
                    for set in new.filter(|set| set.metadata.name.as_deref() == Some(&name)) {
                        set.spec.as_mut().unwrap().replicas = Some(to);
                        let status = set.status.as_mut().unwrap();
                        status.available_replicas = Some(status.available_replicas.unwrap_or(0).min(to));
                    }
                }
                let total: i32 = sets.all().map(size).sum();
                let up: i32 = sets.all().map(available).sum();
                proptest::prop_assert!(total <= most, "{total} pods of {most}");
                proptest::prop_assert!(up >= least, "{up} available of {least}");
                let new = sets.new.as_mut().unwrap();
                let (up, size) = (available(new), size(new));
                new.status.as_mut().unwrap().available_replicas = Some(size.min(up + paces.next().unwrap_or(1)));
            }
            let new = sets.new.as_ref().unwrap();
            proptest::prop_assert_eq!((size(new), available(new), size(&sets.old[0])), (wanted, wanted, 0));
        }
    }
}
