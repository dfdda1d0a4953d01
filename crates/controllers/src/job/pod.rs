//! Pods of jobs.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::manage::NewPod;
use super::{INDEX, INDEX_FAILURES, TRACKING, spec};
use crate::{owners, pods};

/// Environment variable with the pod's completion index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The maximum length of a host name, which is a DNS label.
const HOSTNAME_MAX: usize = 63;

/// Creates a pod of a job from its template.
pub(super) fn new_pod(job: &Job, new: NewPod) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let reference = owners::controller_reference("batch/v1", "Job", &job.metadata);
    let mut pod = pods::from_template(&spec(job).template, namespace, name, reference);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(index) = new.index {
        set_index(&mut pod, name, index);
    }
    if let Some(failures) = new.failures {
        pod.metadata
            .annotations
            .get_or_insert_default()
            .insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    pod
}

/// Sets a pod's index: as annotation, label, name, host name, and environment variable of all its containers.
fn set_index(pod: &mut Pod, job: &str, index: i32) {
    let metadata = &mut pod.metadata;
    metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    metadata.generate_name = Some(format!("{job}-{index}-"));
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname =
        Some(format!("{job}-{index}")).filter(|name| name.len() <= HOSTNAME_MAX).or(spec.hostname.take());
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        add_variable(container);
    }
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == VARIABLE) {
        return;
    }
    let field_path = format!("metadata.labels['{INDEX}']");
    let field_ref = ObjectFieldSelector { api_version: None, field_path };
    let source = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    variables.push(EnvVar { name: VARIABLE.to_owned(), value: None, value_from: Some(source) });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::job;
    use super::*;

    #[test]
    fn pod_has_finalizer_and_index() {
        let plain = new_pod(&job(&json!({})), NewPod::default());
        assert_eq!(plain.metadata.finalizers.unwrap(), [TRACKING]);
        assert_eq!(plain.metadata.generate_name.as_deref(), Some("sum-"));

        let pod = new_pod(&job(&json!({})), NewPod { index: Some(7), failures: Some(2) });
        let (annotations, labels) = (pod.metadata.annotations.unwrap(), pod.metadata.labels.unwrap());
        assert_eq!((annotations[INDEX].as_str(), annotations[INDEX_FAILURES].as_str()), ("7", "2"));
        assert_eq!(labels[INDEX], "7");
        let spec = pod.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("sum-7"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, VARIABLE);
    }
}
