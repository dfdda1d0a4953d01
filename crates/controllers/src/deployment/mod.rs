//! Deployments: replica sets that follow a template, one replacing the other step by step.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`template`] | which replica set has the present template, and what a new one looks like |
//! | [`revision`] | the annotations of revisions |
//! | [`scale`] | surge, unavailability, and how a new size is shared |
//! | [`rolling`] | the next step of a rollout, and which old sets to drop |
//! | [`status`] | numbers and conditions |
//! | [`sync`] | the sync that carries out what these decide |

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
use nave_client::{Lister, Object, ObjectName, on_delete};

use crate::expectations::Expectations;
use crate::frame::{Context, Descriptor, Workers};
use crate::owned::{self, DependentHandler};
use crate::selectors::{Form, Selecting};

/// Deployments.
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
    builder.work_on(&deployments);
    let adopters = Selecting::new(deployments.lister(), Form::Selector);
    // A cache that lags is no danger here: a set that was made already is made again under the same name.
    let expectations = Arc::new(Expectations::default());
    let kind = ("apps", "Deployment");
    builder.watch(&sets, DependentHandler::new(builder.queue(), kind, adopters, expectations));
    let (queue, all_sets, all_pods) = (builder.queue(), sets.lister(), pods.lister());
    builder.watch(
        &pods,
        on_delete(move |pod| {
            if let Some(deployment) = without_pods(pod, &all_sets, &all_pods) {
                queue.add(deployment);
            }
        }),
    );
    builder.run(sync::Controller {
        client: context.client.clone(),
        events: context.events.clone(),
        deployments: deployments.lister(),
        sets: sets.lister(),
        pods: pods.lister(),
    })
}

/// The deployment of a pod that was the last of its set: one that recreates waits for that.
fn without_pods(pod: &Object<Pod>, sets: &Lister<ReplicaSet>, pods: &Lister<Pod>) -> Option<ObjectName> {
    let set = owned::controller_of_kind(pod, "apps", "ReplicaSet")?;
    if !owned::by_controller(pods, set.uid).is_empty() {
        return None;
    }
    let set = sets.get_by_key(&owned::key_of(pod, &set))?;
    owned::key_of_controller(&set, "apps", "Deployment")
}

/// A deployment's replica sets.
#[derive(Clone, Debug, Default)]
struct Sets {
    /// The one with the present template.
    new: Option<ReplicaSet>,
    /// All others.
    old: Vec<ReplicaSet>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.new.iter().chain(&self.old)
    }
}

/// A replica set and the size it gets.
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
