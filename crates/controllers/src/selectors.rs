//! Label selectors of workloads, and labels held against them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use nave_machinery::selector;

use crate::frame::SyncError;

/// A workload's selector, read.
///
/// # Errors
/// What is no selector; the API refuses those.
pub fn parse(selector: &LabelSelector) -> Result<selector::LabelSelector, SyncError> {
    selector::LabelSelector::from_value(&serde_json::to_value(selector)?)
        .map_err(|error| SyncError::Invalid(error.to_string()))
}

/// Whether a selector selects an object by its labels. One without requirements selects nothing here: a workload
/// that would take every pod of its namespace is a mistake.
pub fn selects(selector: &selector::LabelSelector, object: &ObjectMeta) -> bool {
    !selector.is_empty() && selector.matches(|key| label(object.labels.as_ref(), key))
}

/// A label's value.
pub fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    labels?.get(key).map(String::as_str)
}
