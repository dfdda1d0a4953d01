//! Codes of letters and digits.

/// Returns whether a text is a UUID, of the given version if any. Dashes are optional.
pub(super) fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let mut rest = text;
    let mut digits = Vec::with_capacity(32);
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((part, after)) = rest.split_at_checked(length) else { return false };
        digits.extend_from_slice(part.as_bytes());
        rest = after;
    }
    if !rest.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let has_variant = |digit: u8| b"89abAB".contains(&digit);
    match (version, digits.get(12), digits.get(16)) {
        (Some(b'3'), Some(b'3'), _) | (None, ..) => true,
        (Some(version), Some(own), Some(variant)) => *own == version && has_variant(*variant),
        _ => false,
    }
}

/// Returns the text without spaces and dashes.
fn without_spaces(text: &str) -> Vec<u8> {
    text.bytes().filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'-')).collect()
}

pub(super) fn is_isbn10(text: &str) -> bool {
    let digits = without_spaces(text);
    let [first @ .., last] = digits.as_slice() else { return false };
    if first.len() != 9 || !first.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match last {
        b'X' => 10,
        digit if digit.is_ascii_digit() => u32::from(digit - b'0'),
        _ => return false,
    };
    let sum: u32 = first.iter().zip(1..).map(|(digit, factor)| u32::from(digit - b'0') * factor).sum();
    (sum + 10 * last).is_multiple_of(11)
}

pub(super) fn is_isbn13(text: &str) -> bool {
    let digits = without_spaces(text);
    if digits.len() != 13 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .zip([1, 3].iter().cycle())
        .map(|(digit, factor)| u32::from(digit - b'0') * factor)
        .sum();
    sum.is_multiple_of(10)
}

pub(super) fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    if !has_issuer(&digits) {
        return false;
    }
    let luhn = digits.iter().rev().enumerate().map(|(index, digit)| {
        let value = u32::from(*digit) << (index % 2);
        value / 10 + value % 10
    });
    luhn.sum::<u32>().is_multiple_of(10)
}

/// Returns whether the length and the first digits match a card issuer.
fn has_issuer(digits: &[u8]) -> bool {
    match digits.len() {
        13 => matches!(digits, [4, ..]),
        14 => matches!(digits, [3, 0, 0..=5, ..] | [3, 6 | 8, ..]),
        15 => matches!(digits, [3, 4 | 7, ..] | [2, 1, 3, 1, ..] | [1, 8, 0, 0, ..]),
        16 => matches!(digits, [4, ..] | [5, 1..=5, ..] | [6, 0, 1, 1, ..] | [3 | 6, 5, ..]),
        _ => false,
    }
}

pub(super) fn is_ssn(text: &str) -> bool {
    text.len() == 11
        && text.bytes().enumerate().all(|(index, byte)| match index {
            3 | 6 => matches!(byte, b'-' | b' '),
            _ => byte.is_ascii_digit(),
        })
}

pub(super) fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn is_rgb_color(text: &str) -> bool {
    let Some(parts) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let is_part = |part: &str| {
        let part = part.trim_matches(['\t', '\n', '\x0c', '\r', ' ']);
        let is_plain =
            part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        is_plain && part.parse::<u8>().is_ok()
    };
    parts.split(',').count() == 3 && parts.split(',').all(is_part)
}

/// Returns whether a text is non-empty base64 of the standard alphabet with padding.
pub(super) fn is_base64(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    !text.is_empty() && text.len().is_multiple_of(4) && digits.bytes().all(is_letter)
}
