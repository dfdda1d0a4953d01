//! Equality and order of JSON values in structured merge diff: numbers are compared by value.

use std::cmp::Ordering;

use nave_machinery::Value;
use serde_json::Number;

/// Returns whether two values are equal; `1` equals `1.0`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((name, a), (other, b))| name == other && equal(a, b))
        }
        _ => a == b,
    }
}

/// Compares values of any type. The order is total: numbers, strings, booleans, lists, maps, null.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let fields = a.iter().zip(b);
            let mut orders =
                fields.map(|((name, a), (other, b))| name.cmp(other).then_with(|| compare(a, b)));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Compares integers and doubles by value without rounding integers. Sorting may panic if the order is not total.
fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_to_double(a, double(b)),
        (None, Some(b)) => compare_to_double(b, double(a)).reverse(),
        // JSON has no NaN.
        (None, None) => double(a).partial_cmp(&double(b)).unwrap_or(Ordering::Equal),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn double(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "doubles beyond all integers become the least or greatest"
)]
fn compare_to_double(integer: i128, double: f64) -> Ordering {
    let fraction = || 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal);
    integer.cmp(&(double.trunc() as i128)).then_with(fraction)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn compares_numbers_by_value() {
        assert!(equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!equal(&json!([1]), &json!([1, 2])));
        assert!(!equal(&json!({"a": 1}), &json!({"b": 1})));
        assert_eq!(compare(&json!(80), &json!(443)), Ordering::Less);
        assert_eq!(compare(&json!(-1), &json!(u64::MAX)), Ordering::Less);
        assert_eq!(compare(&json!(0), &json!(-0.0)), Ordering::Equal);
    }

    /// Some of these integers are equal when converted to doubles.
    #[test]
    fn numbers_have_a_total_order() {
        let (precise, most) = (1i64 << 53, i64::MAX);
        let sorted = [
            json!(-1e300),
            json!(i64::MIN),
            json!(-1.5),
            json!(-1),
            json!(0),
            json!(0.5),
            json!(1),
            json!(precise),
            json!(precise + 1),
            json!((precise + 2) as f64),
            json!(precise + 3),
            json!(most),
            json!(most as f64),
            json!(u64::MAX),
            json!(u64::MAX as f64),
            json!(1e300),
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare(&json!(precise), &json!(precise as f64)), Ordering::Equal);
    }

    #[test]
    fn orders_values_of_different_types() {
        let sorted = [json!(9), json!("a"), json!(false), json!([1]), json!({"a": 1}), json!(null)];
        for pair in sorted.windows(2) {
            assert_eq!(compare(&pair[0], &pair[1]), Ordering::Less);
            assert_eq!(compare(&pair[1], &pair[0]), Ordering::Greater);
        }
    }
}
