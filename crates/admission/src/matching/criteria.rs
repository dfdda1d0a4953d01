//! The criteria of a webhook or policy, compiled from its object.

use nave_machinery::Value;
use nave_machinery::selector::{LabelSelector, SelectorError};
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
