//! The values of literals.

/// Error of a literal, with cel-go's text.
pub(super) const BAD_ESCAPE: &str = "unable to unescape string";
const BAD_CODE_POINT: &str = "invalid unicode code point";

/// Returns the value of a string literal, with its prefix and quotes.
pub(super) fn string(text: &str) -> Result<String, &'static str> {
    String::from_utf8(unescape(text, false)?).map_err(|_| BAD_ESCAPE)
}

/// Returns the value of a bytes literal, with its prefix and quotes.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    unescape(text.get(1..).unwrap_or_default(), true)
}

fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let raw = text.starts_with(['r', 'R']);
    let quoted = if raw { text.get(1..).unwrap_or_default() } else { &text };
    let width =
        if quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\"")) { 3 } else { 1 };
    let inner = quoted.get(width..quoted.len().saturating_sub(width)).ok_or(BAD_ESCAPE)?;
    if raw || !inner.contains('\\') {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        if next == '\\' {
            escape(&mut rest, bytes, &mut value)?;
        } else {
            push(&mut value, next);
        }
    }
    Ok(value)
}

fn push(value: &mut Vec<u8>, it: char) {
    value.extend_from_slice(it.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(rest: &mut std::str::Chars<'_>, bytes: bool, value: &mut Vec<u8>) -> Result<(), &'static str> {
    let letter = rest.next().ok_or(BAD_ESCAPE)?;
    let simple = match letter {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => letter as u8,
        _ => 0,
    };
    if simple != 0 {
        value.push(simple);
        return Ok(());
    }
    let (count, radix, start) = match letter {
        'x' | 'X' => (2, 16, 0),
        'u' if !bytes => (4, 16, 0),
        'U' if !bytes => (8, 16, 0),
        '0'..='3' => (2, 8, letter.to_digit(8).unwrap_or_default()),
        _ => return Err(BAD_ESCAPE),
    };
    let mut code = start;
    for _ in 0..count {
        let digit = rest.next().and_then(|it| it.to_digit(radix)).ok_or(BAD_ESCAPE)?;
        code = code.wrapping_mul(radix).wrapping_add(digit);
    }
    if bytes {
        value.push(code as u8);
        return Ok(());
    }
    push(value, char::from_u32(code).ok_or(BAD_CODE_POINT)?);
    Ok(())
}
