//! The criteria of a webhook or policy, compiled from its object.

use nave_machinery::Value;
use nave_machinery::selector::{LabelSelector, Operator, Requirement, SelectorError};
use serde::Deserialize;

use super::rules::Rule;

/// The criteria by which a webhook or policy selects requests.
#[derive(Clone, Debug)]
pub struct Criteria {
    pub(super) rules: Vec<Rule>,
    pub(super) excluded: Vec<Rule>,
    /// True if there are no rules to match, as in a binding without `resourceRules`.
    pub(super) matches_everything: bool,
    /// True if the rules also match equivalent resources (`matchPolicy`).
    pub(super) is_equivalent: bool,
    pub(super) namespace_selector: Result<LabelSelector, InvalidCriteria>,
    pub(super) object_selector: Result<LabelSelector, InvalidCriteria>,
}

/// A label that must have one of these values.
#[derive(Clone, Copy)]
pub(super) struct RequiredLabel<'c> {
    pub(super) place: Place,
    pub(super) key: &'c str,
    pub(super) values: &'c [String],
}

impl<'c> RequiredLabel<'c> {
    fn of(place: Place, selector: &'c Result<LabelSelector, InvalidCriteria>) -> Option<Self> {
        let requirements = selector.as_ref().ok()?.requirements().iter();
        let equalities = requirements
            .filter(|it| matches!(it.operator, Operator::In | Operator::Equals | Operator::DoubleEquals));
        // The name of the namespace tells more apart than any other label.
        let Requirement { key, values, .. } = equalities.min_by_key(|it| it.key != NAME_LABEL)?;
        Some(Self { place, key, values })
    }
}

/// The place of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The namespace of the request.
    Namespace,
    /// The new or the old object.
    Object,
}

/// The error of a selector. It is reported for requests that the rules match, as upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCriteria(SelectorError);

impl Criteria {
    /// Compiles the criteria of a webhook (`MutatingWebhook`, `ValidatingWebhook`).
    pub fn of_webhook(webhook: &Value) -> Self {
        let rules = rules(webhook, "rules");
        Self { rules, ..Self::selectors(webhook) }
    }

    /// Compiles `MatchResources`, the criteria of policies and bindings. Absent ones match every request.
    pub fn of_match_resources(resources: &Value) -> Self {
        let rules = rules(resources, "resourceRules");
        Self {
            matches_everything: rules.is_empty(),
            rules,
            excluded: self::rules(resources, "excludeResourceRules"),
            ..Self::selectors(resources)
        }
    }

    /// Returns a label without which the criteria do not match, by which an index finds them. The namespace comes first,
    /// because its labels do not change while webhooks change the object.
    pub(super) fn required_label(&self) -> Option<RequiredLabel<'_>> {
        let of_namespace = RequiredLabel::of(Place::Namespace, &self.namespace_selector);
        of_namespace.or_else(|| RequiredLabel::of(Place::Object, &self.object_selector))
    }

    fn selectors(fields: &Value) -> Self {
        Self {
            rules: Vec::new(),
            excluded: Vec::new(),
            matches_everything: false,
            is_equivalent: fields.get("matchPolicy").and_then(Value::as_str) == Some("Equivalent"),
            namespace_selector: selector(fields.get("namespaceSelector")),
            object_selector: selector(fields.get("objectSelector")),
        }
    }
}

/// The label of a namespace with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Compiles a list of rules. A rule that cannot be decoded, which validation prevents, matches nothing.
fn rules(fields: &Value, field: &str) -> Vec<Rule> {
    let rules = fields.get(field).and_then(Value::as_array).into_iter().flatten();
    rules.map(|rule| Rule::deserialize(rule).unwrap_or_default()).collect()
}

/// Compiles a selector. The default of an absent selector selects everything.
fn selector(selector: Option<&Value>) -> Result<LabelSelector, InvalidCriteria> {
    match selector {
        None | Some(Value::Null) => Ok(LabelSelector::default()),
        Some(selector) => LabelSelector::from_value(selector).map_err(InvalidCriteria),
    }
}
