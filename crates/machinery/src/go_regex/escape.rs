//! Escapes of single characters.

use super::GoRegexError;

/// Parses the escape at the start of a text. Returns the character and the rest.
pub(super) fn character(text: &str) -> Result<(char, &str), GoRegexError> {
    let after = text.get(1..).unwrap_or_default();
    let Some(letter) = after.chars().next() else {
        return Err(GoRegexError::new("trailing backslash at end of expression", ""));
    };
    let rest = after.get(letter.len_utf8()..).unwrap_or_default();
    let invalid = |rest: &str| {
        let part = text.strip_suffix(rest).unwrap_or(text);
        GoRegexError::new("invalid escape sequence", part)
    };
    let plain = match letter {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0' => return octal(after).ok_or_else(|| invalid(rest)),
        // A single digit is a backreference, which Go does not support.
        '1'..='7' if rest.starts_with(is_octal) => return octal(after).ok_or_else(|| invalid(rest)),
        'x' => return hexadecimal(rest).map_err(invalid),
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => other,
        _ => return Err(invalid(rest)),
    };
    Ok((plain, rest))
}

fn is_octal(character: char) -> bool {
    matches!(character, '0'..='7')
}

/// Parses up to three octal digits.
fn octal(text: &str) -> Option<(char, &str)> {
    let length = text.chars().take(3).take_while(|digit| is_octal(*digit)).count();
    let code = u32::from_str_radix(text.get(..length)?, 8).ok()?;
    Some((char::from_u32(code)?, text.get(length..)?))
}

/// Parses two hexadecimal digits, or any number of digits in braces. The error is the text after the invalid part.
fn hexadecimal(text: &str) -> Result<(char, &str), &str> {
    if let Some(braced) = text.strip_prefix('{') {
        let Some((digits, rest)) = braced.split_once('}') else { return Err("") };
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten();
        return code.and_then(char::from_u32).map(|character| (character, rest)).ok_or(rest);
    }
    let Some(digits) = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    else {
        return Err(text);
    };
    let code = u8::from_str_radix(digits, 16).map_err(|_| text)?;
    Ok((char::from(code), text.get(2..).unwrap_or_default()))
}
