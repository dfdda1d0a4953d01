//! Table columns of the smaller core kinds.

use nave_machinery::Value;
use serde_json::json;

use crate::read;
use crate::table::{Column, abridged, age, containers, field, format_labels, length, name, number, text};

pub(super) fn component_status() -> Vec<Column> {
    vec![
        name(),
        text("Status", |object| match healthy(object) {
            None => "Unknown".to_owned(),
            Some(condition) if read::text(condition, "status") == "True" => "Healthy".to_owned(),
            Some(_) => "Unhealthy".to_owned(),
        })
        .about("The health of the component"),
        text("Message", |object| healthy(object).map_or("", |it| read::text(it, "message")).to_owned())
            .about("The message of the health check"),
        text("Error", |object| healthy(object).map_or("", |it| read::text(it, "error")).to_owned())
            .about("The error of the health check"),
    ]
}

fn healthy(object: &Value) -> Option<&Value> {
    read::list(object, "conditions").iter().find(|condition| read::text(condition, "type") == "Healthy")
}

pub(super) fn config_map() -> Vec<Column> {
    let size = |object: &Value, path| read::map(object, path).map_or(0, serde_json::Map::len);
    let data = Column::new("Data", move |object, _| json!(size(object, "data") + size(object, "binaryData")));
    vec![name(), data.described_by("core.v1.ConfigMap", "data"), age()]
}

pub(super) fn endpoints() -> Vec<Column> {
    vec![name(), text("Endpoints", addresses).described_by("core.v1.Endpoints", "subsets"), age()]
}

fn addresses(endpoints: &Value) -> String {
    let subsets = read::list(endpoints, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let (ports, addresses) = (read::list(subset, "ports"), read::list(subset, "addresses"));
        let ips = addresses.iter().map(|address| read::text(address, "ip"));
        if ports.is_empty() {
            all.extend(ips.clone().map(str::to_owned));
        }
        for port in ports {
            all.extend(ips.clone().map(|ip| host_port(ip, read::int(port, "port"))));
        }
    }
    abridged(&all, 3, ",")
}

fn host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) fn namespace() -> Vec<Column> {
    vec![name(), field("Status", "status.phase", "").about("The phase of the namespace"), age()]
}

pub(super) fn pod_template() -> Vec<Column> {
    let [names, images] = containers("template.spec.containers");
    let shown = |column: Column| column.with_priority(0);
    let labels = text("Pod Labels", |object| format_labels(read::map(object, "template.metadata.labels")));
    vec![name(), shown(names), shown(images), labels.about("The labels of pods from the template")]
}

pub(super) fn replication_controller() -> Vec<Column> {
    let [names, images] = containers("spec.template.spec.containers");
    let selector = text("Selector", |object| format_labels(read::map(object, "spec.selector"))).wide();
    vec![
        name(),
        number("Desired", "spec.replicas").described_by("core.v1.ReplicationControllerSpec", "replicas"),
        number("Current", "status.replicas").described_by("core.v1.ReplicationControllerStatus", "replicas"),
        number("Ready", "status.readyReplicas")
            .described_by("core.v1.ReplicationControllerStatus", "readyReplicas"),
        age(),
        names,
        images,
        selector.described_by("core.v1.ReplicationControllerSpec", "selector"),
    ]
}

pub(super) fn resource_quota() -> Vec<Column> {
    vec![
        name(),
        text("Request", |object| quota(object, false)).about("The usage and limit of requests"),
        text("Limit", |object| quota(object, true)).about("The usage and limit of limits"),
        age(),
    ]
}

/// Formats `name: used/hard`, either for limits or for all other resources.
fn quota(object: &Value, limits: bool) -> String {
    let hard = read::map(object, "status.hard").into_iter().flatten();
    let used = read::map(object, "status.used");
    let mut shown: Vec<String> = hard
        .filter(|(resource, _)| resource.contains("limits") == limits)
        .map(|(resource, hard)| {
            let used = used.and_then(|used| used.get(resource)).and_then(Value::as_str).unwrap_or("0");
            format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"))
        })
        .collect();
    shown.sort();
    shown.join(", ")
}

pub(super) fn secret() -> Vec<Column> {
    let data = length("Data", "data").of_kind("string");
    vec![
        name(),
        field("Type", "type", "").described_by("core.v1.Secret", "type"),
        data.described_by("core.v1.Secret", "data"),
        age(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_have_the_ports_of_their_subset() {
        for (subsets, shown) in [
            (json!([]), "<none>"),
            (
                json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]),
                "10.0.0.1:80,[fd00::1]:80",
            ),
            (json!([{"addresses": [{"ip": "10.0.0.1"}]}]), "10.0.0.1"),
            (json!([{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]), ""),
        ] {
            assert_eq!(addresses(&json!({"subsets": subsets})), shown);
        }
    }
}
