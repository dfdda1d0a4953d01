//! Values as Go prints them in error messages.

use std::fmt::{self, Write};

use serde_json::Number;

use crate::Value;

/// Formats a value as Go prints a decoded map (`%+v`).
#[derive(Clone, Copy, Debug)]
pub struct GoValue<'a>(pub &'a Value);

impl fmt::Display for GoValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::String(text) => f.write_str(text),
            Value::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    let separator = if at == 0 { "" } else { " " };
                    write!(f, "{separator}{}", GoValue(item))?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => {
                f.write_str("map[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let separator = if at == 0 { "" } else { " " };
                    write!(f, "{separator}{name}:{}", GoValue(value))?;
                }
                f.write_str("]")
            }
            Value::Number(number) => GoNumber(number).fmt(f),
            Value::Bool(it) => it.fmt(f),
        }
    }
}

/// Formats a number as Go prints it after decoding (`%v`): an `int64` if it fits, otherwise a `float64`.
#[derive(Clone, Copy, Debug)]
pub struct GoNumber<'a>(pub &'a Number);

impl fmt::Display for GoNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_i64(), self.0.as_f64()) {
            (None, Some(float)) => GoFloat(float).fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

/// Formats a float as Go's `%v`: the shortest text, with an exponent from 1e6 and below 1e-4.
#[derive(Clone, Copy, Debug)]
pub struct GoFloat(pub f64);

impl fmt::Display for GoFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-4..1e6).contains(&size) || !size.is_finite() {
            return self.0.fmt(f);
        }
        let text = format!("{:e}", self.0);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        write!(f, "{mantissa}e{sign}{digits:0>2}")
    }
}

/// Formats a value in Go's syntax (`%#v`).
#[derive(Clone, Copy, Debug)]
pub struct GoSyntax<'a>(pub &'a Value);

impl fmt::Display for GoSyntax<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("interface {}(nil)"),
            Value::String(text) => GoQuoted(text).fmt(f),
            Value::Array(items) => {
                f.write_str("[]interface {}{")?;
                for (at, item) in items.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    write!(f, "{separator}{}", GoSyntax(item))?;
                }
                f.write_str("}")
            }
            Value::Object(fields) => {
                f.write_str("map[string]interface {}{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    write!(f, "{separator}{}:{}", GoQuoted(name), GoSyntax(value))?;
                }
                f.write_str("}")
            }
            scalar => write!(f, "{scalar}"),
        }
    }
}

/// Formats a string as Go quotes it (`%q`).
#[derive(Clone, Copy, Debug)]
pub struct GoQuoted<'a>(pub &'a str);

impl fmt::Display for GoQuoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{c}' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{b}' => f.write_str("\\v")?,
                ' '..='~' => f.write_char(letter)?,
                '\0'..='\u{7f}' => write!(f, "\\x{:02x}", u32::from(letter))?,
                _ if is_printable(letter) => f.write_char(letter)?,
                '\u{80}'..='\u{ffff}' => write!(f, "\\u{:04x}", u32::from(letter))?,
                _ => write!(f, "\\U{:08x}", u32::from(letter))?,
            }
        }
        f.write_char('"')
    }
}

fn is_printable(letter: char) -> bool {
    // Rust escapes the same characters as Go, and combining marks if nothing precedes them.
    let text = String::from_iter(['a', letter]);
    text.escape_debug().nth(1) == Some(letter)
}

/// Returns the type that Go's decoder gives to a value (`%T`).
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_numbers() {
        for (number, text) in [
            ("1000000", "1000000"),
            ("999999.5", "999999.5"),
            ("1000000.0", "1e+06"),
            ("-2147483647.0", "-2.147483647e+09"),
            ("9223372036854775808", "9.223372036854776e+18"),
            ("15.0", "15"),
            ("-0.0", "-0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e100", "1e+100"),
        ] {
            let value: Value = serde_json::from_str(number).unwrap();
            assert_eq!(GoValue(&value).to_string(), text);
        }
    }

    #[test]
    fn quotes_strings() {
        for (text, quoted) in [
            ("a\"b\\c'", r#""a\"b\\c'""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("\u{80}\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}", r#""\u0080\u00a0\u00ad\u200b\u2028\ufeff""#),
            ("\u{e0001}\u{10ffff}", r#""\U000e0001\U0010ffff""#),
            ("\u{301}aé\u{4e16}\u{1f600}", "\"\u{301}aé\u{4e16}\u{1f600}\""),
        ] {
            assert_eq!(GoQuoted(text).to_string(), quoted);
        }
    }

    #[test]
    fn prints_values_as_go() {
        let value = json!({"b": [1, "x y", null, true], "a": {"c": 1.5}, "e": [], "f": {}});
        assert_eq!(GoValue(&value).to_string(), "map[a:map[c:1.5] b:[1 x y <nil> true] e:[] f:map[]]");
        assert_eq!(
            GoSyntax(&value).to_string(),
            r#"map[string]interface {}{"a":map[string]interface {}{"c":1.5}, "b":[]interface {}{1, "x y", interface {}(nil), true}, "e":[]interface {}{}, "f":map[string]interface {}{}}"#
        );
    }
}
