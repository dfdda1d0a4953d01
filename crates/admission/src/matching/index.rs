//! The index of criteria by resource, group, operation and a label that they require.

use std::collections::{BTreeMap, HashMap};

use super::criteria::{Criteria, Place, RequiredLabel};
use super::rules::{Rule, split};
use crate::attributes::{Attributes, Operation};

/// Finds the criteria that may match a request. Its cost does not depend on the number of criteria of other resources,
/// or of those that require another value of a label.
///
/// Criteria are numbered in the order in which they were added.
#[derive(Debug, Default)]
pub struct Index {
    by_resource: HashMap<String, HashMap<String, ByOperation>>,
    len: usize,
}

/// The criteria by operation.
type ByOperation = [Entries; Operation::ALL.len()];

/// The numbers of criteria, each list in order.
#[derive(Debug, Default)]
struct Entries {
    /// The criteria that require no label.
    any: Vec<usize>,
    /// The criteria that require one of some values of a label, by that label and its value.
    by_label: BTreeMap<(Place, String), HashMap<String, Vec<usize>>>,
}

/// The values of a label of the new and the old object, or of the namespace.
pub(super) type LabelValues<'l> = [Option<&'l str>; 2];

const ANY: &str = "*";

impl Index {
    /// Creates an index of the criteria.
    pub fn new<'c>(criteria: impl IntoIterator<Item = &'c Criteria>) -> Self {
        let mut index = Self::default();
        for criteria in criteria {
            index.add(criteria);
        }
        index
    }

    fn add(&mut self, criteria: &Criteria) {
        let number = self.len;
        self.len += 1;
        let label = criteria.required_label();
        if criteria.matches_everything {
            self.enter(ANY, ANY, &[ANY.to_owned()], label, number);
        }
        for rule in &criteria.rules {
            self.add_rule(rule, criteria.is_equivalent, label, number);
        }
    }

    fn add_rule(
        &mut self,
        rule: &Rule,
        is_equivalent: bool,
        label: Option<RequiredLabel<'_>>,
        number: usize,
    ) {
        for (resource, _) in rule.resources.iter().map(|pattern| split(pattern)) {
            for group in &rule.api_groups {
                self.enter(resource, group, &rule.operations, label, number);
                if is_equivalent {
                    for (resource, other) in nave_resources::cohabiting_resources(group, resource) {
                        self.enter(resource, other, &rule.operations, label, number);
                    }
                }
            }
        }
    }

    fn enter(
        &mut self,
        resource: &str,
        group: &str,
        operations: &[String],
        label: Option<RequiredLabel<'_>>,
        number: usize,
    ) {
        let groups = self.by_resource.entry(resource.to_owned()).or_default();
        let operations_of_group = groups.entry(group.to_owned()).or_default();
        for (operation, entries) in Operation::ALL.into_iter().zip(operations_of_group) {
            if operations.iter().any(|it| it == ANY || it == operation.as_str()) {
                entries.add(label, number);
            }
        }
    }

    /// Returns whether there are no criteria.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether some criteria may match a request, whatever its labels.
    pub fn has_candidates(&self, attributes: &Attributes<'_>) -> bool {
        self.entries(attributes).any(|entries| !entries.is_empty())
    }

    /// Returns the numbers of the criteria that may match a request, in order. `labels` returns the values of a label,
    /// or `None` if criteria that require it must be matched in any case.
    pub(super) fn candidates<'l>(
        &self,
        attributes: &Attributes<'_>,
        labels: impl Fn(Place, &str) -> Option<LabelValues<'l>>,
    ) -> Vec<usize> {
        let mut found = Vec::new();
        for entries in self.entries(attributes) {
            found.extend_from_slice(&entries.any);
            for ((place, key), by_value) in &entries.by_label {
                match labels(*place, key) {
                    Some(values) => {
                        let lists = values.into_iter().flatten().filter_map(|value| by_value.get(value));
                        found.extend(lists.flatten());
                    }
                    None => found.extend(by_value.values().flatten()),
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn entries(&self, attributes: &Attributes<'_>) -> impl Iterator<Item = &Entries> {
        let (resource, group) = (attributes.def.resource.as_str(), attributes.def.group.as_str());
        let operation = attributes.operation as usize;
        let groups = [resource, ANY].into_iter().filter_map(|resource| self.by_resource.get(resource));
        groups.flat_map(move |groups| {
            let operations = [group, ANY].into_iter().filter_map(|group| groups.get(group));
            operations.filter_map(move |operations| operations.get(operation))
        })
    }
}

impl Entries {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.by_label.is_empty()
    }

    fn add(&mut self, label: Option<RequiredLabel<'_>>, number: usize) {
        let Some(RequiredLabel { place, key, values }) = label else { return push(&mut self.any, number) };
        let by_value = self.by_label.entry((place, key.to_owned())).or_default();
        for value in values {
            push(by_value.entry(value.clone()).or_default(), number);
        }
    }
}

fn push(list: &mut Vec<usize>, number: usize) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}
