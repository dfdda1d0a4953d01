//! Filters that select objects for a reader.

use nave_machinery::selector::{LabelSelector, Operator, Requirement};

use crate::object::{CachedObject, LabelMarks};

/// A field that a field selector can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRef {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// The selectable field with this index, in the order of the resource's declaration.
    Declared(usize),
}

impl FieldRef {
    /// Returns the value of the field in `object`.
    pub fn value_in(self, object: &CachedObject) -> &str {
        match self {
            Self::Name => object.name(),
            Self::Namespace => object.namespace(),
            Self::Declared(index) => object.attributes().field(index),
        }
    }
}

/// One requirement of a field selector, with the field resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field.
    pub field: FieldRef,
    /// True if the requirement is "not equal".
    pub negated: bool,
    /// The value to compare with.
    pub value: Box<str>,
}

impl FieldTerm {
    /// Returns whether a field with this value satisfies the requirement.
    pub fn matches(&self, value: &str) -> bool {
        (value == &*self.value) != self.negated
    }
}

/// A conjunction of requirements on objects. The default selects all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    fields: Vec<FieldTerm>,
    labels: LabelSelector,
    /// Bloom filter of the labels that every selected object has.
    marks: LabelMarks,
}

impl Filter {
    /// Returns a filter that selects all objects.
    pub fn all() -> Self {
        Self::default()
    }

    /// Restricts to objects in `namespace`.
    pub fn in_namespace(self, namespace: &str) -> Self {
        self.with_field(FieldRef::Namespace, namespace)
    }

    /// Restricts to the object with the name `name`.
    pub fn named(self, name: &str) -> Self {
        self.with_field(FieldRef::Name, name)
    }

    /// Restricts to objects whose `field` has this value.
    pub fn with_field(self, field: FieldRef, value: &str) -> Self {
        self.with_term(FieldTerm { field, negated: false, value: value.into() })
    }

    /// Restricts to objects that satisfy `term`.
    pub fn with_term(mut self, term: FieldTerm) -> Self {
        self.fields.push(term);
        self
    }

    /// Restricts to objects selected by `labels`; replaces an earlier label selector.
    pub fn with_labels(mut self, labels: LabelSelector) -> Self {
        let marked = labels.requirements().iter().filter_map(only_label);
        self.marks = marked.fold(LabelMarks::default(), LabelMarks::and);
        self.labels = labels;
        self
    }

    /// Splits off the requirements on declared fields.
    pub fn without_declared(mut self) -> (Self, Vec<FieldTerm>) {
        let is_declared = |term: &FieldTerm| matches!(term.field, FieldRef::Declared(_));
        let (declared, fields) = std::mem::take(&mut self.fields).into_iter().partition(is_declared);
        (Self { fields, ..self }, declared)
    }

    /// Returns whether the filter selects all objects.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    /// Returns whether `object` is selected.
    pub fn matches(&self, object: &CachedObject) -> bool {
        self.fields.iter().all(|term| term.matches(term.field.value_in(object)))
            && object.attributes().may_have(self.marks)
            && (self.labels.is_empty() || self.labels.matches(|key| object.attributes().label(key)))
    }

    /// Returns the value that the filter requires of `field`, if any.
    pub(crate) fn exact(&self, field: FieldRef) -> Option<&str> {
        self.fields.iter().find(|term| term.field == field && !term.negated).map(|term| &*term.value)
    }

    /// Returns the first of `fields` that has a required value, and the value.
    pub(crate) fn first_exact(&self, fields: impl IntoIterator<Item = usize>) -> Option<(usize, &str)> {
        fields.into_iter().find_map(|index| Some((index, self.exact(FieldRef::Declared(index))?)))
    }
}

/// Returns the mark of the label if only a single label satisfies the requirement.
fn only_label(requirement: &Requirement) -> Option<LabelMarks> {
    match (requirement.operator, &*requirement.values) {
        (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => {
            Some(LabelMarks::for_label(&requirement.key, value))
        }
        _ => None,
    }
}
