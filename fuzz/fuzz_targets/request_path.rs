//! Request paths, from the authorized parts to the storage key: a key stays below its resource and namespace and parses
//! to the same parts.
#![no_main]

use std::sync::LazyLock;

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;
use nave_apiserver::request_info::RequestInfo;
use nave_resources::{Registry, list_prefix, parse_key, storage_key};
use nave_schema::builtin;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::builtin(builtin()));

fuzz_target!(|input: (u8, &str)| {
    let (method, path) = input;
    let methods = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];
    let method = &methods[usize::from(method) % methods.len()];
    let Ok(uri) = Uri::try_from(path) else { return };
    let Ok(info) = RequestInfo::new(method, &uri) else { return };
    let Some(resource) = info.resource else { return };
    let Some(def) = REGISTRY.lookup(&resource.gvr) else { return };
    let namespace = def.namespaced.then_some(resource.namespace.as_str());
    let Ok(prefix) = list_prefix(def, namespace) else { return };
    let all = list_prefix(def, None).expect("namespaced resources are stored");
    assert!(prefix.starts_with(&all) && !prefix.contains("/../") && !prefix[1..].contains("//"), "{prefix}");
    let Ok(key) = storage_key(def, namespace, &resource.name) else { return };
    assert!(key.starts_with(&prefix) && !key.ends_with('/'), "{key}");
    assert_eq!(parse_key(def, &key), Some((namespace, resource.name.as_str())), "{key}");
    let parts = key[all.len()..].split('/').collect::<Vec<_>>();
    assert_eq!(parts.len(), 1 + usize::from(def.namespaced), "{key}");
    assert!(parts.iter().all(|part| !part.is_empty() && *part != "." && *part != ".."), "{key}");
});
