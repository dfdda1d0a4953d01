//! Validation of a value, and of everything below it, against a schema.

use std::collections::HashSet;

use nave_machinery::go_value::GoFloat;
use nave_machinery::{FieldError, FieldErrorKind, FieldPath, Map, Value};

use super::number::{self, Num, Wrong};
use super::old::Old;
use super::outcome::Outcome;
use super::path::Path;
use super::types::{
    format_of, has_type, number_value, same, shown_in_enum, too_long, too_many, type_names, type_of,
};
use crate::excerpt::{excerpt, excerpt_text};
use crate::node::{Additional, Kind, Node, NodeRef, Rules};

/// Maximum number of comparisons of a value with a schema for one object. The largest body has a million values, and
/// few schemas have alternatives for each value. A step takes about 50 ns.
const MAX_STEPS: u64 = 4_000_000;

pub(super) struct Walk<'w> {
    base: &'w FieldPath,
    steps: u64,
}

impl<'w> Walk<'w> {
    /// Creates a walk whose errors have paths below `base`.
    pub(super) fn new(base: &'w FieldPath) -> Self {
        Self { base, steps: 0 }
    }

    /// Validates a value. Ratchets its errors if the value equals `old`.
    pub(super) fn ratcheted(
        &mut self,
        node: &Node,
        value: &Value,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        let Some(old) = old else {
            self.check(node, value, path, None, out);
            return;
        };
        let mut below = if out.collects() { Outcome::collect() } else { Outcome::quick() };
        self.check(node, value, path, Some(old), &mut below);
        if !below.is_valid() && old.equals(value) {
            below.ratchet();
        }
        out.merge(below);
    }

