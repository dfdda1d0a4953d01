//! `discovery.k8s.io`: endpoint slices.

mod strategy;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::read;
use crate::table::{Column, abridged, age, field, name, text};

pub(crate) fn group() -> GroupBuilder {
    let slices = resource("EndpointSlice", "endpointslices")
        .generation(&["addressType", "endpoints", "ports", "metadata.labels"])
        .columns(columns())
        .strategy(strategy::EndpointSliceStrategy);
    declare("discovery.k8s.io", "io.k8s.api.discovery", vec![slices])
}

fn columns() -> Vec<Column> {
    let slice = "discovery.v1.EndpointSlice";
    vec![
        name(),
        field("AddressType", "addressType", "").described_by(slice, "addressType"),
        text("Ports", ports).described_by(slice, "ports"),
        text("Endpoints", endpoints).described_by(slice, "endpoints"),
        age(),
    ]
}

fn ports(slice: &Value) -> String {
    let shown = read::list(slice, "ports").iter().map(|port| match read::value_at(port, "port") {
        Some(Value::Number(number)) => number.to_string(),
        _ => read::value_at(port, "name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    });
    first_of(&shown.collect::<Vec<_>>())
}

fn endpoints(slice: &Value) -> String {
    let addresses =
        read::list(slice, "endpoints").iter().flat_map(|endpoint| read::list(endpoint, "addresses"));
    first_of(&addresses.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
}

fn first_of(items: &[String]) -> String {
    if items.is_empty() { "<unset>".to_owned() } else { abridged(items, 3, ",") }
}
