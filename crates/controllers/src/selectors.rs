//! Label selectors of workloads: read, held against labels, and found by labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use nave_client::{Lister, Object};
use nave_machinery::selector::{self, Operator};
use serde_json::Value;

use crate::frame::SyncError;

/// A workload's selector, read.
///
/// # Errors
/// What is no selector; the API refuses those.
pub fn parse(selector: &LabelSelector) -> Result<selector::LabelSelector, SyncError> {
    selector::LabelSelector::from_value(&serde_json::to_value(selector)?)
        .map_err(|error| SyncError::Invalid(error.to_string()))
}

/// Returns whether a selector selects an object by its labels. One without requirements selects nothing here: a workload
/// that would take every pod of its namespace is a mistake.
pub fn selects(selector: &selector::LabelSelector, object: &ObjectMeta) -> bool {
    !selector.is_empty() && selector.matches(|key| label(object.labels.as_ref(), key))
}

/// A label's value.
pub fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    labels?.get(key).map(String::as_str)
}

/// A selector as Go prints it, which users find in events and conditions.
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

/// How a kind writes `spec.selector`, and what an empty one means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Labels and their values; none selects nothing.
    Labels,
    /// A `metav1.LabelSelector`; an empty one selects nothing.
    Selector,
    /// A `metav1.LabelSelector`; an empty one selects all of its namespace.
    SelectorOrAll,
}

impl Form {
    /// The selector of an object, read without the rest of it; `None` where it selects nothing.
    fn read<K>(self, object: &Object<K>) -> Option<selector::LabelSelector> {
        let written: Value = serde_json::from_slice(object.json_at(&["spec", "selector"])?).ok()?;
        let read = match self {
            Self::Labels => selector::LabelSelector::from_value(&serde_json::json!({"matchLabels": written})),
            Self::Selector | Self::SelectorOrAll => selector::LabelSelector::from_value(&written),
        };
        read.ok().filter(|selector| self == Self::SelectorOrAll || !selector.is_empty())
    }
}

/// The index of objects by what they select.
const BY_SELECTOR: &str = "selector";

/// Objects that select others by their labels, found by those labels: an object that nothing selects costs a look-up
/// for each of its labels, however many selectors there are.
pub struct Selecting<O> {
    all: Lister<O>,
    form: Form,
}

impl<O: 'static> Selecting<O> {
    /// Finds objects of this cache.
    pub fn new(all: Lister<O>, form: Form) -> Self {
        let index = move |object: &Object| entries(object, form.read(object));
        all.indexer().add_index(BY_SELECTOR, Arc::new(index));
        Self { all, form }
    }

    /// The objects that select this one.
    pub fn of<K>(&self, object: &Object<K>) -> Vec<Object<O>> {
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

/// What an object that selects is found by: the first label that it wants to have one of several values.
fn entries<O>(object: &Object<O>, selector: Option<selector::LabelSelector>) -> Vec<String> {
    let Some(selector) = selector else { return Vec::new() };
    let wants = selector.requirements().iter().find(|it| it.operator == Operator::In);
    match wants {
        Some(it) => it.values.iter().map(|value| entry(object.namespace(), &it.key, value)).collect(),
        None => vec![anything(object.namespace())],
    }
}

fn entry(namespace: &str, key: &str, value: &str) -> String {
    [namespace, "/", key, "=", value].concat()
}

/// Where those are found that no single label leads to. No key of a label is empty.
fn anything(namespace: &str) -> String {
    entry(namespace, "", "")
}

#[cfg(test)]
mod tests {
    use nave_client::Indexer;
    use serde_json::json;

    use super::*;

    fn found(form: Form, selectors: &[Value], labels: &Value) -> Vec<String> {
        let cache = Arc::new(Indexer::new());
        let selecting = Selecting::<Value>::new(Lister::new(Arc::clone(&cache)), form);
        for (at, selector) in selectors.iter().enumerate() {
            let metadata = json!({"name": at.to_string(), "namespace": "ns"});
            let object = Object::from_value(&json!({"metadata": metadata, "spec": {"selector": selector}}));
            cache.put(object.unwrap());
        }
        let object = json!({"metadata": {"name": "pod", "namespace": "ns", "labels": labels}});
        let object = Object::<Value>::from_value(&object).unwrap();
        let mut names: Vec<_> = selecting.of(&object).iter().map(|it| it.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn those_are_found_that_select_an_object_and_no_others() {
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
        assert_eq!(found(Form::Selector, &selectors, &labels), ["0", "2", "3"]);
        assert_eq!(found(Form::SelectorOrAll, &selectors, &labels), ["0", "2", "3", "5"]);
        assert_eq!(found(Form::SelectorOrAll, &selectors, &json!({})), ["3", "4", "5"]);
    }

    #[test]
    fn a_service_selects_by_labels_alone() {
        let selectors = [json!({"app": "web"}), json!({"app": "db"}), json!({}), Value::Null];
        assert_eq!(found(Form::Labels, &selectors, &json!({"app": "web"})), ["0"]);
    }
}
