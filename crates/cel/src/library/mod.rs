//! The functions: signatures and implementations, one file per library.

pub(crate) mod authz;
pub(crate) mod convert;
pub(crate) mod format;
pub(crate) mod formats;
pub(crate) mod lists;
pub(crate) mod lists_ext;
pub(crate) mod network;
pub(crate) mod operators;
pub(crate) mod optionals;
pub(crate) mod patch;
pub(crate) mod quantity;
pub(crate) mod regexes;
pub(crate) mod semver;
mod signature;
pub(crate) mod strings;
pub(crate) mod time;
pub(crate) mod urls;

use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) use self::signature::read_type_name;
use crate::failure::Failure;
use crate::kinds::Type;
use crate::run::Context;
use crate::value::Value;

/// Computes a call from its arguments, the target first.
pub(crate) type Implementation = for<'a> fn(&Context<'a>, &[Value<'a>]) -> Result<Value<'a>, Failure>;

/// A function: a name and its overloads.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// The implementation of all overloads, which checks the types of its arguments.
    pub(crate) singleton: Option<Implementation>,
    /// True if calls do not check the arguments against the overloads' types.
    pub(crate) unguarded: bool,
    pub(crate) overloads: Vec<Overload>,
}

/// One signature of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) implementation: Option<Implementation>,
    /// The minor version of Kubernetes that introduced it.
    pub(crate) since: u32,
    /// True if only mutating policies can use the overload.
    pub(crate) patch: bool,
}

/// Functions of one library.
pub(crate) struct Library {
    /// The minor version of Kubernetes that introduced it.
    since: u32,
    patch: bool,
    /// Identifier, signature, implementation. See `signature.rs` for the notation.
    overloads: &'static [(&'static str, &'static str, Option<Implementation>)],
    /// Functions with one implementation for all overloads.
    singletons: &'static [(&'static str, Implementation)],
    /// Functions whose arguments are not checked.
    unguarded: &'static [&'static str],
}

/// All libraries, in the order in which upstream registers them.
const LIBRARIES: [&Library; 18] = [
    &operators::LIBRARY,
    &convert::LIBRARY,
    &time::LIBRARY,
    &urls::LIBRARY,
    &regexes::LIBRARY,
    &lists::LIBRARY,
    &authz::LIBRARY,
    &optionals::LIBRARY,
    &quantity::LIBRARY,
    &strings::LIBRARY,
    &lists_ext::SETS,
    &network::LIBRARY,
    &formats::LIBRARY,
    &authz::SELECTORS,
    &operators::TWO_VARIABLES,
    &semver::LIBRARY,
    &lists_ext::LIBRARY,
    &patch::LIBRARY,
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for library in LIBRARIES {
        for (id, text, implementation) in library.overloads {
            let Some((name, overload)) = signature::parse(id, text, *implementation, library) else {
                continue;
            };
            let function = functions.entry(name).or_insert_with(|| Function {
                name,
                singleton: None,
                unguarded: false,
                overloads: Vec::new(),
            });
            function.overloads.push(overload);
        }
        for (name, singleton) in library.singletons {
            if let Some(function) = functions.get_mut(name) {
                function.singleton = Some(*singleton);
            }
        }
        for name in library.unguarded {
            if let Some(function) = functions.get_mut(name) {
                function.unguarded = true;
            }
        }
    }
    functions
});

/// Returns a function.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

impl Overload {
    /// Returns whether arguments have the types of the overload. Only the first element of a list or map is checked.
    fn accepts(&self, args: &[Value<'_>]) -> bool {
        self.args.len() == args.len() && self.args.iter().zip(args).all(|(ty, arg)| matches(ty, arg))
    }
}

/// Returns whether a value has a type. Only the first element of a list or map is checked.
fn matches(ty: &Type, value: &Value<'_>) -> bool {
    match (ty, value) {
        (Type::Dyn | Type::Parameter(_) | Type::Variable(_), _) => true,
        (Type::List(of), Value::List(list)) => match list.get(0) {
            Some(Ok(first)) => matches(of, &first),
            Some(Err(_)) => false,
            None => true,
        },
        (Type::Map(from, to), Value::Map(map)) => map.keys().first().is_none_or(|key| {
            matches(from, key) && map.find(key).is_ok_and(|value| value.is_none_or(|it| matches(to, &it)))
        }),
        (ty, value) => ty.runtime_name() == value.type_name(),
    }
}

impl Function {
    /// Calls the function. `only` is the overload if the type checker found exactly one.
    pub(crate) fn call<'a>(
        &self,
        only: Option<&Overload>,
        context: &Context<'a>,
        args: &[Value<'a>],
    ) -> Result<Value<'a>, Failure> {
        if let Some(singleton) = self.singleton {
            return singleton(context, args);
        }
        let chosen = match only {
            Some(overload) => (self.unguarded || overload.accepts(args)).then_some(overload),
            None => self.overloads.iter().find(|overload| {
                overload.args.len() == args.len() && (self.unguarded || overload.accepts(args))
            }),
        };
        match chosen.and_then(|overload| overload.implementation) {
            Some(implementation) => implementation(context, args),
            None => {
                let names: Vec<&str> = args.iter().map(Value::type_name).collect();
                Err(Failure::new(format!("no such overload: {}({})", self.name, names.join(", "))))
            }
        }
    }
}
