//! `apiregistration.k8s.io`: API services, which register the group versions of aggregated servers.

mod strategy;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::{KeptMetadata, NameRule};
use crate::read;
use crate::table::{Column, age, name, text};

pub(crate) fn group() -> GroupBuilder {
    let api_services = resource("APIService", "apiservices")
        .cluster()
        .categories(&["api-extensions"])
        .prefix("apiregistration.k8s.io/apiservices")
        .status()
        .keeps_metadata(KeptMetadata::SETTABLE)
        // Names have the form `<version>.<group>`; `v1.` is the core group.
        .named(NameRule::PathSegment)
        .conditional_update()
        .columns(columns())
        .strategy(strategy::ApiServiceStrategy);
    declare("apiregistration.k8s.io", "io.k8s.kube-aggregator.pkg.apis.apiregistration", vec![api_services])
}

fn columns() -> Vec<Column> {
    vec![
        name(),
        text("Service", service).about("The service that serves the group version, or Local"),
        text("Available", available).about("The availability of the group version"),
        age(),
    ]
}

fn service(object: &Value) -> String {
    match read::value_at(object, "spec.service") {
        Some(service @ Value::Object(_)) => {
            format!("{}/{}", read::text(service, "namespace"), read::text(service, "name"))
        }
        _ => "Local".to_owned(),
    }
}

fn available(object: &Value) -> String {
    match read::condition(object, "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if read::text(condition, "status") == "True" => "True".to_owned(),
        Some(condition) => {
            format!("{} ({})", read::text(condition, "status"), read::text(condition, "reason"))
        }
    }
}
