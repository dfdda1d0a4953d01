//! Checks of the rules of a definition.

use serde_json::Value as Json;

use super::error::{ErrorKind, Path, RuleError};
use super::node::is_embedded;
use super::rule::{CompiledRule, Purpose, Rule, RuleCompiler};
use super::{MAX_RULE_COST, MAX_SCHEMA_COST, field_path};
use crate::library::format::go_quote;
use crate::schema::Decl;

/// The result of checking the rules of a definition.
#[derive(Clone, Debug, Default)]
pub struct CrdReport {
    /// Errors.
    pub errors: Vec<RuleError>,
    /// The rules. The rules of inner schemas come first.
    pub rules: Vec<RuleReport>,
    /// The estimated cost of all rules.
    pub cost: u64,
}

/// The result of checking a rule.
#[derive(Clone, Debug, Default)]
pub struct RuleReport {
    /// The path of the rule.
    pub path: String,
    /// The error of compiling the rule.
    pub error: Option<String>,
    /// The error of compiling the message expression.
    pub message_error: Option<String>,
    /// True if the rule uses `oldSelf`.
    pub uses_old_self: bool,
    /// The maximum cost of an evaluation.
    pub max_cost: u64,
    /// The maximum number of evaluations for one object.
    pub cardinality: u64,
    /// True if the schema limits the number of evaluations.
    pub cardinality_bounded: bool,
    /// The maximum cost for one object.
    pub cost: u64,
    /// The maximum cost of the message expression.
    pub message_cost: Option<u64>,
    /// The field that violations refer to, relative to the rule.
    pub field_path: Option<String>,
}

