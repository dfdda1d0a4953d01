//! Random selectors, evaluated by the cache's filter and by the oracle.

use nave_cacher::{FieldRef, FieldTerm, Filter};
use nave_machinery::selector::LabelSelector;
use proptest::prelude::*;

use crate::oracle::Model;

/// A conjunction of the given terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    namespace: Option<u8>,
    name: Option<u8>,
    /// The node, and whether the term is negated.
    node: Option<(u8, bool)>,
    labels: Vec<LabelTerm>,
}

#[derive(Clone, Debug)]
enum LabelTerm {
    Is(u8, u8),
    IsNot(u8, u8),
    In(u8, [u8; 2]),
    NotIn(u8, [u8; 2]),
    Exists(u8),
    Absent(u8),
}

/// The labels that objects may have.
pub(crate) const LABELS: [&str; 2] = ["tier", "app"];

impl Selection {
    /// Generates a selection; each term is present or absent with equal probability.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let (label, value) = (0..2_u8, 0..3_u8);
        let two = [value.clone(), value.clone()];
        let term = prop_oneof![
            (label.clone(), value.clone()).prop_map(|(label, value)| LabelTerm::Is(label, value)),
            (label.clone(), value).prop_map(|(label, value)| LabelTerm::IsNot(label, value)),
            (label.clone(), two.clone()).prop_map(|(label, values)| LabelTerm::In(label, values)),
            (label.clone(), two).prop_map(|(label, values)| LabelTerm::NotIn(label, values)),
            label.clone().prop_map(LabelTerm::Exists),
            label.prop_map(LabelTerm::Absent),
        ];
        let some = (
            prop::option::of(0..2_u8),
            prop::option::weighted(0.3, 0..4_u8),
            prop::option::of((0..3_u8, any::<bool>())),
            prop::collection::vec(term, 0..3),
        );
        let some = some.prop_map(|(namespace, name, node, labels)| Self { namespace, name, node, labels });
        prop_oneof![1 => Just(Self::default()), 3 => some]
    }

    /// Returns the cache's filter.
    pub(crate) fn filter(&self) -> Filter {
        let mut filter = Filter::all();
        if let Some(namespace) = self.namespace {
            filter = filter.in_namespace(&format!("ns{namespace}"));
        }
        if let Some(name) = self.name {
            filter = filter.named(&format!("pod{name}"));
        }
        if let Some((node, negated)) = self.node {
            let value = format!("node{node}").into();
            filter = filter.with_term(FieldTerm { field: FieldRef::Declared(0), negated, value });
        }
        let labels: Vec<_> = self.labels.iter().map(LabelTerm::text).collect();
        filter.with_labels(LabelSelector::parse(&labels.join(",")).unwrap())
    }

    /// Returns whether an object is selected.
    pub(crate) fn matches(&self, model: &Model) -> bool {
        self.namespace.is_none_or(|namespace| model.namespace == format!("ns{namespace}"))
            && self.name.is_none_or(|name| model.name == format!("pod{name}"))
            && self.node.is_none_or(|(node, negated)| (model.node == format!("node{node}")) != negated)
            && self.labels.iter().all(|term| term.matches(model))
    }
}

impl LabelTerm {
    fn text(&self) -> String {
        let name = |label: &u8| LABELS[usize::from(*label)];
        match self {
            Self::Is(label, value) => format!("{}={value}", name(label)),
            Self::IsNot(label, value) => format!("{}!={value}", name(label)),
            Self::In(label, [one, other]) => format!("{} in ({one},{other})", name(label)),
            Self::NotIn(label, [one, other]) => format!("{} notin ({one},{other})", name(label)),
            Self::Exists(label) => name(label).to_owned(),
            Self::Absent(label) => format!("!{}", name(label)),
        }
    }

    fn matches(&self, model: &Model) -> bool {
        let labels = |label: &u8| model.labels.get(LABELS[usize::from(*label)]).map(String::as_str);
        let is = |label: &u8, value: &u8| labels(label) == Some(value.to_string().as_str());
        match self {
            Self::Is(label, value) => is(label, value),
            Self::IsNot(label, value) => !is(label, value),
            Self::In(label, values) => values.iter().any(|value| is(label, value)),
            Self::NotIn(label, values) => !values.iter().any(|value| is(label, value)),
            Self::Exists(label) => labels(label).is_some(),
            Self::Absent(label) => labels(label).is_none(),
        }
    }
}
