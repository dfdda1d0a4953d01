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

mod handler;
mod revision;
mod rolling;
mod scale;
mod status;
mod sync;
mod template;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use nave_client::{Workqueue, on_each};

use crate::frame::{Context, Descriptor, work};
use crate::owned;

/// Deployments.
pub(crate) const DEPLOYMENT: Descriptor = Descriptor {
    name: "deployment-controller",
    alias: "deployment",
    service_account: "deployment-controller",
    on_by_default: true,
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let deployments = context.informers.informer::<Deployment>();
    let (sets, pods) = (context.informers.informer::<ReplicaSet>(), context.informers.informer::<Pod>());
    owned::index(&sets);
    owned::index(&pods);
    let queue = Workqueue::new();
    let handlers = [
        deployments.add_event_handler(on_each({
            let queue = queue.clone();
            move |deployment| queue.add(deployment.key())
        })),
        sets.add_event_handler(handler::SetHandler::new(queue.clone(), deployments.lister())),
        pods.add_event_handler(handler::PodHandler::new(queue.clone(), sets.lister(), pods.lister())),
    ];
    let controller = sync::Controller {
        client: context.client.clone(),
        events: context.events.clone(),
        deployments: deployments.lister(),
        sets: sets.lister(),
        pods: pods.lister(),
    };
    let stop = context.stop.clone();
    async move {
        let synced = join_all(handlers.iter().map(nave_client::Registration::wait_for_sync));
        if stop.run_until_cancelled(synced).await.is_some() {
            work(&queue, stop, |key| controller.sync(key)).await;
        }
    }
    .boxed()
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
