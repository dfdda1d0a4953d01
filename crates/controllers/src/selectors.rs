//! Label selectors of workloads: parsing, matching, and an index of objects by selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use nave_client::{Lister, Object};
use nave_machinery::selector::{self, Operator};
use serde_json::Value;

use crate::frame::SyncError;

/// Parses a workload's selector.
///
/// # Errors
/// The selector is invalid. Validation rejects such selectors.
pub fn parse(selector: &LabelSelector) -> Result<selector::LabelSelector, SyncError> {
    selector::LabelSelector::from_value(&serde_json::to_value(selector)?)
        .map_err(|error| SyncError::Invalid(error.to_string()))
}

/// Returns whether a selector matches an object's labels. An empty selector matches no object, so that a workload
/// never claims all pods in its namespace by mistake.
pub fn selects(selector: &selector::LabelSelector, object: &ObjectMeta) -> bool {
    !selector.is_empty() && selector.matches(|key| label(object.labels.as_ref(), key))
}

/// Returns the value of a label.
pub fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    labels?.get(key).map(String::as_str)
}

/// Formats a selector like Go's `%v`. Events and conditions show this format.
pub fn written_as_go(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|it| {
        let values = it.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", it.key, it.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

/// The form of a kind's `spec.selector`, and the meaning of an empty selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorForm {
    /// A map of labels. An empty map matches no object.
    Labels,
    /// A `metav1.LabelSelector`. An empty selector matches no object.
    Selector,
    /// A `metav1.LabelSelector`. An empty selector matches all objects in its namespace.
    SelectorOrAll,
}

impl SelectorForm {
    /// Reads the selector of an object without decoding the rest. `None` if the selector matches no object.
    fn read<K>(self, object: &Object<K>) -> Option<selector::LabelSelector> {
        let written: Value = serde_json::from_slice(object.json_at(&["spec", "selector"])?).ok()?;
        let read = match self {
            Self::Labels => selector::LabelSelector::from_value(&serde_json::json!({"matchLabels": written})),
            Self::Selector | Self::SelectorOrAll => selector::LabelSelector::from_value(&written),
        };
        read.ok().filter(|selector| self == Self::SelectorOrAll || !selector.is_empty())
    }
}

/// The name of the index.
const BY_SELECTOR: &str = "selector";

/// Finds the objects whose selector matches an object, with an index of the labels in selectors. A query does one
/// lookup per label of the object, and then checks the selectors it found.
pub struct SelectorIndex<O> {
    all: Lister<O>,
    form: SelectorForm,
}

impl<O: 'static> SelectorIndex<O> {
    /// Adds the index to the cache of `all`.
    pub fn new(all: Lister<O>, form: SelectorForm) -> Self {
        all.indexer().add_index(BY_SELECTOR, Arc::new(move |object| entries(object, form.read(object))));
        Self { all, form }
    }

    /// Returns the objects whose selector matches this object.
    pub fn selecting<K>(&self, object: &Object<K>) -> Vec<Object<O>> {
        if self.all.indexer().is_index_empty(BY_SELECTOR).unwrap_or(true) {
            return Vec::new();
        }
        let labels = object.labels().map(|(key, value)| entry(object.namespace(), key, value));
        let entries = labels.chain([anything(object.namespace())]);
        let mut found: Vec<_> =
            entries.flat_map(|entry| self.all.by_index(BY_SELECTOR, &entry).unwrap_or_default()).collect();
        found.retain(|it| self.form.read(it).is_some_and(|selector| object.is_selected_by(&selector)));
        found
    }
}

/// Returns the index entries for an object with a selector: the values of the selector's first `In` requirement.
fn entries<O>(object: &Object<O>, selector: Option<selector::LabelSelector>) -> Vec<String> {
    let Some(selector) = selector else { return Vec::new() };
    let requirement = selector.requirements().iter().find(|it| it.operator == Operator::In);
    match requirement {
        Some(it) => it.values.iter().map(|value| entry(object.namespace(), &it.key, value)).collect(),
        None => vec![anything(object.namespace())],
    }
}

fn entry(namespace: &str, key: &str, value: &str) -> String {
    [namespace, "/", key, "=", value].concat()
}

/// Returns the entry for selectors without an `In` requirement. Labels cannot have an empty key.
fn anything(namespace: &str) -> String {
    entry(namespace, "", "")
}

#[cfg(test)]
mod tests {
    use nave_client::Indexer;
    use serde_json::json;

    use super::*;

    fn names_of_matching(form: SelectorForm, selectors: &[Value], labels: &Value) -> Vec<String> {
        let cache = Arc::new(Indexer::new());
        let index = SelectorIndex::<Value>::new(Lister::new(Arc::clone(&cache)), form);
        for (at, selector) in selectors.iter().enumerate() {
            let metadata = json!({"name": at.to_string(), "namespace": "ns"});
            let object = Object::from_value(&json!({"metadata": metadata, "spec": {"selector": selector}}));
            cache.put(object.unwrap());
        }
        let object = json!({"metadata": {"name": "pod", "namespace": "ns", "labels": labels}});
        let object = Object::<Value>::from_value(&object).unwrap();
        let mut names: Vec<_> = index.selecting(&object).iter().map(|it| it.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn finds_matching_selectors_only() {
        let selectors = [
            json!({"matchLabels": {"app": "web"}}),
            json!({"matchLabels": {"app": "web", "tier": "back"}}),
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}),
            json!({"matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
            json!({}),
            Value::Null,
        ];
        let labels = json!({"app": "web", "tier": "front"});
        assert_eq!(names_of_matching(SelectorForm::Selector, &selectors, &labels), ["0", "2", "3"]);
        assert_eq!(names_of_matching(SelectorForm::SelectorOrAll, &selectors, &labels), ["0", "2", "3", "5"]);
        assert_eq!(names_of_matching(SelectorForm::SelectorOrAll, &selectors, &json!({})), ["3", "4", "5"]);
    }

    #[test]
    fn service_selector_is_a_map_of_labels() {
        let selectors = [json!({"app": "web"}), json!({"app": "db"}), json!({}), Value::Null];
        assert_eq!(names_of_matching(SelectorForm::Labels, &selectors, &json!({"app": "web"})), ["0"]);
    }
}
