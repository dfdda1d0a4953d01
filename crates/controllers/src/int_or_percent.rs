//! Numbers that a user may write as a percentage.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or the percentage of `total` rounded up or down.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            let hundredfold = percent.saturating_mul(total.into());
            let number = if up { hundredfold.saturating_add(99) } else { hundredfold } / 100;
            i32::try_from(number).unwrap_or(i32::MAX)
        }
    }
}
