//! Regular expressions with Go's syntax and meaning. `matches` is among the strings.

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' regular expressions.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("string_find_string", "string::find(string) string", Some(find)),
        ("string_find_all_string", "string::findAll(string) list(string)", Some(find_all)),
        ("string_find_all_string_int", "string::findAll(string, int) list(string)", Some(find_all)),
    ],
    singletons: &[],
    unguarded: &[],
};

fn find<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(text), Value::String(pattern)] = args else { return Err(Failure::overload()) };
    let regex = illegal(context.regex(pattern)?)?;
    let found = context.search(|steps| regex.find_within(text, 1, steps))?;
    Ok(Value::text(found.first().copied().unwrap_or_default()))
}

fn find_all<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return Err(Failure::overload()),
    };
    let regex = illegal(context.regex(pattern)?)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = context.search(|steps| regex.find_within(text, limit, steps))?;
    context.allocate(found.len() * 64)?;
    Ok(Value::texts(found.into_iter().map(str::to_owned)))
}

fn illegal<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(format!("Illegal regex: {error}")))
}
