//! Error messages for invalid JSON, with the text of Go's `encoding/json`.
//!
//! Scans a text that another decoder has rejected, without building a value.

/// Returns the first error in `text`; `None` if the text is a JSON value.
pub(crate) fn first_error(text: &[u8]) -> Option<String> {
    Scanner { text, at: 0, open: Vec::new() }.scan().err()
}

const END: &str = "unexpected end of JSON input";

/// The expected next token.
#[derive(Clone, Copy)]
enum Next {
    Value,
    /// The first item of a list, or its end.
    ItemOrEnd,
    /// A key of an object.
    Key,
    /// The first key of an object, or its end.
    KeyOrEnd,
    Colon,
    /// After a value: a separator, or the end of the enclosing object or list.
    Separator,
}

#[derive(Clone, Copy)]
enum Open {
    Object,
    List,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
}

impl Scanner<'_> {
    fn scan(mut self) -> Result<(), String> {
        let mut next = Next::Value;
        loop {
            while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
                self.at += 1;
            }
            let Some(byte) = self.peek() else {
                let complete = matches!(next, Next::Separator) && self.open.is_empty();
                return if complete { Ok(()) } else { Err(END.to_owned()) };
            };
            next = match (next, byte) {
                (Next::ItemOrEnd, b']') | (Next::KeyOrEnd, b'}') => self.close(),
                (Next::Value | Next::ItemOrEnd, byte) => self.value(byte)?,
                (Next::Key | Next::KeyOrEnd, b'"') => {
                    self.string()?;
                    Next::Colon
                }
                (Next::Key | Next::KeyOrEnd, _) => {
                    return Err(self.unexpected("looking for beginning of object key string"));
                }
                (Next::Colon, b':') => {
                    self.at += 1;
                    Next::Value
                }
                (Next::Colon, _) => return Err(self.unexpected("after object key")),
                (Next::Separator, byte) => self.separator(byte)?,
            };
        }
    }

    fn value(&mut self, byte: u8) -> Result<Next, String> {
        match byte {
            b'{' => {
                self.at += 1;
                self.open.push(Open::Object);
                return Ok(Next::KeyOrEnd);
            }
            b'[' => {
                self.at += 1;
                self.open.push(Open::List);
                return Ok(Next::ItemOrEnd);
            }
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(self.unexpected("looking for beginning of value")),
        }
        Ok(Next::Separator)
    }

    fn separator(&mut self, byte: u8) -> Result<Next, String> {
        match (self.open.last(), byte) {
            (None, _) => Err(self.unexpected("after top-level value")),
            (Some(Open::Object), b'}') | (Some(Open::List), b']') => Ok(self.close()),
            (Some(Open::Object), b',') => {
                self.at += 1;
                Ok(Next::Key)
            }
            (Some(Open::List), b',') => {
                self.at += 1;
                Ok(Next::Value)
            }
            (Some(Open::Object), _) => Err(self.unexpected("after object key:value pair")),
            (Some(Open::List), _) => Err(self.unexpected("after array element")),
        }
    }

    fn close(&mut self) -> Next {
        self.at += 1;
        self.open.pop();
        Next::Separator
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.here()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                0..0x20 => return Err(self.unexpected("in string literal")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let escaped = self.here()?;
        match escaped {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' | b'u' => self.at += 1,
            _ => return Err(self.unexpected("in string escape code")),
        }
        if escaped == b'u' {
            for _ in 0..4 {
                if !self.here()?.is_ascii_hexdigit() {
                    return Err(self.unexpected("in \\u hexadecimal character escape"));
                }
                self.at += 1;
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.here()? == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// Skips one or more digits.
    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !self.here()?.is_ascii_digit() {
            return Err(self.unexpected(place));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.at += 1;
        for expected in literal.bytes().skip(1) {
            if self.here()? != expected {
                let expected = char::from(expected);
                return Err(self.unexpected(&format!("in literal {literal} (expecting '{expected}')")));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn here(&self) -> Result<u8, String> {
        self.peek().ok_or_else(|| END.to_owned())
    }

    fn unexpected(&self, place: &str) -> String {
        format!("invalid character {} {place}", quoted(self.peek().unwrap_or_default()))
    }
}

/// Formats a byte in single quotes as Go does.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        7 => r"'\a'".to_owned(),
        8 => r"'\b'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        11 => r"'\v'".to_owned(),
        12 => r"'\f'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_gos_text() {
        for (text, expected) in [
            ("", END),
            ("  ", END),
            ("{", END),
            (r#"{"a""#, END),
            (r#"{"a":"#, END),
            ("[1,", END),
            (r#""a"#, END),
            ("-", END),
            ("1.", END),
            ("tru", END),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{x", "invalid character 'x' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, "invalid character 'g' in \\u hexadecimal character escape"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("trUe", "invalid character 'U' in literal true (expecting 'u')"),
            ("nil", "invalid character 'i' in literal null (expecting 'u')"),
            ("'a'", r"invalid character '\'' looking for beginning of value"),
            ("Ï", "invalid character 'Ã' looking for beginning of value"),
            ("\u{1}", r"invalid character '\x01' looking for beginning of value"),
        ] {
            assert_eq!(first_error(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn valid_json_has_no_error() {
        for text in [
            "null",
            " {} ",
            r#"{"a":[1,-0.5e-3,true,false,null,"\u00e9\n\"",{},[]],"b":{"c":""}}"#,
            "0",
            "[[[]]]",
        ] {
            assert_eq!(first_error(text.as_bytes()), None, "{text}");
        }
    }
}
