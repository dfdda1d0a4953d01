//! Numbers: ranges of formats, bounds, multiples, and their text in messages.

use nave_machinery::Value;
use nave_machinery::go_value::GoFloat;
use serde_json::Number;

use crate::formats::Format;
use crate::node::{Kind, Node, Rules};

/// Largest integer that a float holds exactly.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// A number as upstream decodes it: an `int64`, or a `float64` for all others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    pub(super) fn new(number: &Number) -> Self {
        match number.as_i64() {
            Some(int) => Self::Int(int),
            None => Self::Float(number.as_f64().unwrap_or(f64::MAX)),
        }
    }

    /// Returns whether two numbers have the same value.
    pub(super) fn same(self, other: Self) -> bool {
        self.exceeds(other.as_f64()) == Some(std::cmp::Ordering::Equal)
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// Converts the number to the value in errors.
    fn to_value(self) -> Value {
        match self {
            Self::Int(int) => Value::from(int),
            Self::Float(float) => Value::from(float),
        }
    }

    /// Compares with a bound without rounding the number.
    fn exceeds(self, bound: f64) -> Option<std::cmp::Ordering> {
        match self {
            // A float of this size is whole, so the integer comparison is exact.
            Self::Int(int) if bound.abs() < 9.2e18 && bound.fract() == 0.0 => Some(int.cmp(&(bound as i64))),
            other => other.as_f64().partial_cmp(&bound),
        }
    }
}

/// An error of a number.
pub(super) enum Wrong {
    /// A whole message without a path, as upstream reports ranges.
    Range(String),
    /// A message after the path, and the value that it shows.
    Rule(Value, String),
    /// A whole message: the text before and after the path.
    Factor(f64),
}

/// Returns the errors of a number, in upstream's order.
pub(super) fn check(node: &Node, rules: Option<&Rules>, num: Num, path: &dyn Fn() -> String) -> Vec<Wrong> {
    let range = Range::new(node, rules);
    let mut wrong = Vec::new();
    if !range.holds(num) {
        wrong.push(Wrong::Range(range.message("Checked", &path())));
    }
    let Some(rules) = rules else { return wrong };
    if let Some(factor) = rules.multiple_of {
        let factor = factor.get();
        let is_native = range.holds_bound(factor);
        if !is_native {
            wrong.push(Wrong::Range(range.message("MultipleOf", &path())));
        }
        wrong.extend(multiple(num, factor, is_native));
    }
    if let Some(minimum) = rules.minimum {
        let minimum = minimum.get();
        let is_native = range.holds_bound(minimum);
        if !is_native {
            wrong.push(Wrong::Range(range.message("Minimum boundary", &path())));
        }
        let bound = Bound { at: minimum, exclusive: rules.exclusive_minimum, is_upper: false };
        wrong.extend(bound.check(num, is_native));
    }
    if let Some(maximum) = rules.maximum {
        let maximum = maximum.get();
        let is_native = range.holds_bound(maximum);
        if !is_native {
            wrong.push(Wrong::Range(range.message("Maximum boundary", &path())));
        }
        let bound = Bound { at: maximum, exclusive: rules.exclusive_maximum, is_upper: true };
        wrong.extend(bound.check(num, is_native));
    }
    wrong
}

struct Bound {
    at: f64,
    exclusive: bool,
    is_upper: bool,
}

impl Bound {
    fn check(&self, num: Num, is_native: bool) -> Option<Wrong> {
        let is_int = is_native && matches!(num, Num::Int(_));
        // Upstream compares an integer with the truncated bound, which is stricter for some values.
        let cut = if is_int { self.at.trunc() } else { self.at };
        let at = [cut, self.at].into_iter().find(|at| self.is_beyond(num, *at))?;
        let relation = match (self.is_upper, self.exclusive) {
            (true, false) => "less than or equal to",
            (true, true) => "less than",
            (false, false) => "greater than or equal to",
            (false, true) => "greater than",
        };
        Some(Wrong::Rule(num.to_value(), format!("should be {relation} {}", limit(at, is_int))))
    }

