//! Resource quantities.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use nave_machinery::quantity::Quantity as Amount;

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' functions on quantities.
pub(super) const LIBRARY: Library = Library {
    since: 28,
    patch: false,
    overloads: &[
        ("string_to_quantity", "quantity(string) quantity", Some(to_quantity)),
        ("is_quantity_string", "isQuantity(string) bool", Some(is_quantity)),
        ("quantity_sign", "sign(quantity) int", Some(sign)),
        ("quantity_is_greater_than", "quantity::isGreaterThan(quantity) bool", Some(is_greater_than)),
        ("quantity_is_less_than", "quantity::isLessThan(quantity) bool", Some(is_less_than)),
        ("quantity_compare_to", "quantity::compareTo(quantity) int", Some(compare_to)),
        ("quantity_get_float", "quantity::asApproximateFloat() double", Some(as_approximate_float)),
        ("quantity_get_int", "quantity::asInteger() int", Some(as_integer)),
        ("quantity_is_integer", "quantity::isInteger() bool", Some(is_integer)),
        ("quantity_add", "quantity::add(quantity) quantity", Some(add)),
        ("quantity_add_int", "quantity::add(int) quantity", Some(add)),
        ("quantity_sub", "quantity::sub(quantity) quantity", Some(sub)),
        ("quantity_sub_int", "quantity::sub(int) quantity", Some(sub)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// A quantity.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    amount: Amount,
    /// Number and decimal exponent, if upstream stores the quantity as an integer. `isInteger` is true only for such
    /// quantities.
    exact: Option<(i64, i32)>,
    /// The decimal exponent of the number that upstream stores otherwise.
    exponent: i32,
    /// The original text, if upstream keeps it instead of the canonical form.
    text: Option<String>,
    /// True if the quantity is the result of a calculation.
    pub(crate) computed: bool,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.amount.fmt(f),
        }
    }
}

/// The decimal exponent of nanos.
const NANO: i32 = -9;
const SUFFIX: &str = "unable to parse quantity's suffix";
const FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
/// Maximum number of digits that always fit in an `i64`.
const MAX_DIGITS: usize = 18;

impl Quantity {
    /// Parses a quantity.
    ///
    /// # Errors
    /// The text is not a quantity.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let amount = Amount::parse(text).map_err(|_| explain(text))?;
        if text == "0" {
            let text = Some(text.to_owned());
            return Ok(Self { amount, exact: Some((0, 0)), exponent: 0, text, computed: false });
        }
        let (exact, keeps_text) = exact_form(text).unwrap_or((None, false));
        let text = keeps_text.then(|| text.to_owned());
        Ok(Self { amount, exact, exponent: NANO, text, computed: false })
    }

    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.amount.partial_cmp(&other.amount).unwrap_or(Ordering::Equal)
    }

    fn as_integer(&self) -> Option<i64> {
        let (value, exponent) = self.exact?;
        let factor = u32::try_from(exponent).ok()?;
        value.checked_mul(10i64.checked_pow(factor)?)
    }

    fn plus(&self, other: &Self, negative: bool) -> Self {
        let amount = if negative { self.amount - other.amount } else { self.amount + other.amount };
        let exact = match (self.exact, other.exact) {
            (Some(a), Some((value, exponent))) => {
                let value = if negative { value.checked_neg() } else { Some(value) };
                value.and_then(|value| add_exact(a, (value, exponent)))
            }
            _ => None,
        };
        let exponent = self.stored_exponent().min(other.stored_exponent());
        Self { amount, exact, exponent, text: None, computed: true }
    }

    fn stored_exponent(&self) -> i32 {
        self.exact.map_or(self.exponent, |(_, exponent)| exponent)
    }

    /// Returns the product of the stored number and its power of ten, each rounded, as upstream.
    fn as_approximate_float(&self) -> f64 {
        let (number, exponent) = match self.exact {
            Some((number, exponent)) => (number as f64, exponent),
            None => {
                let (number, exponent) = self.amount.scaled(self.exponent);
                (number as f64, exponent)
            }
        };
        if exponent == 0 { number } else { number * format!("1e{exponent}").parse().unwrap_or(f64::INFINITY) }
    }
}

fn add_exact(a: (i64, i32), b: (i64, i32)) -> Option<(i64, i32)> {
    if b.0 == 0 {
        return Some(a);
    }
    if a.0 == 0 {
        return Some(b);
    }
    let exponent = a.1.min(b.1);
    let scaled = |(value, own): (i64, i32)| value.checked_mul(10i64.checked_pow((own - exponent) as u32)?);
    Some((scaled(a)?.checked_add(scaled(b)?)?, exponent))
}

