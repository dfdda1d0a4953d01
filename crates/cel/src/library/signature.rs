//! Reads signatures: `name(args) result`, or `target::name(args) result` for methods. Single capital letters are type
//! parameters.

use super::{Implementation, Library, Overload};
use crate::authorizer;
use crate::kinds::Type;
use crate::messages::WRAPPER;

/// Reads a signature. Returns `None` if it is malformed. A test reads all signatures.
pub(super) fn parse(
    id: &'static str,
    text: &'static str,
    implementation: Option<Implementation>,
    library: &Library,
) -> Option<(&'static str, Overload)> {
    let name_start = text.find("::").unwrap_or_default();
    let open = name_start + text.get(name_start..)?.find('(')?;
    let close = text.rfind(") ")?;
    let (head, args, result) = (text.get(..open)?, text.get(open + 1..close)?, text.get(close + 2..)?);
    let mut types: Vec<Type> = split(args).into_iter().map(read_type_name).collect::<Option<_>>()?;
    let (member, name) = match head.rfind("::") {
        Some(at) => {
            types.insert(0, read_type_name(head.get(..at)?)?);
            (true, head.get(at + 2..)?)
        }
        None => (false, head),
    };
    let (since, patch) = (library.since, library.patch);
    let result = read_type_name(result)?;
    Some((name, Overload { id, member, args: types, result, implementation, since, patch }))
}

fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..).filter(|last| !last.trim().is_empty()));
    parts.into_iter().map(str::trim).collect()
}

/// Reads the name of a type, as in signatures: `map(string, list(int))`.
pub(crate) fn read_type_name(text: &str) -> Option<Type> {
    if let Some(inner) = text.strip_suffix(')') {
        let (name, inner) = inner.split_once('(')?;
        let mut of = split(inner).into_iter().map(read_type_name).collect::<Option<Vec<_>>>()?.into_iter();
        return Some(match name {
            "list" => Type::list(of.next()?),
            "map" => Type::map(of.next()?, of.next()?),
            "optional" | "optional_type" => Type::optional(of.next()?),
            "type" => Type::type_of(of.next()?),
            "wrapper" => Type::Opaque(WRAPPER, Some(of.next()?.into())),
            _ => return None,
        });
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "ip" => Type::Opaque("net.IP", None),
        "cidr" => Type::Opaque("net.CIDR", None),
        "quantity" => Type::object("kubernetes.Quantity", []),
        "url" => Type::object("kubernetes.URL", []),
        "semver" => Type::object("kubernetes.Semver", []),
        "format" => Type::object("kubernetes.NamedFormat", []),
        "authorizer" => authorizer::authorizer_type(),
        "path_check" => Type::object("kubernetes.authorization.PathCheck", []),
        "group_check" => Type::object("kubernetes.authorization.GroupCheck", []),
        "resource_check" => authorizer::resource_check_type(),
        "decision" => Type::object("kubernetes.authorization.Decision", []),
        letter if letter.len() == 1 => Type::Parameter(letter.chars().next()?),
        _ => return None,
    })
}
