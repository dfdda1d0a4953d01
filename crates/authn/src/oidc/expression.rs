//! What expressions of the configuration speak of: a token's claims, or the user made of them.

use nave_cel::{Type, Variable};

/// A token's claims.
pub(crate) const CLAIMS: &str = "claims";
/// The user made of them.
pub(crate) const USER: &str = "user";

/// A token's claims, of which only the token knows the types.
pub(crate) fn claims() -> Variable {
    Variable { name: CLAIMS, ty: Type::map(Type::String, Type::Dyn) }
}

/// The user made of them.
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
