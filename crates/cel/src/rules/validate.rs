//! Validation of objects.

use serde_json::Value as Json;

use super::MAX_OBJECT_COST;
use super::error::{ErrorKind, Path, RuleError, shown};
use super::node::{RuleNode, correlated};
use super::ratchet::Ratchet;
use super::rule::{CompiledRule, Purpose};
use crate::cache::ProgramCache;
use crate::failure::Failure;
use crate::library::format::go_quote;
use crate::program::{Activation, PER_CALL_LIMIT};
use crate::value::{Value, typed};

/// The compiled rules of a schema. Can be shared.
#[derive(Debug)]
pub struct Validator {
    root: Option<RuleNode>,
    schema: Json,
}

/// The result of a validation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// Errors.
    pub errors: Vec<RuleError>,
    /// Errors of unchanged values.
    pub warnings: Vec<RuleError>,
    /// The cost.
    pub cost: u64,
    /// True if the cost exceeded a limit, so that not all rules were applied.
    pub exceeded: bool,
}

/// Maximum length of the result of a message expression, in bytes.
const MAX_MESSAGE: usize = 5120;

impl Validator {
    /// Compiles the rules of the schema of a resource.
    pub fn new(schema: &Json) -> Self {
        Self::compile(schema, Purpose::Validate(None))
    }

    /// Like [`Self::new`], with programs from a cache.
    pub fn cached(schema: &Json, cache: &ProgramCache) -> Self {
        Self::compile(schema, Purpose::Validate(Some(cache)))
    }

    fn compile(schema: &Json, purpose: Purpose<'_>) -> Self {
        Self { root: RuleNode::new(schema, true, purpose), schema: schema.clone() }
    }

    /// Returns whether the schema has no rules.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Applies the rules to an object. For an update, `old` is the old object.
    pub fn validate(&self, object: &Json, old: Option<&Json>) -> Validation {
        let mut run = Run::new();
        if let Some(root) = &self.root {
            let ratchet = Ratchet::new(object, old, &self.schema);
            let ended = run.node(root, &Path::default(), object, old, ratchet);
            run.validation.exceeded = ended.is_err();
        }
        run.validation
    }
}

/// Marks that the validation ended early because a limit is exceeded.
pub(super) struct Ended;

/// A validation with a common budget.
pub(super) struct Run {
    pub(super) budget: u64,
    pub(super) validation: Validation,
}

impl Run {
    pub(super) fn new() -> Self {
        Self { budget: MAX_OBJECT_COST, validation: Validation::default() }
    }

