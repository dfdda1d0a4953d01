//! Deployments: replica sets that follow a template, one replacing the other step by step.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`template`] | which replica set has the present template, and what a new one looks like |
//! | [`revision`] | the annotations of revisions |
//! | [`scale`] | surge, unavailability, and how a new size is shared |
//! | [`rolling`] | the next step of a rollout, and which old sets to drop |
//! | [`status`] | numbers and conditions |

mod revision;
mod rolling;
mod scale;
mod status;
mod template;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

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
#[derive(Debug)]
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
