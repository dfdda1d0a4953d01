//! `pods/binding` and `bindings`: binds a pod to a node (upstream: `BindingREST`).

use async_trait::async_trait;
use nave_machinery::{
    FieldError, FieldPath, GroupResource, GroupVersionResource, Object, Reason, Status, Value, conditions,
    meta, time,
};
use nave_resources::pod::is_mirror;
use serde_json::{Map, json};

use crate::endpoints::virtual_resource::{VirtualRequest, VirtualResource};
use crate::endpoints::write::{Change, Write};

/// Binds pods to nodes.
pub(super) struct Binding;

#[async_trait]
impl VirtualResource for Binding {
    async fn create(&self, request: &VirtualRequest<'_>, binding: Value) -> Result<Value, Status> {
        let name = meta::name(&binding);
        if !request.name().is_empty() && request.name() != name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let errors = validate(&binding);
        if !errors.is_empty() {
            // Upstream returns a plain error here, which becomes a 500.
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let text = if errors.len() > 1 { format!("[{}]", errors.join(", ")) } else { errors.concat() };
            return Err(Status::failure(500, Reason::Unknown, text));
        }
        let pods = GroupVersionResource::new("", "v1", "pods");
        let endpoint = request.catalog.endpoint(&pods).ok_or_else(Status::no_such_path)?;
        let target = request.target(endpoint, name);
        let bind = |pod: &Object| {
            target.check_precondition("UID", meta::uid(&binding), pod.uid())?;
            let version = meta::resource_version(&binding);
            target.check_precondition("ResourceVersion", version, pod.resource_version())?;
            let bound = bound(pod.as_value(), &binding);
            bound.map_err(|why| Status::conflict(&GroupResource::new("", "pods/binding"), name, &why))
        };
        Write::new(&target, Change::Store(&bind), request.options).run(name).await?;
        Ok(Status::success(201).to_value())
    }
}

fn validate(binding: &Value) -> Vec<FieldError> {
    let target = FieldPath::new("target");
    let mut errors = Vec::new();
    let kind = meta::str_at(binding, &["target", "kind"]).unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if meta::str_at(binding, &["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}

/// Returns the pod with its node name, the labels and annotations of the binding, and the `PodScheduled` condition.
///
/// # Errors
/// The pod cannot be bound, for example because it is already bound.
fn bound(pod: &Value, binding: &Value) -> Result<Value, String> {
    let name = meta::name(pod);
    if meta::deletion_timestamp(pod).is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = meta::str_at(pod, &["spec", "nodeName"]).unwrap_or_default();
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if meta::value_at(pod, &["spec", "schedulingGates"])
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty())
    {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    if is_mirror(binding) {
        return Err(format!("pod {name} may not become a mirror pod"));
    }
    let mut pod = pod.clone();
    let given = |field| meta::field(binding, field).and_then(Value::as_object);
    merge(&mut pod, "annotations", given("annotations"));
    merge(&mut pod, "labels", given("labels"));
    pod["spec"]["nodeName"] = meta::value_at(binding, &["target", "name"]).cloned().unwrap_or_default();
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
    let now = time::now().rfc3339();
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    conditions::set(&mut pod, scheduled);
    Ok(pod)
}

/// Adds labels or annotations to the pod, replacing existing values.
fn merge(pod: &mut Value, field: &str, more: Option<&Map<String, Value>>) {
    let (Some(more), Some(metadata)) = (more, meta::metadata_mut(pod)) else { return };
    let entry = metadata.entry(field).or_insert_with(|| json!({}));
    let Some(fields) = entry.as_object_mut() else { return };
    fields.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "1"}, "spec": {}, "status": {"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}})
    }

    fn binding() -> Value {
        json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}})
    }

    #[test]
    fn a_pod_is_bound_once() {
        let bound_pod = bound(&pod(), &binding()).unwrap();
        assert_eq!(bound_pod["spec"]["nodeName"], "n");
        assert_eq!(bound_pod["metadata"]["annotations"], json!({"a": "b"}));
        let conditions = bound_pod["status"]["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[0]["status"]), (1, &json!("True")));
        assert!(bound(&bound_pod, &binding()).unwrap_err().contains("already assigned to node \"n\""));
    }

    #[test]
    fn labels_and_annotations_of_the_binding_override_the_pods() {
        let (mut pod, mut binding) = (pod(), binding());
        pod["metadata"]["labels"] = json!({"a": "own"});
        pod["metadata"]["annotations"] = json!({"a": "own"});
        binding["metadata"]["labels"] = json!({"a": "other", "zone": "z"});
        pod["status"]["nominatedNodeName"] = json!("other");
        let bound = bound(&pod, &binding).unwrap();
        assert_eq!(bound["metadata"]["labels"], json!({"a": "other", "zone": "z"}));
        assert_eq!(bound["metadata"]["annotations"], json!({"a": "b"}));
        assert!(bound["status"].get("nominatedNodeName").is_none());
    }

    #[test]
    fn rejects_pods_that_cannot_be_bound() {
        let refused = |change: fn(&mut Value, &mut Value), why: &str| {
            let (mut pod, mut binding) = (pod(), binding());
            change(&mut pod, &mut binding);
            let error = bound(&pod, &binding).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(|pod, _| pod["metadata"]["deletionTimestamp"] = json!("t"), "is being deleted");
        refused(|pod, _| pod["spec"]["schedulingGates"] = json!([{"name": "g"}]), "schedulingGates");
        refused(
            |_, binding| binding["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!(""),
            "mirror pod",
        );
        assert_eq!(validate(&binding()), []);
        let bad = validate(&json!({"target": {"kind": "Pod"}}));
        let fields: Vec<_> = bad.iter().map(|error| error.field.to_string()).collect();
        assert_eq!(fields, ["target.kind", "target.name"]);
    }
}