    fn is_beyond(&self, num: Num, at: f64) -> bool {
        match num.exceeds(at) {
            Some(std::cmp::Ordering::Greater) => self.is_upper,
            Some(std::cmp::Ordering::Less) => !self.is_upper,
            Some(std::cmp::Ordering::Equal) => self.exclusive,
            None => true,
        }
    }
}

fn multiple(num: Num, factor: f64, is_native: bool) -> Option<Wrong> {
    let is_multiple = match num {
        Num::Int(int) if is_native => {
            let whole = factor as i64;
            if whole <= 0 {
                return Some(Wrong::Factor(whole as f64));
            }
            int % whole == 0 && (factor.fract() == 0.0 || is_multiple(int as f64, factor))
        }
        _ if factor <= 0.0 => return Some(Wrong::Factor(factor)),
        _ => is_multiple(num.as_f64(), factor),
    };
    let factor = limit(factor, is_native && matches!(num, Num::Int(_)));
    (!is_multiple).then(|| Wrong::Rule(num.to_value(), format!("should be a multiple of {factor}")))
}

/// Formats a number of a schema. Upstream compares integers with integers.
fn limit(limit: f64, is_int: bool) -> String {
    if is_int && limit.fract() == 0.0 { limit.to_string() } else { GoFloat(limit).to_string() }
}

fn is_multiple(value: f64, factor: f64) -> bool {
    is_safe_integer(if factor < 1.0 { 1.0 / factor * value } else { value / factor })
}

/// The range of the type and the format of a schema.
struct Range {
    kind: Option<Kind>,
    format: Option<Format>,
}

impl Range {
    fn new(node: &Node, rules: Option<&Rules>) -> Self {
        let kind = if node.int_or_string { None } else { node.kind };
        let kind = kind.filter(|kind| matches!(kind, Kind::Integer | Kind::Number));
        let format = rules.and_then(|rules| rules.format).filter(|_| kind.is_some());
        Self { kind, format: format.filter(|format| format.is_numeric()) }
    }

    fn holds(&self, num: Num) -> bool {
        match (self.kind, num) {
            (Some(Kind::Integer), Num::Int(int)) => {
                self.format != Some(Format::Int32) || i32::try_from(int).is_ok()
            }
            (_, Num::Int(int)) => self.holds_float(int as f64),
            (_, Num::Float(float)) => self.holds_float(float),
        }
    }

    fn holds_bound(&self, bound: f64) -> bool {
        self.holds_float(bound)
    }

    fn holds_float(&self, float: f64) -> bool {
        match (self.kind, self.format) {
            (Some(Kind::Integer), Some(Format::Int32)) => {
                float.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&float)
            }
            (Some(Kind::Integer), _) => {
                float.fract() == 0.0
                    && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float)
            }
            (Some(Kind::Number), Some(Format::Float)) => (float as f32).is_finite(),
            _ => true,
        }
    }

    fn message(&self, subject: &str, path: &str) -> String {
        let kind = self.kind.map_or("", Kind::as_str);
        match self.format {
            Some(format) => {
                format!("{subject} value must be of type {kind} with format {} in {path}", format.as_str())
            }
            None => format!("{subject} value must be of type {kind} (default format) in {path}"),
        }
    }
}

/// Returns whether a float is an integer within a tolerance of 1e-9, as `swag.IsFloat64AJSONInteger` does.
pub(super) fn is_safe_integer(float: f64) -> bool {
    if !float.is_finite() || float.abs() > MAX_SAFE {
        return false;
    }
    let whole = float.trunc();
    let difference = (float - whole).abs();
    if difference == 0.0 {
        return true;
    }
    if whole == 0.0 {
        return false;
    }
    difference / (float.abs() + whole.abs()).min(f64::MAX) < 1e-9
}

/// Formats a number as Go encodes it in JSON: with an exponent from 1e21 and below 1e-6.
pub(super) fn go_json(number: &Number) -> String {
    match Num::new(number) {
        Num::Int(int) => int.to_string(),
        Num::Float(float) if float == 0.0 || (1e-6..1e21).contains(&float.abs()) => float.to_string(),
        Num::Float(float) => GoFloat(float).to_string().replace("e-0", "e-"),
    }
}
