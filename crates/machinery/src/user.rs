//! Who a request comes from.

use std::collections::BTreeMap;

/// A user as authentication found it: the input of authorization, admission and audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The name that tells this user from all others; `system:anonymous` for nobody.
    pub name: String,
    /// Tells users apart over time where a name is given anew; may be empty.
    pub uid: String,
    /// The groups the user is in, in the order they were found.
    pub groups: Vec<String>,
    /// What an authenticator adds, by lower-case key.
    pub extra: BTreeMap<String, Vec<String>>,
}
