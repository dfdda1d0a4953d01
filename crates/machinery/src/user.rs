//! The user of a request.

use std::collections::BTreeMap;

/// An authenticated user: the input of authorization, admission and audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The unique name; `system:anonymous` for unauthenticated requests.
    pub name: String,
    /// Distinguishes users over time if a name is reused; may be empty.
    pub uid: String,
    /// The user's groups, in the order given by the authenticator.
    pub groups: Vec<String>,
    /// Additional attributes from the authenticator, by lower-case key.
    pub extra: BTreeMap<String, Vec<String>>,
}
