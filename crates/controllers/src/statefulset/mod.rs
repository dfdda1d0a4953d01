//! Stateful sets: pods with a stable identity and their own claims, in order.
//!
//! | module | contents |
//! | --- | --- |
//! | [`identity`] | names, labels and volumes of pods |
//! | [`claims`] | the volume claims of pods, and their owners |
//! | [`plan`] | the pods to create, delete and correct |
//! | [`status`] | the status |
//! | [`sync`] | the sync |

mod claims;
mod identity;
mod plan;
mod status;
mod sync;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::expectations::Expectations;
use crate::frame::{Context, Descriptor, Workers};
use crate::owned::{self, DependentHandler};
use crate::selectors::{SelectorForm, SelectorIndex};

pub(crate) const STATEFUL_SET: Descriptor = Descriptor {
    name: "statefulset-controller",
    alias: "statefulset",
    service_account: "statefulset-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-statefulset-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, sets) = context.controller_for::<StatefulSet>("statefulset");
    let pods = builder.informer::<Pod>();
    let revisions = builder.informer::<ControllerRevision>();
    let claims = builder.informer::<PersistentVolumeClaim>();
    owned::index(&pods);
    owned::index(&revisions);
    let adopters = SelectorIndex::new(sets.lister(), SelectorForm::Selector);
    // A stale cache is harmless. Pod names are fixed, so a pod cannot be created twice, and deletions specify the
    // UID.
    let expectations = Arc::new(Expectations::default());
    let kind = ("apps", "StatefulSet");
    builder.add_handler(&pods, DependentHandler::new(builder.queue(), kind, adopters, expectations));
    builder.run(sync::Controller {
        client: context.client.clone(),
        events: context.events.clone(),
        sets: sets.lister(),
        pods: pods.lister(),
        revisions: revisions.lister(),
        claims: claims.lister(),
    })
}

fn spec_of(set: &StatefulSet) -> &StatefulSetSpec {
    static EMPTY: std::sync::LazyLock<StatefulSetSpec> = std::sync::LazyLock::new(StatefulSetSpec::default);
    set.spec.as_ref().unwrap_or(&EMPTY)
}

fn replicas(set: &StatefulSet) -> i32 {
    spec_of(set).replicas.unwrap_or(1)
}

/// Returns the ordinals of a set's pods.
fn ordinals(set: &StatefulSet) -> Range<i32> {
    let start = spec_of(set).ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start.saturating_add(replicas(set))
}

fn is_in_range(set: &StatefulSet, ordinal: i32) -> bool {
    ordinals(set).contains(&ordinal)
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use super::{ControllerRevision, Pod, StatefulSet, identity, spec_of};
    use crate::pods::fixtures::now;

    /// Creates a set whose pods have one claim each.
    pub(super) fn set(replicas: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"disk": "fast"}}, "spec": {}}],
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "containers": [{"name": "c", "image": "x"}],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}
        }))
        .unwrap()
    }

    /// Creates a pending pod of the set.
    pub(super) fn pod(set: &StatefulSet, ordinal: i32, revision: &str) -> Pod {
        let mut pod = identity::new_pod(set, &spec_of(set).template, revision, ordinal);
        pod.metadata.uid = Some(format!("uid-{ordinal}"));
        pod.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
        pod
    }

    /// Returns the pod, running and ready for this many seconds.
    pub(super) fn running(mut pod: Pod, ready_for: i64) -> Pod {
        let since = (now() - jiff::SignedDuration::from_secs(ready_for)).to_string();
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        pod.status = serde_json::from_value(json!({"phase": "Running", "conditions": ready})).unwrap();
        pod
    }

    /// Creates a revision of the set with this container image.
    pub(super) fn revision(name: &str, image: &str, number: i64) -> ControllerRevision {
        let template = json!({"$patch": "replace", "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "revision": number,
            "data": {"spec": {"template": template}}}))
        .unwrap()
    }
}