    /// Validates a value.
    pub(super) fn check(
        &mut self,
        node: &Node,
        value: &Value,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            let why = "the object takes too many steps to validate";
            out.error(|| {
                FieldError::with(FieldErrorKind::Internal, &self.field_path(path), Value::Null, why)
            });
            return;
        }
        let rules = node.rules.as_deref();
        if value.is_null() {
            self.null(node, rules, path, out);
            return;
        }
        // Upstream counts a match for each applicable validator, the value itself, and the schema's logic.
        out.matches += 4;
        self.kind(node, rules, value, path, out);
        if let Some(rules) = rules {
            self.logic(rules, value, path, old, out);
        }
        match value {
            Value::String(text) => self.text(rules, text, path, out),
            Value::Number(number) => self.number(node, rules, Num::new(number), path, out),
            Value::Array(items) => self.list(node, rules, items, path, old, out),
            _ => {}
        }
        if let Some(rules) = rules {
            self.enumeration(rules, value, path, out);
        }
        if let Value::Object(fields) = value {
            self.object(node, rules, fields, path, old, out);
        }
    }

    fn null(&self, node: &Node, rules: Option<&Rules>, path: &Path, out: &mut Outcome) {
        if (node.kind.is_some() || node.int_or_string) && !node.nullable {
            self.wrong_type(&type_names(node), "null", path, out);
        } else {
            out.matches += 1;
        }
        if let Some(rules) = rules {
            self.enumeration(rules, &Value::Null, path, out);
        }
    }

    fn kind(&self, node: &Node, rules: Option<&Rules>, value: &Value, path: &Path, out: &mut Outcome) {
        let format = rules.and_then(|rules| rules.format);
        let has_format = format.is_some();
        if node.kind.is_none() && !node.int_or_string && format.is_none() {
            return;
        }
        out.matches += 1;
        if has_type(node, value) {
            out.matches += 1;
            return;
        }
        // Upstream does not check the type of a list where a format of texts applies.
        if value.is_array() && has_format && !matches!(node.kind, Some(Kind::Integer | Kind::Number)) {
            return;
        }
        // A format without a type applies to strings; values of other types are reported by their own format.
        let by_format = format.filter(|_| !value.is_string() && !value.is_array());
        match by_format {
            Some(format) => self.wrong_type(format.as_str(), format_of(value), path, out),
            None if node.kind.is_none() && !node.int_or_string => out.matches += 1,
            None => self.wrong_type(&type_names(node), type_of(value), path, out),
        }
    }

    fn wrong_type(&self, expected: &str, actual: &str, path: &Path, out: &mut Outcome) {
        out.error(|| {
            let text = path.text();
            let actual = excerpt_text(actual);
            let detail = format!("{text} in body must be of type {expected}: {actual:?}");
            FieldError::type_invalid(&Path::below(self.base, &text), actual, detail)
        });
    }

    fn text(&self, rules: Option<&Rules>, text: &str, path: &Path, out: &mut Outcome) {
        out.matches += 1;
        let Some(rules) = rules else { return };
        self.text_rules(rules, text, path, out);
        let Some(format) = rules.format.filter(|format| format.is_textual()) else { return };
        out.matches += 1;
        if !format.matches(text) {
            self.wrong_type(format.as_str(), text, path, out);
        }
    }

    /// Checks length and pattern, up to the first error.
    fn text_rules(&self, rules: &Rules, text: &str, path: &Path, out: &mut Outcome) {
        let length = if rules.max_length.is_some() || rules.min_length.is_some() {
            text.chars().count() as i64
        } else {
            0
        };
        if let Some(max) = rules.max_length
            && length > max
        {
            out.error(|| {
                FieldError::with(FieldErrorKind::TooLong, &self.field_path(path), Value::Null, too_long(max))
            });
            return;
        }
        if let Some(min) = rules.min_length
            && length < min
        {
            self.rule(excerpt_text(text), &format!("should be at least {min} chars long"), path, out);
            return;
        }
        let Some(pattern) = &rules.pattern else { return };
        match pattern.is_match(text) {
            Ok(true) => {}
            Ok(false) => {
                self.rule(excerpt_text(text), &format!("should match '{}'", pattern.text), path, out);
            }
            Err(why) => {
                let detail = format!("should match '{}, but pattern is invalid: {why}'", pattern.text);
                self.rule(excerpt_text(text), &detail, path, out);
            }
        }
    }

    fn number(&self, node: &Node, rules: Option<&Rules>, num: Num, path: &Path, out: &mut Outcome) {
        out.matches += 2;
        for wrong in number::check(node, rules, num, &|| path.text()) {
            match wrong {
                Wrong::Range(message) => self.whole(message, out),
                Wrong::Rule(value, detail) => self.rule(value, &detail, path, out),
                Wrong::Factor(factor) => out.error(|| {
                    let text = path.text();
                    let factor = GoFloat(factor).to_string();
                    let detail = format!("factor MultipleOf declared for {text} must be positive: {factor}");
                    FieldError::invalid(&Path::below(self.base, &text), number_value(&factor), detail)
                }),
            }
        }
    }

    fn list(
        &mut self,
        node: &Node,
        rules: Option<&Rules>,
        items: &[Value],
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        out.matches += 2;
        if let Some(below) = node.items.as_deref() {
            let old_items = old.and_then(Old::items);
            for (index, item) in items.iter().enumerate() {
                if out.is_done() {
                    return;
                }
                let old = old_items.as_ref().and_then(|old| old.find(item));
                self.ratcheted(below, item, &Path::Index(path, index), old, out);
            }
        }
        let Some(rules) = rules else { return };
        let size = items.len() as i64;
        if let Some(min) = rules.min_items
            && size < min
        {
            self.rule(size, &format!("should have at least {min} items"), path, out);
        }
        if let Some(max) = rules.max_items
            && size > max
        {
            out.error(|| too_many(&self.field_path(path), size, max));
        }
        if rules.unique_items {
            let mut seen = HashSet::with_capacity(items.len());
            if !items.iter().all(|item| seen.insert(item)) {
                self.rule("", "shouldn't contain duplicates", path, out);
            }
        }
    }

    fn object(
        &mut self,
        node: &Node,
        rules: Option<&Rules>,
        fields: &Map,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        out.matches += 1;
        if let Some(rules) = rules {
            self.size(rules, fields.len() as i64, path, out);
        }
        for (name, value) in fields {
            if out.is_done() {
                return;
            }
            if let Some(below) = node.field(name) {
                let is_type_meta =
                    matches!(path, Path::Root) && matches!(name.as_str(), "kind" | "apiVersion");
                let old = old.filter(|_| !is_type_meta).and_then(|old| old.field(name));
                self.ratcheted(below, value, &Path::Field(path, name), old, out);
            } else if node.additional == Additional::Forbidden {
                out.error(|| {
                    let text = path.text();
                    let detail = format!("{text}.{name} in body is a forbidden property");
                    FieldError::invalid(&Path::below(self.base, &text), name.as_str(), detail)
                });
            }
        }
        for name in rules.map_or(&[][..], |rules| &rules.required) {
            if !fields.contains_key(&**name) {
                out.error(|| FieldError::required(&self.field_path(&Path::Field(path, name)), ""));
            }
        }
    }

    fn size(&self, rules: &Rules, size: i64, path: &Path, out: &mut Outcome) {
        if let Some(min) = rules.min_properties
            && size < min
        {
            self.rule(size, &format!("should have at least {min} properties"), path, out);
        }
        if let Some(max) = rules.max_properties
            && size > max
        {
            out.error(|| too_many(&self.field_path(path), size, max));
        }
    }

    fn enumeration(&self, rules: &Rules, value: &Value, path: &Path, out: &mut Outcome) {
        let allowed = &rules.enumeration;
        if allowed.is_empty() || (!value.is_null() && allowed.iter().any(|known| same(known, value))) {
            return;
        }
        out.error(|| {
            let shown: Vec<String> = allowed.iter().map(shown_in_enum).collect();
            let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
            FieldError::not_supported(&self.field_path(path), excerpt(value), &shown)
        });
    }

    /// Checks `anyOf`, `oneOf`, `allOf` and `not`, in upstream's order.
    fn logic(&mut self, rules: &Rules, value: &Value, path: &Path, old: Option<Old>, out: &mut Outcome) {
        if !rules.any_of.is_empty() {
            self.any_of(&rules.any_of, value, path, old, out);
        }
        if !rules.one_of.is_empty() {
            self.one_of(&rules.one_of, value, path, old, out);
        }
        let mut passed = 0;
        for schema in &rules.all_of {
            let mut result = if out.collects() { Outcome::collect() } else { Outcome::quick() };
            self.check(schema, value, path, old, &mut result);
            passed += usize::from(result.is_valid());
            out.merge(result);
        }
        if passed < rules.all_of.len() {
            let none = if passed == 0 { ". None validated" } else { "" };
            self.whole_quoted(path, &format!("must validate all the schemas (allOf){none}"), out);
        }
        if let Some(schema) = &rules.not
            && self.is_valid(schema, value, path, old)
        {
            self.whole_quoted(path, "must not validate the schema (not)", out);
        }
    }

    fn any_of(
        &mut self,
        schemas: &[NodeRef],
        value: &Value,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        for schema in schemas {
            let mut result = Outcome::quick();
            self.check(schema, value, path, old, &mut result);
            if result.is_valid() {
                out.matches += result.matches;
                return;
            }
        }
        self.whole_quoted(path, "must validate at least one schema (anyOf)", out);
        self.best_failure(schemas, value, path, old, out);
    }

    fn one_of(
        &mut self,
        schemas: &[NodeRef],
        value: &Value,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        let mut valid = 0;
        let mut matches = 0;
        for schema in schemas {
            let mut result = Outcome::quick();
            self.check(schema, value, path, old, &mut result);
            if result.is_valid() {
                matches = if valid == 0 { result.matches } else { matches };
                valid += 1;
            }
        }
        match valid {
            1 => out.matches += matches,
            0 => {
                let why = "must validate one and only one schema (oneOf). Found none valid";
                self.whole_quoted(path, why, out);
                self.best_failure(schemas, value, path, old, out);
            }
            _ => {
                let why = format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                );
                self.whole_quoted(path, &why, out);
            }
        }
    }

    /// Adds the errors of the alternative with the most matches.
    fn best_failure(
        &mut self,
        schemas: &[NodeRef],
        value: &Value,
        path: &Path,
        old: Option<Old>,
        out: &mut Outcome,
    ) {
        if !out.collects() {
            return;
        }
        let mut best: Option<Outcome> = None;
        for schema in schemas {
            let mut result = Outcome::collect();
            self.check(schema, value, path, old, &mut result);
            if best.as_ref().is_none_or(|best| result.matches > best.matches) {
                best = Some(result);
            }
        }
        if let Some(best) = best {
            out.merge(best);
        }
    }

    fn is_valid(&mut self, schema: &Node, value: &Value, path: &Path, old: Option<Old>) -> bool {
        let mut result = Outcome::quick();
        self.check(schema, value, path, old, &mut result);
        result.is_valid()
    }

    /// Adds an error about a value. The message begins with the path.
    fn rule(&self, value: impl Into<Value>, detail: &str, path: &Path, out: &mut Outcome) {
        out.error(|| {
            let text = path.text();
            let message = format!("{text} in body {detail}");
            FieldError::invalid(&Path::below(self.base, &text), value, message)
        });
    }

    /// Adds an error about the whole object.
    fn whole(&self, message: String, out: &mut Outcome) {
        out.error(|| FieldError::invalid(self.base, "", message));
    }

    fn whole_quoted(&self, path: &Path, detail: &str, out: &mut Outcome) {
        out.error(|| FieldError::invalid(self.base, "", format!("{:?} {detail}", path.text())));
    }

    fn field_path(&self, path: &Path) -> FieldPath {
        Path::below(self.base, &path.text())
    }
}
