//! Sets of fields, as trees (upstream: `structured-merge-diff/fieldpath.Set`).

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::path::{Path, PathElement};
use super::visits::visit;

/// A set of the fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted by element. Empty nodes are removed.
    nodes: Vec<Node>,
}

/// A node of a set: a path element that may end a path and may have continuations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The element.
    pub element: PathElement,
    /// True if the path to this node is in the set.
    pub member: bool,
    /// The continuations of the path.
    pub children: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

/// Merges neighbors with the same element.
fn merge_neighbors(nodes: Vec<Node>) -> Vec<Node> {
    let mut merged = Vec::with_capacity(nodes.len());
    let mut rest = nodes.into_iter().peekable();
    while let Some(mut node) = rest.next() {
        let mut others = Vec::new();
        while let Some(other) = rest.next_if(|next| next.element == node.element) {
            node.member |= other.member;
            others.push(other.children);
        }
        if !others.is_empty() {
            others.push(std::mem::take(&mut node.children));
            node.children = FieldSet::union_all(others);
        }
        merged.push(node);
    }
    merged
}

/// Skips the nodes before an element by galloping search.
fn skip_before(element: &PathElement, nodes: &mut &[Node]) {
    let is_before = |node: &Node| node.element < *element;
    let mut far = 1;
    while nodes.get(far - 1).is_some_and(is_before) {
        far *= 2;
    }
    let (near, far) = (far / 2, (far - 1).min(nodes.len()));
    let skipped = near + nodes.get(near..far).unwrap_or_default().partition_point(is_before);
    *nodes = nodes.get(skipped..).unwrap_or_default();
}

