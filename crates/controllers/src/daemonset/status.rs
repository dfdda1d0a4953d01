//! The status of a daemon set.

use k8s_openapi::api::apps::v1::DaemonSetStatus;
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Observed, age_order};
use super::pod::{Fit, is_updated};
use super::spec_of;
use crate::counts::omit_zero;
use crate::pods::{is_available, is_ready};

/// Returns the status after a sync. `synced` is true if the sync acted on the current generation.
pub(super) fn daemon_set_status(observed: &Observed<'_>, collisions: i32, synced: bool) -> DaemonSetStatus {
    let (set, old) = (observed.set, observed.set.status.clone().unwrap_or_default());
    let min_ready = spec_of(set).min_ready_seconds.unwrap_or(0);
    let (mut wanted, mut misplaced, mut pods) = (0, 0, Vec::new());
    for (node, fit) in observed.nodes {
        let oldest = observed.pods.get(node).and_then(|pods| pods.iter().min_by(|a, b| age_order(a, b)));
        match (fit, oldest) {
            (Fit::ShouldRun, oldest) => {
                wanted += 1;
                pods.extend(oldest);
            }
            (_, Some(_)) => misplaced += 1,
            (_, None) => {}
        }
    }
    let count = |matches: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| matches(pod)).count()).unwrap_or(i32::MAX)
    };
    let available = count(&|pod| is_available(pod, min_ready, observed.now));
    DaemonSetStatus {
        desired_number_scheduled: wanted,
        current_number_scheduled: count(&|_| true),
        number_misscheduled: misplaced,
        number_ready: count(&is_ready),
        number_available: omit_zero(available),
        number_unavailable: omit_zero(wanted - available),
        updated_number_scheduled: omit_zero(count(&|pod| is_updated(set, pod, observed.hash))),
        observed_generation: if synced { set.metadata.generation } else { old.observed_generation },
        collision_count: omit_zero(collisions),
        conditions: old.conditions,
    }
}
