//! Adapts sets of fields to types.

use super::schema::TypeRef;
use super::set::{FieldSet, Node};

impl FieldSet {
    /// Adds the declared parent fields of the set's paths: `a` for `a.b`, unless `a` is a map entry.
    #[must_use]
    pub(super) fn with_named_fields(mut self, ty: TypeRef<'_>) -> Self {
        add_named_fields(&mut self, Some(ty));
        self
    }

    /// Adapts the set to types that have become atomic: replaces the fields below an atomic value with the value
    /// itself. Returns whether the set changed.
    pub(super) fn reconcile(&mut self, ty: TypeRef<'_>) -> bool {
        self.nodes_mut().iter_mut().fold(false, |changed, node| reconcile_node(ty, node) | changed)
    }
}

fn add_named_fields(set: &mut FieldSet, ty: Option<TypeRef<'_>>) {
    for node in set.nodes_mut() {
        if node.children.is_empty() {
            continue;
        }
        node.member |= ty.is_some_and(|ty| ty.declares(&node.element));
        add_named_fields(&mut node.children, ty.and_then(|ty| ty.child(&node.element)));
    }
}

fn reconcile_node(ty: TypeRef<'_>, node: &mut Node) -> bool {
    if node.children.is_empty() {
        return false;
    }
    // Undeclared fields do not change.
    let Some(ty) = ty.child(&node.element) else { return false };
    if ty.is_atomic() {
        node.member = true;
        node.children = FieldSet::default();
        return true;
    }
    node.children.reconcile(ty)
}
