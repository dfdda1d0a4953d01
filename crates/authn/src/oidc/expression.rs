//! The variables of CEL expressions in the configuration: the token's claims, and the user mapped from the claims.

use nave_cel::{Type, Variable};

/// The name of the claims variable.
pub(crate) const CLAIMS: &str = "claims";
/// The name of the user variable.
pub(crate) const USER: &str = "user";

/// The claims variable. Claim values have dynamic types.
pub(crate) fn claims() -> Variable {
    Variable { name: CLAIMS, ty: Type::map(Type::String, Type::Dyn) }
}

/// The user variable.
pub(crate) fn user() -> Variable {
    let texts = || Type::list(Type::String);
    let fields = vec![
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
    ];
    Variable { name: USER, ty: Type::object("kubernetes.UserInfo", fields) }
}