/// Returns the integer form, and whether upstream keeps the text. Upstream: the fast path of `ParseQuantity`.
fn exact_form(text: &str) -> Option<(Option<(i64, i32)>, bool)> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if negative { -1 } else { 1 };
    let bits: Option<u32> = match suffix {
        "Ki" => Some(10),
        "Mi" => Some(20),
        "Gi" => Some(30),
        "Ti" => Some(40),
        "Pi" => Some(50),
        "Ei" => Some(60),
        _ => None,
    };
    let shifted = format!("{whole}{fraction}");
    if let Some(bits) = bits {
        let room = 15 - whole.len() as i64 - (f64::from(bits) * 3.0 / 10.0) as i64 - 1;
        if !fraction.is_empty() || room < 0 {
            return None;
        }
        let value: i64 = shifted.parse().ok()?;
        return Some((Some((sign * value.checked_mul(1i64.checked_shl(bits)?)?, 0)), value & 7 != 0));
    }
    let exponent: i32 = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        other => other.get(1..)?.parse().ok()?,
    };
    let scale = exponent - fraction.len() as i32;
    if shifted.len() > MAX_DIGITS || scale < -9 {
        return None;
    }
    let value: i64 = shifted.parse().ok()?;
    let keeps = scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0');
    Some((Some((sign * value, scale)), keeps))
}

/// Returns upstream's error message.
fn explain(text: &str) -> &'static str {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = unsigned.trim_start_matches(|it: char| it.is_ascii_digit());
    let number =
        number.strip_prefix('.').map_or(number, |it| it.trim_start_matches(|it: char| it.is_ascii_digit()));
    let letters = number.trim_start_matches(|it: char| "eEinumkKMGTP".contains(it));
    let rest = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    let rest = rest.trim_start_matches(|it: char| it.is_ascii_digit());
    let suffix = number;
    if text.is_empty() || !rest.is_empty() {
        FORMAT
    } else if number.len() == unsigned.len() && Amount::parse(&format!("1{suffix}")).is_ok() {
        "unable to parse numeric part of quantity"
    } else {
        SUFFIX
    }
}

fn parse(args: &[Value<'_>]) -> Result<Result<Quantity, &'static str>, Failure> {
    match args {
        [Value::String(text)] => Ok(Quantity::parse(text)),
        _ => Err(Failure::overload()),
    }
}

fn to_quantity<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    parse(args)?.map(|it| Value::Quantity(Arc::new(it))).map_err(Failure::new)
}

fn is_quantity<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(parse(args)?.is_ok()))
}

fn one<'v>(args: &'v [Value<'_>]) -> Result<&'v Quantity, Failure> {
    match args {
        [Value::Quantity(it)] => Ok(it),
        _ => Err(Failure::overload()),
    }
}

fn sign<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let amount = one(args)?.amount;
    Ok(Value::Int(if amount.is_zero() {
        0
    } else if amount.is_negative() {
        -1
    } else {
        1
    }))
}

fn as_approximate_float<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Double(one(args)?.as_approximate_float()))
}

fn as_integer<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let found = one(args)?.as_integer();
    found.map(Value::Int).ok_or_else(|| Failure::new("cannot convert value to integer"))
}

fn is_integer<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(one(args)?.as_integer().is_some()))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Failure> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(a.compare(b)),
        _ => Err(Failure::overload()),
    }
}

fn is_greater_than<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Bool(order.is_gt()))
}

fn is_less_than<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Bool(order.is_lt()))
}

fn compare_to<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Int(order as i64))
}

fn combine<'a>(args: &[Value<'a>], negative: bool) -> Result<Value<'a>, Failure> {
    let (left, right) = match args {
        [Value::Quantity(a), Value::Quantity(b)] => (a, Arc::clone(b)),
        [Value::Quantity(a), Value::Int(b)] => {
            let amount = Amount::from_value(*b);
            (a, Arc::new(Quantity { amount, exact: Some((*b, 0)), exponent: 0, text: None, computed: true }))
        }
        _ => return Err(Failure::overload()),
    };
    Ok(Value::Quantity(Arc::new(left.plus(&right, negative))))
}

fn add<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    combine(args, false)
}

fn sub<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    combine(args, true)
}
