//! Keeps the configuration of priority and fairness equal to the stored objects, and reports flow schemas whose priority
//! level does not exist (upstream: `apf_controller.go`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{CachedObject, Delivery};
use nave_flowcontrol::objects::{FlowSchemaSpec, PriorityLevelSpec};
use nave_flowcontrol::{Controller, Stored};
use nave_machinery::{GroupVersionResource, Status, time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

use crate::endpoints::Resources;
use crate::internal::InternalWriter;
use crate::storage::{Follower, Following, ResourceStorage, Storages};

/// The field manager of status conditions.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Pause after a round of writes, so that servers that disagree do not write without a break.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The resource of flow schemas.
pub(crate) const SCHEMAS: &str = "flowschemas";
/// The resource of priority levels.
pub(crate) const LEVELS: &str = "prioritylevelconfigurations";

/// Follows the stored objects.
pub(crate) struct FlowConfig {
    controller: Arc<Controller>,
    schemas: Arc<ResourceStorage>,
    levels: Arc<ResourceStorage>,
    changed: Arc<Notify>,
    _following: [Following; 2],
}

/// A stored object: its uid, and what the controller and the conditions need.
#[derive(Deserialize)]
#[serde(bound = "S: DeserializeOwned")]
struct StoredObject<S> {
    metadata: Metadata,
    spec: S,
    #[serde(default)]
    status: Conditions,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<String>,
    reason: String,
    message: String,
}

/// Wakes the task on each change.
struct Wake(Arc<Notify>);

impl Follower for Wake {
    fn replace(&self, _: &[Arc<CachedObject>]) {
        self.0.notify_one();
    }

    fn apply(&self, _: &[Delivery]) {
        self.0.notify_one();
    }
}

impl FlowConfig {
    /// Configures the controller with the stored objects, and starts to follow them; `None` if they are not served.
    pub(crate) fn start(controller: &Arc<Controller>, storages: &Storages) -> Option<Self> {
        let storage = |resource| {
            let gvr = GroupVersionResource::new("flowcontrol.apiserver.k8s.io", "v1", resource);
            storages.get(&gvr).map(Arc::clone)
        };
        let (schemas, levels) = (storage(SCHEMAS)?, storage(LEVELS)?);
        let changed = Arc::new(Notify::new());
        let follow = |storage: &ResourceStorage| {
            Following::start(Arc::clone(storage.cacher()), Arc::new(Wake(Arc::clone(&changed))))
        };
        let following = [follow(&schemas), follow(&levels)];
        let config = Self {
            controller: Arc::clone(controller),
            schemas,
            levels,
            changed: Arc::clone(&changed),
            _following: following,
        };
        config.sync();
        Some(config)
    }

    /// Follows the stored objects. Never returns.
    pub(crate) async fn run(&self, resources: &Resources) -> Infallible {
        loop {
            let mut pause = Duration::ZERO;
            for (name, condition) in self.sync() {
                pause = pause.max(PAUSE);
                match self.report(resources, &name, &condition).await {
                    Ok(()) => {}
                    // It was deleted.
                    Err(status) if status.code == 404 => {}
                    Err(status) => {
                        tracing::warn!(
                            name,
                            error = status.message,
                            "flow schema condition cannot be written"
                        );
                        pause = PAUSE_AFTER_FAILURE;
                        self.changed.notify_one();
                    }
                }
            }
            tokio::time::sleep(pause).await;
            self.changed.notified().await;
        }
    }

    /// Configures the controller. Returns the conditions to write, by the name of the flow schema.
    fn sync(&self) -> Vec<(String, Condition)> {
        let levels = objects::<PriorityLevelSpec>(&self.levels).into_iter().map(|(level, _)| level).collect();
        let (schemas, conditions): (Vec<_>, Vec<_>) =
            objects::<FlowSchemaSpec>(&self.schemas).into_iter().unzip();
        let named = |schema: &Stored<FlowSchemaSpec>| {
            (schema.name.clone(), schema.spec.priority_level_configuration.name.clone())
        };
        let names: Vec<_> = schemas.iter().map(named).collect();
        let found = self.controller.configure(levels, schemas);
        let wanted =
            names.into_iter().zip(found).map(|((name, level), found)| (name, dangling(&level, found)));
        wanted
            .zip(conditions)
            .filter_map(|((name, wanted), stored)| Some((name, stored.change(wanted)?)))
            .collect()
    }

    async fn report(&self, resources: &Resources, name: &str, condition: &Condition) -> Result<(), Status> {
        let catalog = resources.catalog();
        let gvr = GroupVersionResource::new("flowcontrol.apiserver.k8s.io", "v1", SCHEMAS);
        let Some(endpoint) = catalog.endpoint(&gvr) else { return Ok(()) };
        let writer = InternalWriter::new(endpoint, resources.admission()).with_field_manager(FIELD_MANAGER);
        let configuration = json!({
            "apiVersion": format!("{}/{}", gvr.group, gvr.version),
            "kind": "FlowSchema",
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        // Boxed, because the futures of writes are large.
        Box::pin(writer.apply_status(configuration)).await
    }
}

impl Conditions {
    /// Returns the condition to apply; `None` if it is stored. The time of the last transition changes with the status.
    fn change(&self, wanted: Condition) -> Option<Condition> {
        let stored = self.conditions.iter().find(|stored| stored.kind == wanted.kind);
        let since = stored
            .filter(|stored| stored.status == wanted.status)
            .and_then(|stored| stored.last_transition_time.clone())
            .unwrap_or_else(|| time::now().rfc3339());
        let wanted = Condition { last_transition_time: Some(since), ..wanted };
        (stored != Some(&wanted)).then_some(wanted)
    }
}

/// Returns the stored objects with their conditions.
fn objects<S: DeserializeOwned>(storage: &ResourceStorage) -> Vec<(Stored<S>, Conditions)> {
    let snapshot = storage.cacher().snapshot();
    let decode = |cached: &Arc<CachedObject>| {
        let name = cached.name().to_owned();
        match serde_json::from_slice::<StoredObject<S>>(&cached.json()) {
            Ok(StoredObject { metadata, spec, status }) => {
                Some((Stored { name, uid: metadata.uid, spec }, status))
            }
            Err(error) => {
                tracing::error!(key = %cached.key(), %error, "object cannot be used; flow control ignores it");
                None
            }
        }
    };
    snapshot.range("", None).filter_map(decode).collect()
}

/// Returns the condition of a schema whose level exists or does not.
fn dangling(level: &str, found: bool) -> Condition {
    let (status, reason, exists) =
        if found { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
    let link = if found { "and" } else { "but" };
    Condition {
        kind: "Dangling".to_owned(),
        status: status.to_owned(),
        last_transition_time: None,
        reason: reason.to_owned(),
        message: format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {link} {exists}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_applied_if_it_differs_and_keeps_the_time_of_its_status() {
        let stored = |level: &str, found: bool, time: Option<&str>| {
            let last_transition_time = time.map(str::to_owned);
            Conditions { conditions: vec![Condition { last_transition_time, ..dangling(level, found) }] }
        };
        let (wanted, then) = (dangling("a", true), "2001-02-03T04:05:06Z");
        assert_eq!(stored("a", true, Some(then)).change(wanted.clone()), None);
        let renamed = stored("b", true, Some(then)).change(wanted.clone()).unwrap();
        assert_eq!(renamed.last_transition_time.as_deref(), Some(then));
        for others in [Conditions::default(), stored("a", false, Some(then)), stored("a", true, None)] {
            let changed = others.change(wanted.clone()).unwrap();
            assert!(changed.last_transition_time.is_some_and(|time| time.as_str() > then));
        }
    }
}