impl FieldSet {
    /// Creates a set of paths.
    pub fn from_paths<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path);
        }
        set
    }

    /// Creates a set from nodes in any order. Drops empty nodes and merges nodes with the same element.
    pub(super) fn from_nodes(mut nodes: Vec<Node>) -> Self {
        visit(nodes.len());
        nodes.retain(|node| !node.is_empty());
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes = merge_neighbors(nodes);
        }
        Self { nodes }
    }

    /// Returns the union of sets. The cost is linear in their total size, except for sorting.
    pub(super) fn union_all(sets: Vec<Self>) -> Self {
        match <[Self; 1]>::try_from(sets) {
            Ok([only]) => only,
            Err(sets) => Self::from_nodes(sets.into_iter().flat_map(Self::into_nodes).collect()),
        }
    }

    /// Adds a path. Ignores the empty path: it refers to the whole object, which has no owner.
    pub fn insert(&mut self, path: &Path) {
        let Some((first, rest)) = path.split_first() else { return };
        let place = self.place(first).unwrap_or_else(|place| {
            let node = Node { element: first.clone(), member: false, children: Self::default() };
            self.nodes.insert(place, node);
            place
        });
        let Some(node) = self.nodes.get_mut(place) else { return };
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns whether the path is in the set.
    pub fn contains(&self, path: &Path) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.children.contains(rest)),
        }
    }

    /// Returns the node of an element.
    pub(super) fn get(&self, element: &PathElement) -> Option<&Node> {
        self.place(element).ok().and_then(|place| self.nodes.get(place))
    }

    /// Returns the node of a field.
    pub(super) fn get_field(&self, name: &str) -> Option<&Node> {
        let place = self.nodes.binary_search_by(|node| match &node.element {
            PathElement::Field(field) => field.as_bytes().cmp(name.as_bytes()),
            _ => Ordering::Greater,
        });
        place.ok().and_then(|place| self.nodes.get(place))
    }

    /// Returns the nodes by value, sorted.
    pub(super) fn into_nodes(self) -> impl Iterator<Item = Node> {
        self.nodes.into_iter()
    }

    /// Returns the nodes, sorted.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the nodes for modification. No node may become empty.
    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    fn place(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.element.cmp(element))
    }

    /// Returns the length of the longest path.
    pub(super) fn depth(&self) -> usize {
        self.nodes.iter().map(|node| 1 + node.children.depth()).max().unwrap_or_default()
    }

    /// Returns the union of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.element.cmp(&b.element) {
                Ordering::Less => nodes.extend(left.next()),
                Ordering::Greater => nodes.extend(right.next()),
                Ordering::Equal => {
                    let (Some(a), Some(b)) = (left.next(), right.next()) else { break };
                    nodes.push(Node {
                        element: a.element,
                        member: a.member || b.member,
                        children: a.children.union(b.children),
                    });
                }
            }
        }
        nodes.extend(left);
        nodes.extend(right);
        visit(nodes.len());
        Self { nodes }
    }

    /// Returns the intersection of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.common(other).filter_map(|(a, b)| {
            let children = a.children.intersection(&b.children);
            let node = Node { element: a.element.clone(), member: a.member && b.member, children };
            (!node.is_empty()).then_some(node)
        });
        Self { nodes: both.collect() }
    }

    /// Returns the paths that are not in the other set. Keeps continuations of removed paths.
    #[must_use]
    pub fn difference(self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// Returns the paths that are not in the other set and do not continue one of its paths.
    #[must_use]
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(mut self, other: &Self, recursively: bool) -> Self {
        if other.is_empty() {
            return self;
        }
        visit(self.nodes.len());
        let mut others = other.nodes.as_slice();
        self.nodes.retain_mut(|node| {
            skip_before(&node.element, &mut others);
            if let Some(other) = others.first().filter(|other| other.element == node.element) {
                if recursively && other.member {
                    return false;
                }
                node.member &= !other.member;
                node.children = std::mem::take(&mut node.children).without(&other.children, recursively);
            }
            !node.is_empty()
        });
        self
    }

    /// Returns the paths that have no continuation in the set.
    #[must_use]
    pub fn leaves(self) -> Self {
        let leaves = self.nodes.into_iter().map(|node| Node {
            member: node.member && node.children.is_empty(),
            children: node.children.leaves(),
            element: node.element,
        });
        Self { nodes: leaves.collect() }
    }

    /// Returns whether the sets have a path in common.
    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.common(other).any(|(a, b)| a.member && b.member || a.children.intersects(&b.children))
    }

    /// Returns the pairs of nodes with the same element. The cost is the size of the smaller set times a logarithm,
    /// because a large change is compared with thousands of entries.
    fn common<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = (&'s Node, &'s Node)> {
        let (mut left, mut right) = (self.nodes.as_slice(), other.nodes.as_slice());
        std::iter::from_fn(move || {
            loop {
                let ((a, lefts), (b, rights)) = (left.split_first()?, right.split_first()?);
                match a.element.cmp(&b.element) {
                    Ordering::Less => skip_before(&b.element, &mut left),
                    Ordering::Greater => skip_before(&a.element, &mut right),
                    Ordering::Equal => {
                        (left, right) = (lefts, rights);
                        return Some((a, b));
                    }
                }
            }
        })
    }

    /// Returns the number of paths.
    pub(super) fn len(&self) -> usize {
        self.nodes.iter().map(|node| usize::from(node.member) + node.children.len()).sum()
    }

    /// Returns all paths, in the order of [`try_for_each_path`](Self::try_for_each_path).
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        let _ = self.try_for_each_path(&mut |path| {
            paths.push(path.iter().map(|element| (*element).clone()).collect());
            ControlFlow::Continue(())
        });
        paths
    }

    /// Visits paths until the visitor stops. At each level, paths that end come before paths that continue.
    pub(super) fn try_for_each_path<'s>(
        &'s self,
        visit: &mut impl FnMut(&[&'s PathElement]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.walk(&mut Vec::new(), visit)
    }

    fn walk<'s>(
        &'s self,
        path: &mut Vec<&'s PathElement>,
        visit: &mut impl FnMut(&[&'s PathElement]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for node in self.nodes.iter().filter(|node| node.member) {
            path.push(&node.element);
            visit(path)?;
            path.pop();
        }
        for node in &self.nodes {
            path.push(&node.element);
            node.children.walk(path, visit)?;
            path.pop();
        }
        ControlFlow::Continue(())
    }
}
