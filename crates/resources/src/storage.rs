//! Storage keys: built from parsed parts only, laid out as kube-apiserver lays them out in etcd.

use nave_machinery::names;

use crate::def::ResourceDef;

/// Why no storage key can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The resource computes its answers and keeps nothing.
    #[error("{0} has no storage")]
    NotStored(String),
    /// The resource is namespaced and no namespace was given, or the other way round.
    #[error("{0}: the scope of the request is not the scope of the resource")]
    Scope(String),
    /// A part cannot stand in a path.
    #[error("{part:?} cannot be part of a storage key: {why}")]
    Segment {
        /// The name or namespace.
        part: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The key of one object.
pub fn storage_key(def: &ResourceDef, namespace: Option<&str>, name: &str) -> Result<String, KeyError> {
    if def.namespaced != namespace.is_some() {
        return Err(KeyError::Scope(def.group_resource().to_string()));
    }
    let mut key = list_prefix(def, namespace)?;
    push_segment(&mut key, name)?;
    Ok(key)
}

/// The prefix, with a slash at its end, of all of a resource's objects or of those in one namespace.
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

/// The namespace and name in a key under the resource's prefix; `None` if the key is not one of its objects.
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
