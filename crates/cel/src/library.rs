//! Types of the available functions and operators: those of the language, of optional values, and of cel-go's string
//! and list extensions.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use crate::types::Type;

/// `NAME(ARGUMENTS) RESULT`, or `TARGET.NAME(ARGUMENTS) RESULT` for a method. A single letter is a type parameter: it
/// stands for the same type everywhere in the line.
const SIGNATURES: &str = "
!_(bool) bool
_&&_(bool, bool) bool
_||_(bool, bool) bool
_?_:_(bool, A, A) A
@not_strictly_false(bool) bool
_==_(A, A) bool
_!=_(A, A) bool
_+_(int, int) int
_+_(uint, uint) uint
_+_(double, double) double
_+_(string, string) string
_+_(bytes, bytes) bytes
_+_(list(A), list(A)) list(A)
-_(int) int
-_(double) double
@in(A, list(A)) bool
@in(A, map(A, B)) bool
_[_](list(A), int) A
_[_](map(A, B), A) B
_[?_](list(A), int) optional(A)
_[?_](map(A, B), A) optional(B)
_[?_](optional(list(A)), int) optional(A)
_[?_](optional(map(A, B)), A) optional(B)
_[_](optional(list(A)), int) optional(A)
_[_](optional(map(A, B)), A) optional(B)
size(string) int
size(bytes) int
size(list(A)) int
size(map(A, B)) int
string.size() int
bytes.size() int
list(A).size() int
map(A, B).size() int
string.contains(string) bool
string.startsWith(string) bool
string.endsWith(string) bool
string.matches(string) bool
matches(string, string) bool
string(A) string
int(A) int
uint(A) uint
double(A) double
bytes(A) bytes
dyn(A) dyn
type(A) type
string.charAt(int) string
string.indexOf(string) int
string.indexOf(string, int) int
string.lastIndexOf(string) int
string.lastIndexOf(string, int) int
string.lowerAscii() string
string.upperAscii() string
string.replace(string, string) string
string.replace(string, string, int) string
string.split(string) list(string)
string.split(string, int) list(string)
string.substring(int) string
string.substring(int, int) string
string.trim() string
string.reverse() string
string.format(list(A)) string
list(string).join() string
list(string).join(string) string
list(A).distinct() list(A)
list(A).flatten() list(dyn)
list(A).flatten(int) list(dyn)
list(A).reverse() list(A)
list(A).slice(int, int) list(A)
list(A).sort() list(A)
optional.of(A) optional(A)
optional.ofNonZeroValue(A) optional(A)
optional.none() optional(A)
optional(A).hasValue() bool
optional(A).value() A
optional(A).orValue(A) A
optional(A).or(optional(A)) optional(A)
";

/// Arithmetic operators of all numeric types.
const ARITHMETIC: [&str; 4] = ["_-_", "_*_", "_/_", "_%_"];
/// Comparison operators, also between different numeric types.
const COMPARISONS: [&str; 4] = ["_<_", "_<=_", "_>_", "_>=_"];
const NUMBERS: [Type; 3] = [Type::Int, Type::Uint, Type::Double];

/// The signature of one overload; the first parameter of a method is its target.
struct Signature {
    member: bool,
    parameters: Vec<Type>,
    result: Type,
}

static LIBRARY: LazyLock<HashMap<String, Vec<Signature>>> = LazyLock::new(|| {
    let mut library: HashMap<String, Vec<Signature>> = HashMap::new();
    let mut add = |name: &str, member, parameters, result| {
        library.entry(name.to_owned()).or_default().push(Signature { member, parameters, result });
    };
    for line in SIGNATURES.lines() {
        if let Some((name, member, parameters, result)) = parse(line) {
            add(&name, member, parameters, result);
        }
    }
    for number in &NUMBERS {
        for name in ARITHMETIC.into_iter().filter(|name| *name != "_%_" || *number != Type::Double) {
            add(name, false, vec![number.clone(), number.clone()], number.clone());
        }
    }
    for name in COMPARISONS {
        for (a, b) in NUMBERS.iter().flat_map(|a| NUMBERS.iter().map(move |b| (a, b))) {
            add(name, false, vec![a.clone(), b.clone()], Type::Bool);
        }
        for of in [Type::Bool, Type::String, Type::Bytes] {
            add(name, false, vec![of.clone(), of], Type::Bool);
        }
    }
    library
});

/// Returns whether a function has this name.
pub(crate) fn is_known(name: &str) -> bool {
    LIBRARY.contains_key(name)
}

/// Returns the type of a call; dynamic if it depends on dynamic arguments. `None` if no overload accepts the arguments.
pub(crate) fn result(name: &str, member: bool, arguments: &[Type]) -> Option<Type> {
    let signatures = LIBRARY.get(name)?.iter().filter(|signature| signature.member == member);
    let results = signatures.filter_map(|signature| signature.applied_to(arguments));
    results.reduce(|a, b| if a == b { a } else { Type::Dyn })
}

