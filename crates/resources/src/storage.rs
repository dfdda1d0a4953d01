//! Storage keys in kube-apiserver's etcd layout, built from validated parts only.

use nave_machinery::names;

use crate::def::ResourceDef;

/// The error of building a storage key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The resource is virtual.
    #[error("{0} has no storage")]
    NotStored(String),
    /// A namespace is missing for a namespaced resource, or present for a cluster-scoped resource.
    #[error("{0}: the scope of the request is not the scope of the resource")]
    Scope(String),
    /// A part is not a valid path segment.
    #[error("{part:?} cannot be part of a storage key: {why}")]
    Segment {
        /// The name or namespace.
        part: String,
        /// The rule that it violates.
        why: String,
    },
}

/// Returns the key of an object.
pub fn storage_key(def: &ResourceDef, namespace: Option<&str>, name: &str) -> Result<String, KeyError> {
    if def.namespaced != namespace.is_some() {
        return Err(KeyError::Scope(def.group_resource().to_string()));
    }
    let mut key = list_prefix(def, namespace)?;
    push_segment(&mut key, name)?;
    Ok(key)
}

/// Returns the key prefix, with a trailing slash, of all objects of a resource or of its objects in a namespace.
pub fn list_prefix(def: &ResourceDef, namespace: Option<&str>) -> Result<String, KeyError> {
    let Some(storage) = &def.storage else {
        return Err(KeyError::NotStored(def.group_resource().to_string()));
    };
    let mut key = String::with_capacity(storage.prefix.len() + 64);
    key.push_str(&storage.prefix);
    key.push('/');
    let Some(namespace) = namespace else { return Ok(key) };
    if !def.namespaced {
        return Err(KeyError::Scope(def.group_resource().to_string()));
    }
    push_segment(&mut key, namespace)?;
    key.push('/');
    Ok(key)
}

/// Returns the namespace and name in a key; `None` if the key does not belong to the resource.
pub fn parse_key<'a>(def: &ResourceDef, key: &'a str) -> Option<(Option<&'a str>, &'a str)> {
    let rest = key.strip_prefix(def.storage.as_ref()?.prefix.as_str())?.strip_prefix('/')?;
    let (namespace, name) = if def.namespaced {
        let (namespace, name) = rest.split_once('/')?;
        (Some(namespace), name)
    } else {
        (None, rest)
    };
    (!name.is_empty() && !name.contains('/')).then_some((namespace, name))
}

fn push_segment(key: &mut String, part: &str) -> Result<(), KeyError> {
    let refuse = |why: String| Err(KeyError::Segment { part: part.to_owned(), why });
    if part.is_empty() {
        return refuse("may not be empty".to_owned());
    }
    if let Some(why) = names::is_path_segment_name(part).into_iter().next() {
        return refuse(why);
    }
    key.push_str(part);
    Ok(())
}
