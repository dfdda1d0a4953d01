//! Deployments: roll out pod templates by scaling replica sets up and down.
//!
//! | module | contents |
//! | --- | --- |
//! | [`template`] | the replica set of the current template |
//! | [`revision`] | the revision annotations |
//! | [`scale`] | surge, unavailability, and proportional scaling |
//! | [`rolling`] | the next step of a rollout, and expired old sets |
//! | [`status`] | the status and its conditions |
//! | [`sync`] | the sync |

mod revision;
mod rolling;
mod scale;
mod status;
mod sync;
mod template;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use nave_client::{Lister, Object, ObjectName};

use crate::expectations::Expectations;
use crate::frame::{Context, Descriptor, Workers};
use crate::owned::{self, DependentHandler};
use crate::selectors::{SelectorForm, SelectorIndex};

pub(crate) const DEPLOYMENT: Descriptor = Descriptor {
    name: "deployment-controller",
    alias: "deployment",
    service_account: "deployment-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-deployment-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("deployment");
    let deployments = builder.informer::<Deployment>();
    let (sets, pods) = (builder.informer::<ReplicaSet>(), builder.informer::<Pod>());
    owned::index(&sets);
    owned::index(&pods);
    builder.enqueue_objects(&deployments);
    let adopters = SelectorIndex::new(deployments.lister(), SelectorForm::Selector);
    // No creations are expected: the name of a replica set is deterministic, so a stale cache cannot cause a duplicate.
    let expectations = Arc::new(Expectations::default());
    let kind = ("apps", "Deployment");
    builder.add_handler(&sets, DependentHandler::new(builder.queue(), kind, adopters, expectations));
    let (all_sets, all_pods) = (sets.lister(), pods.lister());
    builder.enqueue_mapped_on_delete(&pods, move |pod| deployment_without_pods(pod, &all_sets, &all_pods));
    builder.run(sync::Controller {
        client: context.client.clone(),
        events: context.events.clone(),
        deployments: deployments.lister(),
        sets: sets.lister(),
        pods: pods.lister(),
    })
}

/// The deployment of a deleted pod, if it uses the `Recreate` strategy and has no pods left.
fn deployment_without_pods(
    pod: &Object<Pod>,
    sets: &Lister<ReplicaSet>,
    pods: &Lister<Pod>,
) -> Option<ObjectName> {
    let set = owned::controller_of_kind(pod, "apps", "ReplicaSet")?;
    if !owned::by_controller(pods, set.uid).is_empty() {
        return None;
    }
    let set = sets.get_by_key(&owned::key_of(pod, &set))?;
    owned::key_of_controller(&set, "apps", "Deployment")
}

#[derive(Clone, Debug, Default)]
struct Sets {
    /// The set with the current template.
    new: Option<ReplicaSet>,
    /// All other sets.
    old: Vec<ReplicaSet>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.new.iter().chain(&self.old)
    }
}

/// A replica set and its new size.
#[derive(Clone, Copy, Debug)]
struct Resize<'a> {
    set: &'a ReplicaSet,
    to: i32,
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use super::{Deployment, ReplicaSet};

    pub(super) fn deployment(replicas: i32) -> Deployment {
        rolling(replicas, "25%", "25%")
    }

    pub(super) fn rolling(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        let value = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(unavailable)}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}
        }))
        .unwrap()
    }

    pub(super) fn set(name: &str, replicas: i32, available: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available,
                "observedGeneration": 1}
        }))
        .unwrap()
    }
}
