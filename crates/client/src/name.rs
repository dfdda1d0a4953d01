//! [`ObjectName`]: what objects are kept and queued by.

use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object, in client-go's form of a key: `namespace/name`, or `name` where the kind has no
/// namespaces. A pointer; clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The key of `name` in `namespace`, which is empty where the kind has none.
    pub fn new(namespace: &str, name: &str) -> Self {
        match namespace {
            "" => Self(name.into()),
            _ => Self([namespace, "/", name].concat().into()),
        }
    }

    /// The namespace; empty where there is none.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// From the form of a key.
impl From<&str> for ObjectName {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl std::borrow::Borrow<str> for ObjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
