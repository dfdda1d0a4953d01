//! What a reader wants to see of a resource.

use nave_machinery::selector::{LabelSelector, Operator, Requirement};

use crate::object::{CachedObject, LabelMarks};

/// A value of an object that a field selector can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRef {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// The resource's selectable field with this index, in declared order.
    Declared(usize),
}

impl FieldRef {
    /// The value `object` has there.
    pub fn of(self, object: &CachedObject) -> &str {
        match self {
            Self::Name => object.name(),
            Self::Namespace => object.namespace(),
            Self::Declared(index) => object.attributes().field(index),
        }
    }
}

/// One requirement of a field selector, resolved to where the value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field.
    pub field: FieldRef,
    /// Whether the value must differ.
    pub negated: bool,
    /// The value asked for.
    pub value: Box<str>,
}

/// A conjunction of requirements on objects; the default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    fields: Vec<FieldTerm>,
    labels: LabelSelector,
    /// Of the labels that every selected object bears.
    marks: LabelMarks,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Of that, only objects in `namespace`.
    pub fn in_namespace(self, namespace: &str) -> Self {
        self.with_field(FieldRef::Namespace, namespace)
    }

    /// Of that, only the object called `name`.
    pub fn named(self, name: &str) -> Self {
        self.with_field(FieldRef::Name, name)
    }

    /// Of that, only objects whose `field` has this value.
    pub fn with_field(self, field: FieldRef, value: &str) -> Self {
        self.with_term(FieldTerm { field, negated: false, value: value.into() })
    }

    /// Of that, only objects that satisfy `term`.
    pub fn with_term(mut self, term: FieldTerm) -> Self {
        self.fields.push(term);
        self
    }

    /// Of that, only objects whose labels are selected, in place of an earlier label selector.
    pub fn with_labels(mut self, labels: LabelSelector) -> Self {
        let marked = labels.requirements().iter().filter_map(only_label);
        self.marks = marked.fold(LabelMarks::default(), LabelMarks::and);
        self.labels = labels;
        self
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &CachedObject) -> bool {
        self.fields.iter().all(|term| (term.field.of(object) == &*term.value) != term.negated)
            && object.attributes().may_bear(self.marks)
            && (self.labels.is_empty() || self.labels.matches(|key| object.attributes().label(key)))
    }

    /// The value `field` must have, if one is asked for.
    pub(crate) fn exact(&self, field: FieldRef) -> Option<&str> {
        self.fields.iter().find(|term| term.field == field && !term.negated).map(|term| &*term.value)
    }

    /// The first of `fields` that must have a certain value, and that value.
    pub(crate) fn first_exact(&self, fields: impl IntoIterator<Item = usize>) -> Option<(usize, &str)> {
        fields.into_iter().find_map(|index| Some((index, self.exact(FieldRef::Declared(index))?)))
    }
}

/// The mark of the one label that fulfils the requirement, if it is of that kind.
fn only_label(requirement: &Requirement) -> Option<LabelMarks> {
    match (requirement.operator, &*requirement.values) {
        (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => {
            Some(LabelMarks::of(&requirement.key, value))
        }
        _ => None,
    }
}