/// Checks the rules of a schema. If the stored definition has the same schema, `unchanged` is true and the cost limit
/// per rule does not apply.
pub fn check(schema: &Json, path: &str, unchanged: bool) -> CrdReport {
    let mut checker = Checker { unchanged, report: CrdReport::default(), expensive: Vec::new() };
    let place =
        Place { is_root: true, in_scope: false, cardinality: Some(1), uncorrelatable: None, depth: 0 };
    let path = Path(path.to_owned());
    checker.schema(schema, &path, &place);
    let total = checker.report.cost;
    if total > MAX_SCHEMA_COST {
        for (path, _) in std::mem::take(&mut checker.expensive) {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            checker.error(ErrorKind::Forbidden, &path, None, detail.to_owned());
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        checker.error(ErrorKind::Forbidden, &path, None, too_expensive(what, total, MAX_SCHEMA_COST));
    }
    checker.report
}

/// The position of a schema.
#[derive(Clone)]
struct Place {
    is_root: bool,
    /// True if an enclosing schema has rules.
    in_scope: bool,
    /// The maximum number of values of the schema in one object, if bounded.
    cardinality: Option<u64>,
    /// The path of the enclosing schema whose items cannot be correlated with old items.
    uncorrelatable: Option<Path>,
    depth: usize,
}

struct Checker {
    unchanged: bool,
    report: CrdReport,
    expensive: Vec<(Path, u64)>,
}

const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const MAX_DEPTH: usize = 120;
const MAX_REQUEST: u64 = 3 << 20;
/// Maximum number of rules reported when the total cost exceeds the limit.
const MAX_NAMED: usize = 4;

impl Checker {
    fn error(&mut self, kind: ErrorKind, path: &Path, value: Option<String>, detail: String) {
        self.report.errors.push(RuleError::new(kind, path, value, detail));
    }

    /// Checks a schema and the schemas inside it. Returns whether their rules are well-formed.
    fn schema(&mut self, schema: &Json, path: &Path, place: &Place) -> bool {
        if place.depth > MAX_DEPTH || !schema.is_object() {
            return true;
        }
        let mut formed = true;
        let inner = |cardinality: Option<u64>, uncorrelatable: Option<Path>| Place {
            is_root: false,
            in_scope: place.in_scope || !Rule::read_all(schema).is_empty(),
            cardinality: place.cardinality.zip(cardinality).map(|(a, b)| a.saturating_mul(b)),
            uncorrelatable: place.uncorrelatable.clone().or(uncorrelatable),
            depth: place.depth + 1,
        };
        let elements = max_elements(schema);
        if let Some(values) = schema.get("additionalProperties") {
            formed &= self.schema(values, &path.child("additionalProperties"), &inner(elements, None));
        }
        for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            formed &= self.schema(property, &path.child("properties").key(name), &inner(elements, None));
        }
        if let Some(items) = schema.get("items") {
            let is_map = schema.get("x-kubernetes-list-type").and_then(Json::as_str) == Some("map");
            let uncorrelatable = (!is_map).then(|| path.clone());
            formed &= self.schema(items, &path.child("items"), &inner(elements, uncorrelatable));
        }
        let rules = Rule::read_all(schema);
        let path = path.child("x-kubernetes-validations");
        for (index, rule) in rules.iter().enumerate() {
            formed &= self.form(rule, &path.index(index), schema);
        }
        if !rules.is_empty() {
            self.rules(rules, schema, &path, place, formed);
        }
        formed
    }

    /// Checks the fields of a rule.
    fn form(&mut self, rule: &Rule, path: &Path, schema: &Json) -> bool {
        let before = self.report.errors.len();
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (text, message) = (rule.expression.trim(), rule.message.trim());
        let quoted = |text: &str| Some(go_quote(text));
        let place = |name: &str| path.child(name);
        if text.is_empty() {
            self.error(ErrorKind::Required, &place("rule"), None, "rule is not specified".to_owned());
        } else if !rule.message.is_empty() && message.is_empty() {
            let detail = "must be non-empty if specified".to_owned();
            self.error(ErrorKind::Invalid, &place("message"), quoted(&rule.message), detail);
        } else if breaks(message) {
            let detail = "must not contain line breaks".to_owned();
            self.error(ErrorKind::Invalid, &place("message"), quoted(&rule.message), detail);
        } else if breaks(text) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks".to_owned();
            self.error(ErrorKind::Required, &place("message"), None, detail);
        }
        if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified".to_owned();
            self.error(ErrorKind::Required, &place("messageExpression"), None, detail);
        }
        if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            let supported: Vec<String> = REASONS.iter().map(|it| go_quote(it)).collect();
            let detail = format!("supported values: {}", supported.join(", "));
            self.error(ErrorKind::NotSupported, &place("reason"), quoted(reason), detail);
        }
        if !rule.field_path.is_empty() {
            let shown = quoted(&rule.field_path);
            let mut invalid = |detail: &str| {
                self.error(ErrorKind::Invalid, &place("fieldPath"), shown.clone(), detail.to_owned());
            };
            if rule.field_path.trim().is_empty() {
                invalid("must be non-empty if specified");
            }
            if breaks(&rule.field_path) {
                invalid("must not contain line breaks");
            }
            if field_path::normalize(&rule.field_path, schema).is_none() {
                invalid("must be a valid path");
            }
        }
        self.report.errors.len() == before
    }

    fn rules(&mut self, rules: Vec<Rule>, schema: &Json, path: &Path, place: &Place, formed: bool) {
        let Some(decl) = Decl::from_schema(schema, place.is_root || is_embedded(schema)) else {
            if formed {
                let detail = "internal error: failed to construct type information for \
                              x-kubernetes-validations rules: unable to convert structural schema to CEL \
                              declarations";
                self.error(ErrorKind::Internal, path, None, detail.to_owned());
            }
            return;
        };
        let compiler = RuleCompiler::new(&decl, Purpose::Check);
        for (index, rule) in rules.into_iter().enumerate() {
            let compiled = rule.compile(schema, &compiler);
            self.compiled(&compiled, &decl, &path.index(index), place, formed);
        }
    }

    fn compiled(&mut self, rule: &CompiledRule, decl: &Decl, path: &Path, place: &Place, formed: bool) {
        let unbounded = MAX_REQUEST / (decl.min_json + 1);
        let cardinality = place.cardinality.unwrap_or(unbounded);
        let cost = rule.max_cost.saturating_mul(cardinality);
        self.report.rules.push(RuleReport {
            path: path.0.clone(),
            error: rule.error.clone(),
            message_error: rule.message_error.clone(),
            uses_old_self: rule.uses_old_self,
            max_cost: rule.max_cost,
            cardinality,
            cardinality_bounded: place.cardinality.is_some(),
            cost,
            message_cost: rule.message.as_ref().map(|_| rule.message_max_cost),
            field_path: rule.field_path.clone(),
        });
        // Rules beside or above one that is not well-formed are neither reported nor counted.
        if !formed {
            return;
        }
        self.observe(&path.child("rule"), cost);
        let message_cost = rule.message.as_ref().map(|_| rule.message_max_cost);
        if let Some(cost) = message_cost {
            self.observe(&path.child("messageExpression"), cost);
        }
        let mut limit = |name: &str, what: &str, cost: u64| {
            if !self.unchanged && cost > MAX_RULE_COST {
                let detail = too_expensive(what, cost, MAX_RULE_COST);
                self.error(ErrorKind::Forbidden, &path.child(name), None, detail);
            }
        };
        limit("rule", "estimated rule cost", cost);
        if let Some(cost) = message_cost {
            limit("messageExpression", "estimated messageExpression cost", cost);
        }
        let shown = || Some(rule.rule.go_json());
        if let Some(error) = &rule.error {
            self.error(ErrorKind::Invalid, &path.child("rule"), shown(), error.clone());
        }
        if let Some(error) = &rule.message_error {
            self.error(ErrorKind::Invalid, &path.child("messageExpression"), shown(), error.clone());
        }
        if rule.uses_old_self {
            if let Some(within) = &place.uncorrelatable {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {}",
                    within.0
                );
                self.error(
                    ErrorKind::Invalid,
                    &path.child("rule"),
                    Some(go_quote(&rule.rule.expression)),
                    detail,
                );
            }
        } else if let Some(optional) = rule.rule.optional_old_self {
            let detail = "may not be set if oldSelf is not used in rule".to_owned();
            self.error(
                ErrorKind::Invalid,
                &path.child("optionalOldSelf"),
                Some(optional.to_string()),
                detail,
            );
        }
    }

    /// Adds to the total cost, and records the most expensive rules.
    fn observe(&mut self, path: &Path, cost: u64) {
        self.report.cost = self.report.cost.saturating_add(cost);
        if cost < MAX_SCHEMA_COST / 100 {
            return;
        }
        self.expensive.push((path.clone(), cost));
        self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        self.expensive.truncate(MAX_NAMED);
    }
}

/// Returns the maximum number of items or entries of a value of the schema.
fn max_elements(schema: &Json) -> Option<u64> {
    let number =
        |name: &str| schema.get(name).and_then(Json::as_i64).map(|it| u64::try_from(it).unwrap_or(0));
    match schema.get("type").and_then(Json::as_str).unwrap_or_default() {
        "object" if schema.get("additionalProperties").is_some() => number("maxProperties"),
        "array" => number("maxItems"),
        _ => Some(1),
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, \
         maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
