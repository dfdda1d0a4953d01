//! Functions of mutating policies.

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// The functions for JSON patches.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: true,
    overloads: &[(
        "string_jsonpatch_escapeKey_string",
        "jsonpatch.escapeKey(string) string",
        Some(escape_key),
    )],
    singletons: &[],
    unguarded: &[],
};

fn escape_key<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(key)] = args else { return Err(Failure::overload()) };
    context.allocate(key.len() * 2)?;
    Ok(Value::text(key.replace('~', "~0").replace('/', "~1")))
}
