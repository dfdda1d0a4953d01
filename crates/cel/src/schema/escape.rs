//! Names of properties in expressions. Names that are not identifiers are escaped (KEP-2876).

use std::borrow::Cow;

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Returns whether a name is a reserved word of the language.
pub fn is_reserved(name: &str) -> bool {
    !name.is_empty() && RESERVED.contains(&name)
}

const ESCAPES: [(&str, &str); 4] =
    [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// Returns the name of a property in expressions; `None` if expressions cannot name it.
pub fn escape_property(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.starts_with(|it: char| it.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-' | '/');
    if !name.chars().all(allowed) {
        return None;
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Some(Cow::Borrowed(name));
    }
    let mut escaped = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let escape = ESCAPES.iter().find(|(plain, _)| rest.starts_with(plain));
        let (plain, text) =
            escape.map_or((first.len_utf8(), None), |(plain, text)| (plain.len(), Some(*text)));
        escaped.push_str(text.unwrap_or(rest.get(..plain).unwrap_or_default()));
        rest = rest.get(plain..).unwrap_or_default();
    }
    Some(Cow::Owned(escaped))
}

/// Returns the name of a property from its name in expressions; `None` if the escaped name is malformed.
pub fn unescape_property(escaped: &str) -> Option<Cow<'_, str>> {
    if !escaped.contains("__") {
        return Some(Cow::Borrowed(escaped));
    }
    if let Some(name) = escaped.strip_prefix("__").and_then(|it| it.strip_suffix("__"))
        && is_reserved(name)
    {
        return Some(Cow::Owned(name.to_owned()));
    }
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(first) = rest.chars().next() {
        let (length, text) = if rest.starts_with("__") {
            let (plain, escape) = ESCAPES.iter().find(|(_, escape)| rest.starts_with(escape))?;
            (escape.len(), *plain)
        } else {
            (first.len_utf8(), rest.get(..first.len_utf8())?)
        };
        name.push_str(text);
        rest = rest.get(length..)?;
    }
    Some(Cow::Owned(name))
}
