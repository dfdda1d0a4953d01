//! The index of criteria by resource, group and operation.

use std::collections::HashMap;

use super::criteria::Criteria;
use super::rules::{Rule, split};
use crate::attributes::{Attributes, Operation};

/// Finds the criteria that may match a request. Its cost does not depend on the number of other criteria.
///
/// Criteria are numbered in the order in which they were added.
#[derive(Debug, Default)]
pub struct Index {
    by_resource: HashMap<String, HashMap<String, ByOperation>>,
    len: usize,
}

/// The numbers of the criteria, in order, by operation.
type ByOperation = [Vec<usize>; Operation::ALL.len()];

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
        if criteria.matches_everything {
            self.enter(ANY, ANY, &[ANY.to_owned()], number);
        }
        for rule in &criteria.rules {
            self.add_rule(rule, criteria.is_equivalent, number);
        }
    }

    fn add_rule(&mut self, rule: &Rule, is_equivalent: bool, number: usize) {
        for (resource, _) in rule.resources.iter().map(|pattern| split(pattern)) {
            for group in &rule.api_groups {
                self.enter(resource, group, &rule.operations, number);
                if is_equivalent {
                    for (resource, other) in nave_resources::cohabiting_resources(group, resource) {
                        self.enter(resource, other, &rule.operations, number);
                    }
                }
            }
        }
    }

    fn enter(&mut self, resource: &str, group: &str, operations: &[String], number: usize) {
        let groups = self.by_resource.entry(resource.to_owned()).or_default();
        let lists = groups.entry(group.to_owned()).or_default();
        for (operation, list) in Operation::ALL.into_iter().zip(lists) {
            let is_listed = operations.iter().any(|it| it == ANY || it == operation.as_str());
            if is_listed && list.last() != Some(&number) {
                list.push(number);
            }
        }
    }

    /// Returns whether there are no criteria.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether some criteria may match a request.
    pub fn has_candidates(&self, attributes: &Attributes<'_>) -> bool {
        self.lists(attributes).any(|list| !list.is_empty())
    }

    /// Returns the numbers of the criteria that may match a request, in order.
    pub fn candidates(&self, attributes: &Attributes<'_>) -> Vec<usize> {
        let mut found: Vec<usize> = self.lists(attributes).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn lists(&self, attributes: &Attributes<'_>) -> impl Iterator<Item = &Vec<usize>> {
        let (resource, group) = (attributes.def.resource.as_str(), attributes.def.group.as_str());
        let operation = attributes.operation as usize;
        let groups = [resource, ANY].into_iter().filter_map(|resource| self.by_resource.get(resource));
        groups.flat_map(move |groups| {
            let lists = [group, ANY].into_iter().filter_map(|group| groups.get(group));
            lists.filter_map(move |lists| lists.get(operation))
        })
    }
}
