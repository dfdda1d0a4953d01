//! Defaults of pods and of the pod specs in templates (upstream: `pkg/apis/core/v1/defaults.go`).

use nave_machinery::{Map, Value};
use serde_json::json;

use super::image;
use crate::defaults::{each, object, object_at, set, set_absent, set_number};

/// The default mode of files in volumes with API data: 0644.
const FILE_MODE: i64 = 0o644;

/// The default lifetime of a projected service account token, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// Sets the defaults of a pod: the spec's defaults and the defaults that do not apply to templates.
pub(crate) fn pod(pod: &mut Value) {
    let Some(pod) = pod.as_object_mut() else { return };
    if let Some(status) = object_at(pod, &["status"]) {
        addresses(status);
    }
    let Some(spec) = object(pod, "spec") else { return };
    pod_spec(spec);
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for kind in ["containers", "initContainers"] {
        for container in each(spec, kind) {
            if let Some(resources) = object_at(container, &["resources"]) {
                requests_from_limits(resources);
            }
            if on_host {
                host_ports(container);
            }
        }
    }
    super::pod_level::resources(spec);
    set(spec, "enableServiceLinks", true);
}

/// Synchronizes `podIP` with the first item of `podIPs`; `podIP` takes precedence.
fn addresses(status: &mut Map) {
    let first = status.get("podIPs").and_then(|ips| ips.get(0)?.get("ip")).cloned();
    match status.get("podIP").filter(|ip| *ip != "").cloned() {
        Some(ip) if first.as_ref() != Some(&ip) => {
            status.insert("podIPs".to_owned(), json!([{"ip": ip}]));
        }
        None if first.is_some() => {
            status.insert("podIP".to_owned(), first.unwrap_or_default());
        }
        _ => {}
    }
}

/// Sets the defaults of the pod template at `spec.template`.
pub(crate) fn template(object: &mut Value) {
    if let Some(spec) =
        object.as_object_mut().and_then(|object| object_at(object, &["spec", "template", "spec"]))
    {
        pod_spec(spec);
    }
}

/// Sets the defaults of a pod spec in a pod or template.
pub(crate) fn pod_spec(spec: &mut Map) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", 30);
    // Upstream replaces a negative grace period with 1 second.
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".to_owned(), Value::from(1));
    }
    object(spec, "securityContext");
    service_account(spec);
    super::each_container(spec, container);
    for it in each(spec, "volumes") {
        volume(it);
    }
}

/// Synchronizes the service account name with its legacy field.
fn service_account(spec: &mut Map) {
    let name = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|field| spec.get(*field).filter(|name| name.as_str().is_some_and(|name| !name.is_empty())));
    if let Some(name) = name.cloned() {
        spec.insert("serviceAccount".to_owned(), name.clone());
        spec.insert("serviceAccountName".to_owned(), name);
    }
}

fn container(container: &mut Map) {
    if container.get("imagePullPolicy").is_none_or(|policy| policy == "") {
        let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
        let policy = pull_policy(image);
        container.insert("imagePullPolicy".to_owned(), policy.into());
    }
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(it) = object_at(container, &[kind]) {
            probe(it);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = object_at(container, &["lifecycle", hook, "httpGet"]) {
            http_get(get);
        }
    }
    for variable in each(container, "env") {
        if let Some(reference) = object_at(variable, &["valueFrom", "fieldRef"]) {
            set(reference, "apiVersion", "v1");
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    if image::is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn probe(probe: &mut Map) {
    set_number(probe, "timeoutSeconds", 1);
    set_number(probe, "periodSeconds", 10);
    set_number(probe, "successThreshold", 1);
    set_number(probe, "failureThreshold", 3);
    if let Some(get) = object_at(probe, &["httpGet"]) {
        http_get(get);
    }
}

fn http_get(get: &mut Map) {
    set(get, "path", "/");
    set(get, "scheme", "HTTP");
}

/// Sets the defaults of a volume. A volume without a source becomes an `emptyDir`.
fn volume(volume: &mut Map) {
    if volume.iter().all(|(field, value)| field == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), Value::Object(Map::new()));
    }
    for (kind, source) in volume.iter_mut() {
        let Some(source) = source.as_object_mut() else { continue };
        match kind.as_str() {
            "secret" | "configMap" => set(source, "defaultMode", FILE_MODE),
            "downwardAPI" => {
                set(source, "defaultMode", FILE_MODE);
                downward_files(source);
            }
            "projected" => {
                set(source, "defaultMode", FILE_MODE);
                each(source, "sources").for_each(projection);
            }
            "hostPath" => host_path(source),
            "ephemeral" => {
                if let Some(claim) = object_at(source, &["volumeClaimTemplate", "spec"]) {
                    set_absent(claim, "volumeMode", "Filesystem");
                }
            }
            "image" if source.get("pullPolicy").is_none() => {
                let reference = source.get("reference").and_then(Value::as_str).unwrap_or_default();
                let policy = pull_policy(reference);
                source.insert("pullPolicy".to_owned(), policy.into());
            }
            _ => {}
        }
    }
}

/// Sets the default type of a host path: the empty string.
pub(crate) fn host_path(source: &mut Map) {
    set(source, "type", "");
}

fn projection(source: &mut Map) {
    if let Some(token) = object_at(source, &["serviceAccountToken"]) {
        set(token, "expirationSeconds", TOKEN_SECONDS);
    }
    if let Some(downward) = object_at(source, &["downwardAPI"]) {
        downward_files(downward);
    }
}

fn downward_files(source: &mut Map) {
    for file in each(source, "items") {
        if let Some(reference) = object_at(file, &["fieldRef"]) {
            set(reference, "apiVersion", "v1");
        }
    }
}

/// Sets missing requests from the limits.
fn requests_from_limits(resources: &mut Map) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object) else { return };
    let requests = resources.get("requests").and_then(Value::as_object);
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(name, _)| requests.is_none_or(|it| !it.contains_key(*name)))
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if let Some(requests) = (!missing.is_empty()).then(|| object(resources, "requests")).flatten() {
        requests.extend(missing);
    }
}

/// Sets the default host port for host networking: the container port.
fn host_ports(container: &mut Map) {
    for port in each(container, "ports") {
        if let Some(number) = port.get("containerPort").and_then(Value::as_i64) {
            set_number(port, "hostPort", number);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn negative_grace_period_becomes_the_shortest() {
        for (given, wanted) in [(json!(null), 30), (json!(-5), 1), (json!(0), 0), (json!(60), 60)] {
            let mut spec = Map::new();
            if !given.is_null() {
                spec.insert("terminationGracePeriodSeconds".to_owned(), given.clone());
            }
            pod_spec(&mut spec);
            assert_eq!(spec["terminationGracePeriodSeconds"], wanted, "{given}");
        }
    }
}
