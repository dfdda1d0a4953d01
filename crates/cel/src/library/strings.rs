//! Strings: the language's functions and cel-go's extension, version 2.

use super::{Library, format};
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Value, display};

/// The functions on strings.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("contains_string", "string::contains(string) bool", Some(contains)),
        ("ends_with_string", "string::endsWith(string) bool", Some(ends_with)),
        ("starts_with_string", "string::startsWith(string) bool", Some(starts_with)),
        ("matches", "matches(string, string) bool", None),
        ("matches_string", "string::matches(string) bool", None),
        ("string_char_at_int", "string::charAt(int) string", Some(char_at)),
        ("string_index_of_string", "string::indexOf(string) int", Some(index_of)),
        ("string_index_of_string_int", "string::indexOf(string, int) int", Some(index_of)),
        ("string_last_index_of_string", "string::lastIndexOf(string) int", Some(last_index_of)),
        ("string_last_index_of_string_int", "string::lastIndexOf(string, int) int", Some(last_index_of)),
        ("string_lower_ascii", "string::lowerAscii() string", Some(lower_ascii)),
        ("string_replace_string_string", "string::replace(string, string) string", Some(replace)),
        ("string_replace_string_string_int", "string::replace(string, string, int) string", Some(replace)),
        ("string_split_string", "string::split(string) list(string)", Some(split)),
        ("string_split_string_int", "string::split(string, int) list(string)", Some(split)),
        ("string_substring_int", "string::substring(int) string", Some(substring)),
        ("string_substring_int_int", "string::substring(int, int) string", Some(substring)),
        ("string_trim", "string::trim() string", Some(trim)),
        ("string_upper_ascii", "string::upperAscii() string", Some(upper_ascii)),
        ("string_format", "string::format(list(dyn)) string", Some(format::format)),
        ("strings_quote", "strings.quote(string) string", Some(quote)),
        ("list_join", "list(string)::join() string", Some(join)),
        ("list_join_string", "list(string)::join(string) string", Some(join)),
    ],
    singletons: &[("matches", matches)],
    unguarded: &["contains", "endsWith", "startsWith"],
};

fn pair<'v>(args: &'v [Value<'_>]) -> Result<(&'v str, &'v str), Failure> {
    match args {
        [Value::String(text), Value::String(part)] => Ok((text, part)),
        _ => Err(Failure::overload()),
    }
}

fn contains<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    pair(args).map(|(text, part)| Value::Bool(text.contains(part)))
}

fn ends_with<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    pair(args).map(|(text, part)| Value::Bool(text.ends_with(part)))
}

fn starts_with<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    pair(args).map(|(text, part)| Value::Bool(text.starts_with(part)))
}

fn matches<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, pattern) = match args {
        [Value::String(_), Value::String(_)] => pair(args)?,
        _ => return Err(Failure::overload()),
    };
    let regex = context.regex(pattern)?.map_err(Failure::new)?;
    context.search(|steps| regex.is_match_within(text, steps)).map(Value::Bool)
}

fn out_of_range(index: i64) -> Failure {
    Failure::new(format!("index out of range: {index}"))
}

fn char_at<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(text), Value::Int(index)] = args else { return Err(Failure::overload()) };
    let at = usize::try_from(*index).map_err(|_| out_of_range(*index))?;
    match text.chars().nth(at) {
        Some(found) => Ok(Value::text(found.to_string())),
        None if at == text.chars().count() => Ok(Value::text("")),
        None => Err(out_of_range(*index)),
    }
}

/// Returns the text, the searched part and the offset. The offset is optional.
fn search<'v>(args: &'v [Value<'_>]) -> Result<(&'v str, &'v str, Option<i64>), Failure> {
    match args {
        [Value::String(text), Value::String(part)] => Ok((text, part, None)),
        [Value::String(text), Value::String(part), Value::Int(offset)] => Ok((text, part, Some(*offset))),
        _ => Err(Failure::overload()),
    }
}

/// Returns the byte offset of a code point.
fn byte_offset(text: &str, chars: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(chars)
}

fn index_of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, part, offset) = search(args)?;
    let offset = offset.unwrap_or(0);
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    let found = byte_offset(text, from).and_then(|start| {
        let at = text.get(start..)?.find(part)?;
        Some(text.get(..start + at)?.chars().count() as i64)
    });
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, part, offset) = search(args)?;
    let length = text.chars().count();
    let Some(offset) = offset else {
        if part.is_empty() {
            return Ok(Value::Int(length as i64));
        }
        let found = text.rfind(part).and_then(|at| text.get(..at));
        return Ok(Value::Int(found.map_or(-1, |before| before.chars().count() as i64)));
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    let last = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    if last >= length {
        return Ok(Value::Int(-1));
    }
    // The match must begin at or before the offset.
    let end = last.saturating_add(part.chars().count()).min(length);
    let found = byte_offset(text, end).and_then(|end| {
        let head = text.get(..end)?;
        Some(head.get(..head.rfind(part)?)?.chars().count() as i64)
    });
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn one<'v>(args: &'v [Value<'_>]) -> Result<&'v str, Failure> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(Failure::overload()),
    }
}

fn lower_ascii<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let text = one(args)?;
    context.allocate(text.len())?;
    Ok(Value::text(text.to_ascii_lowercase()))
}

fn upper_ascii<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let text = one(args)?;
    context.allocate(text.len())?;
    Ok(Value::text(text.to_ascii_uppercase()))
}

fn trim<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let space = |it: char| it.is_whitespace();
    Ok(Value::text(one(args)?.trim_matches(space)))
}

fn replace<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => {
            (text, old, new, *limit)
        }
        _ => return Err(Failure::overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let places = text.matches(&**old).count().min(limit);
    context.allocate(text.len().saturating_add(places.saturating_mul(new.len())))?;
    Ok(Value::text(text.replacen(&**old, new, limit)))
}

fn split<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return Err(Failure::overload()),
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<String> = if separator.is_empty() {
        // Splits into code points; the last part is the rest of the text.
        let cut = byte_offset(text, limit.saturating_sub(1).min(text.len())).unwrap_or(text.len());
        let head = text.get(..cut).unwrap_or_default().chars().map(String::from);
        let tail = text.get(cut..).filter(|tail| !tail.is_empty()).map(str::to_owned);
        head.chain(tail).collect()
    } else {
        text.splitn(limit, &**separator).map(str::to_owned).collect()
    };
    context.allocate(text.len() + parts.len() * 64)?;
    Ok(Value::texts(parts))
}

fn substring<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(Failure::overload()),
    };
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(Failure::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let place = |index: i64| usize::try_from(index).ok().and_then(|at| byte_offset(text, at));
    let from = place(start).ok_or_else(|| out_of_range(start))?;
    let to = match end {
        Some(end) => place(end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    context.allocate(to.saturating_sub(from))?;
    Ok(Value::text(text.get(from..to).unwrap_or_default()))
}

fn join<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return Err(Failure::overload()),
    };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        let item = item?;
        let Value::String(text) = &item else {
            return Err(Failure::new(format!("join: invalid input: {}", display(&item))));
        };
        context.allocate(text.len() + separator.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

fn quote<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let text = one(args)?;
    context.allocate(text.len() * 2 + 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::text(quoted))
}