impl Signature {
    fn applied_to(&self, arguments: &[Type]) -> Option<Type> {
        if self.parameters.len() != arguments.len() {
            return None;
        }
        let mut known = BTreeMap::new();
        let fits = |(parameter, argument)| fits(parameter, argument, &mut known);
        self.parameters.iter().zip(arguments).all(fits).then(|| filled_in(&self.result, &known))
    }
}

/// Returns whether an argument is accepted for a parameter; binds type parameters in `known`.
fn fits(parameter: &Type, argument: &Type, known: &mut BTreeMap<char, Type>) -> bool {
    match (parameter, argument) {
        (Type::Parameter(name), _) => {
            let so_far = known.get(name);
            let fits = so_far.is_none_or(|so_far| so_far.overlaps(argument));
            let joined = so_far.map_or_else(|| argument.clone(), |so_far| so_far.join(argument));
            known.insert(*name, joined);
            fits
        }
        (_, Type::Dyn | Type::Nothing) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => fits(a, b, known),
        (Type::Map(a, b), Type::Map(c, d)) => fits(a, c, known) && fits(b, d, known),
        _ => parameter.overlaps(argument),
    }
}

fn filled_in(of: &Type, known: &BTreeMap<char, Type>) -> Type {
    match of {
        Type::Parameter(name) => known.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(of) => Type::list(filled_in(of, known)),
        Type::Optional(of) => Type::optional(filled_in(of, known)),
        Type::Map(from, to) => Type::map(filled_in(from, known), filled_in(to, known)),
        other => other.clone(),
    }
}

/// Parses one line of [`SIGNATURES`]; `None` for an empty line.
fn parse(line: &str) -> Option<(String, bool, Vec<Type>, Type)> {
    let (head, result) = line.rsplit_once(' ')?;
    let open = matching_open(head)?;
    let (name, arguments) = (&head[..open], head[open..].trim_start_matches('(').strip_suffix(')')?);
    let mut parameters = Vec::new();
    // `optional.of` is a name; any other prefix is the type of a target.
    let (target, name) = match name.rsplit_once('.') {
        Some((target, method)) if target != "optional" => (Some(target), method),
        _ => (None, name),
    };
    parameters.extend(target.map(parse_type));
    parameters.extend(split(arguments).into_iter().map(parse_type));
    Some((name.to_owned(), target.is_some(), parameters, parse_type(result)))
}

/// Returns the position of the opening parenthesis that matches the last closing one.
fn matching_open(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().rev().find_map(|(at, letter)| {
        match letter {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Splits at the commas outside of parentheses.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = list.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0 && letter == ','
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn parse_type(text: &str) -> Type {
    if let Some((name, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut inner = split(inner).into_iter().map(parse_type);
        let first = inner.next().unwrap_or(Type::Dyn);
        return match name {
            "list" => Type::list(first),
            "optional" => Type::optional(first),
            _ => Type::map(first, inner.next().unwrap_or(Type::Dyn)),
        };
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "type" => Type::Type,
        "dyn" => Type::Dyn,
        letter => Type::Parameter(letter.chars().next().unwrap_or('A')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_signature() {
        for line in SIGNATURES.lines().filter(|line| !line.is_empty()) {
            let (name, member, parameters, result) = parse(line).unwrap();
            let parameters: Vec<_> =
                parameters.iter().map(|of| of.to_string().replace("_type", "")).collect();
            let written = match parameters.split_first() {
                Some((target, rest)) if member => format!("{target}.{name}({})", rest.join(", ")),
                _ => format!("{name}({})", parameters.join(", ")),
            };
            assert_eq!(format!("{written} {result}").replace("_type", ""), line);
        }
    }

    #[test]
    fn a_type_parameter_is_one_type() {
        let texts = Type::list(Type::String);
        assert_eq!(result("@in", false, &[Type::String, texts.clone()]), Some(Type::Bool));
        assert_eq!(result("@in", false, &[Type::Int, texts.clone()]), None);
        assert_eq!(result("@in", false, &[Type::Dyn, texts.clone()]), Some(Type::Bool));
        assert_eq!(result("_[_]", false, &[texts.clone(), Type::Int]), Some(Type::String));
        assert_eq!(result("_[_]", false, &[Type::Dyn, Type::Int]), Some(Type::Dyn));
        assert_eq!(result("_+_", false, &[Type::Dyn, Type::String]), Some(Type::String));
        assert_eq!(result("_<_", false, &[Type::Int, Type::Double]), Some(Type::Bool));
        assert_eq!(result("_%_", false, &[Type::Double, Type::Double]), None);
        assert_eq!(result("join", true, &[texts]), Some(Type::String));
        assert_eq!(result("join", true, &[Type::list(Type::Int)]), None);
        assert_eq!(result("optional.of", false, &[Type::Int]), Some(Type::optional(Type::Int)));
    }
}
