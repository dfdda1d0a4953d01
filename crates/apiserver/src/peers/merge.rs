//! Merges the discovery documents of several servers (upstream: `peer_aggregated_handler.go`,
//! `MergePreservingRelativeOrder`).

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::aggregator::remote_discovery::{ApiResourceDiscovery, Group, Version};

/// An element of a list, identified by its name.
pub(super) trait Merge: Clone {
    /// Returns the name.
    fn name(&self) -> &str;

    /// Returns the union of two elements of the same name; `None` if it is `self`.
    fn union(&self, other: &Self) -> Option<Self>;
}

/// Merges lists. The order of each list is kept where the lists agree. Returns `None` if the result is the list at
/// `reference`.
pub(super) fn merge<T: Merge>(lists: &[&[T]], reference: usize) -> Option<Vec<T>> {
    let mut all: HashMap<&str, Cow<'_, T>> = HashMap::new();
    let mut is_changed = false;
    for element in lists.iter().copied().flatten() {
        match all.entry(element.name()) {
            Entry::Vacant(place) => drop(place.insert(Cow::Borrowed(element))),
            Entry::Occupied(mut known) => {
                if let Some(union) = known.get().union(element) {
                    is_changed = true;
                    known.insert(Cow::Owned(union));
                }
            }
        }
    }
    let names: Vec<Vec<&str>> = lists.iter().map(|list| list.iter().map(Merge::name).collect()).collect();
    let own = names.get(reference)?;
    let order = if names.iter().all(|names| names == own) {
        if !is_changed {
            return None;
        }
        own.clone()
    } else {
        consensus(&names)
    };
    Some(order.into_iter().filter_map(|name| all.remove(name)).map(Cow::into_owned).collect())
}

/// Returns all names in an order that agrees with all lists; the least name comes first where they say nothing. A list
/// that has all names is the order. Names are sorted if the lists contradict each other.
fn consensus<'n>(lists: &[Vec<&'n str>]) -> Vec<&'n str> {
    let all: BTreeSet<&str> = lists.iter().flatten().copied().collect();
    let has_all = |list: &&Vec<&str>| {
        list.len() == all.len() && list.iter().collect::<HashSet<_>>().len() == list.len()
    };
    if let Some(list) = lists.iter().find(has_all) {
        return list.clone();
    }
    let mut followers: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut before: HashMap<&str, usize> = HashMap::new();
    for pair in lists.iter().flat_map(|list| list.windows(2)) {
        if let &[one, next] = pair
            && followers.entry(one).or_default().insert(next)
        {
            *before.entry(next).or_default() += 1;
        }
    }
    let mut ready: BTreeSet<&str> = all.iter().copied().filter(|name| !before.contains_key(name)).collect();
    let mut order = Vec::with_capacity(all.len());
    while let Some(name) = ready.pop_first() {
        order.push(name);
        for next in followers.remove(name).unwrap_or_default() {
            if let Some(count) = before.get_mut(next) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(next);
                }
            }
        }
    }
    if order.len() == all.len() { order } else { all.into_iter().collect() }
}

impl Merge for Group {
    fn name(&self) -> &str {
        &self.metadata.name
    }

    fn union(&self, other: &Self) -> Option<Self> {
        let versions = merge(&[&self.versions, &other.versions], 0)?;
        Some(Self { metadata: self.metadata.clone(), versions })
    }
}

impl Merge for Version {
    fn name(&self) -> &str {
        &self.version
    }

    fn union(&self, other: &Self) -> Option<Self> {
        let resources = merge(&[&self.resources, &other.resources], 0)?;
        Some(Self { version: self.version.clone(), resources, freshness: self.freshness.clone() })
    }
}

impl Merge for ApiResourceDiscovery {
    fn name(&self) -> &str {
        &self.resource
    }

    fn union(&self, other: &Self) -> Option<Self> {
        if self == other {
            return None;
        }
        let mut union = self.clone();
        union.verbs.extend(other.verbs.iter().cloned());
        union.verbs.sort();
        union.verbs.dedup();
        // As upstream, the subresources of the other server replace those of the same name.
        let mut subresources: Vec<_> = other.subresources.clone();
        for own in &self.subresources {
            if !subresources.iter().any(|found| found.subresource == own.subresource) {
                subresources.push(own.clone());
            }
        }
        subresources.sort_by(|one, other| one.subresource.cmp(&other.subresource));
        union.subresources = subresources;
        Some(union)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aggregator::remote_discovery;

    #[test]
    fn the_order_agrees_with_all_lists() {
        for (lists, expected) in [
            (&["abc", "bc"][..], "abc"),
            (&["ac", "bc"], "abc"),
            (&["ab", "ba"], "ab"),
            (&["ab", "bac"], "bac"),
            (&["ax", "xa", "b"], "abx"),
            (&["abd", "acd"], "abcd"),
            (&["dca", "db"], "dbca"),
            (&["", "ba"], "ba"),
            (&["aa", "b"], "ab"),
            (&[], ""),
        ] {
            let names = ["a", "b", "c", "d", "x"];
            let list = |text: &str| -> Vec<&str> {
                text.chars().filter_map(|c| names.into_iter().find(|name| name.starts_with(c))).collect()
            };
            let all: Vec<_> = lists.iter().map(|text| list(text)).collect();
            assert_eq!(consensus(&all).concat(), expected, "{lists:?}");
        }
    }

    fn groups(items: &Value) -> Vec<Group> {
        remote_discovery::groups(json!({"items": items}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn resources_of_all_servers_are_in_the_result() {
        let group = |name: &str, versions: Value| json!({"metadata": {"name": name}, "versions": versions});
        let resource =
            |name: &str, verbs: Value| json!({"resource": name, "scope": "Cluster", "verbs": verbs});
        let version = |name: &str, resources: Value| json!({"version": name, "resources": resources, "freshness": "Current"});
        let own = groups(&json!([
            group("apps", json!([version("v1", json!([resource("a", json!(["get"]))]))])),
            group("batch", json!([version("v1", json!([]))])),
        ]));
        assert_eq!(merge(&[&own, &own], 0), None);
        assert_eq!(merge(&[&own[..], &[]], 0).unwrap(), own);
        let with_verb = resource("a", json!(["delete", "get"]));
        let peer = groups(&json!([
            group(
                "apps",
                json!([
                    version("v1", json!([with_verb, resource("b", json!([]))])),
                    version("v1beta1", json!([])),
                ])
            ),
            group("new", json!([version("v1", json!([]))])),
        ]));
        let merged = merge(&[&own, &peer], 0).unwrap();
        assert_eq!(
            serde_json::to_value(&merged).unwrap(),
            serde_json::to_value(groups(&json!([
                group(
                    "apps",
                    json!([
                        version("v1", json!([with_verb, resource("b", json!([]))])),
                        version("v1beta1", json!([])),
                    ])
                ),
                group("batch", json!([version("v1", json!([]))])),
                group("new", json!([version("v1", json!([]))])),
            ])))
            .unwrap()
        );
        // A peer with less changes nothing but must not remove anything.
        let less = groups(&json!([group("apps", json!([version("v1", json!([]))]))]));
        assert_eq!(merge(&[&own, &less], 0).unwrap(), own);
    }
}