    pub(super) fn node(
        &mut self,
        node: &RuleNode,
        path: &Path,
        value: &Json,
        old: Option<&Json>,
        ratchet: Ratchet<'_>,
    ) -> Result<(), Ended> {
        if value.is_null() {
            return Ok(());
        }
        self.rules(node, path, value, old.filter(|old| !old.is_null()), ratchet)?;
        for all_of in &node.all_of {
            self.node(all_of, path, value, old, ratchet.all_of())?;
        }
        match value {
            Json::Array(items) => {
                let Some(below) = &node.items else { return Ok(()) };
                let old = old.and_then(Json::as_array);
                for (index, item) in items.iter().enumerate() {
                    let old =
                        old.zip(node.list_keys.as_ref()).and_then(|(old, keys)| correlated(old, item, keys));
                    self.node(below, &path.index(index), item, old, ratchet.index(index))?;
                }
            }
            Json::Object(fields) => {
                let old = |name: &String| old.and_then(|old| old.get(name));
                if let Some(below) = &node.values {
                    for (name, value) in fields {
                        self.node(below, &path.key(name), value, old(name), ratchet.key(name))?;
                    }
                }
                for (name, value) in fields {
                    if let Some(below) = node.properties.get(name) {
                        self.node(below, &path.child(name), value, old(name), ratchet.key(name))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn invalid(&mut self, path: &Path, node: &RuleNode, detail: String) {
        let error = RuleError::new(ErrorKind::Invalid, path, Some(go_quote(&node.type_name)), detail);
        self.validation.errors.push(error);
    }

    fn rules(
        &mut self,
        node: &RuleNode,
        path: &Path,
        value: &Json,
        old: Option<&Json>,
        ratchet: Ratchet<'_>,
    ) -> Result<(), Ended> {
        if !node.has_rules {
            return Ok(());
        }
        let Some(decl) = &node.decl else {
            let detail =
                "rule compiler initialization error: failed to convert to declType for CEL validation rules";
            self.invalid(path, node, detail.to_owned());
            return Ok(());
        };
        if self.budget == 0 {
            self.invalid(path, node, OUT_OF_BUDGET.to_owned());
            return Err(Ended);
        }
        let new = typed(value, decl);
        let old_value = old.filter(|_| node.uses_old_self()).map(|old| typed(old, decl));
        let plain = Activation::new().with_value("self", new.clone());
        let plain = match &old_value {
            Some(old) => plain.with_value("oldSelf", old.clone()),
            None => plain,
        };
        let optional = match &old_value {
            Some(old) => old.clone().map(Value::some),
            None => Ok(Value::Optional(None)),
        };
        let optional = Activation::new().with_value("self", new).with_value("oldSelf", optional);
        for rule in &node.rules {
            self.rule(rule, node, path, value, old, (&plain, &optional), ratchet)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the context of one rule")]
    fn rule<'a>(
        &mut self,
        rule: &'a CompiledRule,
        node: &RuleNode,
        path: &Path,
        value: &Json,
        old: Option<&Json>,
        (plain, optional): (&Activation<'a>, &Activation<'a>),
        ratchet: Ratchet<'_>,
    ) -> Result<(), Ended> {
        if let Some(error) = &rule.error {
            self.invalid(path, node, format!("rule compile error: {error}"));
            return Ok(());
        }
        let Some(program) = &rule.program else { return Ok(()) };
        let is_optional = rule.rule.optional_old_self == Some(true);
        if rule.uses_old_self && old.is_none() && !is_optional {
            return Ok(());
        }
        let outcome = program.program().evaluate(if is_optional { optional } else { plain }, PER_CALL_LIMIT);
        if outcome.cost > self.budget {
            self.validation.cost += outcome.cost;
            self.invalid(path, node, OUT_OF_BUDGET.to_owned());
            return Err(Ended);
        }
        self.charge(outcome.cost);
        let text = rule.rule.shown();
        match outcome.bool() {
            Ok(Some(true)) => return Ok(()),
            Ok(_) => {}
            Err(Failure::Error(why)) if why.starts_with("no such overload") => {
                self.invalid(
                    path,
                    node,
                    format!(
                        "'{why}': call arguments did not match a supported operator, function or macro \
                         signature for rule: {text}"
                    ),
                );
                return Ok(());
            }
            Err(failure) if failure.is_fatal() => {
                self.invalid(
                    path,
                    node,
                    format!(
                        "'{failure}': no further validation rules will be run due to call cost exceeds limit \
                         for rule: {text}"
                    ),
                );
                return Err(Ended);
            }
            Err(failure) => {
                self.invalid(path, node, format!("{failure} evaluating rule: {text}"));
                return Ok(());
            }
        }
        let place =
            rule.field_path.as_deref().filter(|it| !it.is_empty()).map_or(path.clone(), |it| path.child(it));
        let (detail, ended) = self.message(rule, plain);
        let error = if ended {
            RuleError::new(ErrorKind::Invalid, &place, Some(go_quote(&node.type_name)), detail)
        } else {
            violation(&place, node, value, rule, detail)
        };
        if !rule.uses_old_self && ratchet.is_unchanged() {
            self.validation.warnings.push(error);
        } else {
            self.validation.errors.push(error);
        }
        if ended { Err(Ended) } else { Ok(()) }
    }

    fn charge(&mut self, cost: u64) {
        self.budget = self.budget.saturating_sub(cost);
        self.validation.cost += cost;
    }

    /// Returns the message of a violation, and whether validation ends because the message was too expensive.
    fn message<'a>(&mut self, rule: &'a CompiledRule, activation: &Activation<'a>) -> (String, bool) {
        let default = || (rule.rule.message_or_default(), false);
        let Some(program) = &rule.message else { return default() };
        let outcome = program.program().evaluate(activation, PER_CALL_LIMIT);
        if outcome.cost > self.budget {
            self.validation.cost += outcome.cost;
            let detail = "messageExpression evaluation failed due to running out of cost budget, \
                          no further validation rules will be run";
            return (detail.to_owned(), true);
        }
        self.charge(outcome.cost);
        match outcome.string() {
            Err(failure) if failure.is_fatal() => {
                let text = go_quote(&rule.rule.message_expression);
                let detail = format!(
                    "no further validation rules will be run due to call cost exceeds limit for \
                     messageExpression: {text}"
                );
                (detail, true)
            }
            Ok(Some(text)) => {
                let text = text.trim();
                let usable = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
                if usable { (text.to_owned(), false) } else { default() }
            }
            _ => default(),
        }
    }
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Creates the error of a violated rule.
fn violation(path: &Path, node: &RuleNode, value: &Json, rule: &CompiledRule, detail: String) -> RuleError {
    let omitted = matches!(node.type_name.as_str(), "object" | "array");
    let value = (!omitted).then(|| shown(value));
    match rule.rule.reason.as_deref() {
        Some("FieldValueForbidden") => RuleError::new(ErrorKind::Forbidden, path, None, detail),
        Some("FieldValueRequired") => RuleError::new(ErrorKind::Required, path, None, detail),
        Some("FieldValueDuplicate") => RuleError::new(ErrorKind::Duplicate, path, value, ""),
        _ => RuleError::new(ErrorKind::Invalid, path, value, detail),
    }
}
