//! Validation of an `EncryptionConfiguration`. Fields and messages are upstream's
//! (`apiserver/pkg/apis/apiserver/validation/validation_encryption.go`), but no value contains a key.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nave_machinery::{FieldError, FieldPath, GroupResource, duration};
use serde_json::json;

use super::{EncryptionConfiguration, KeyConfig, KmsConfig, ProviderConfig};
use crate::ciphers::Algorithm;

impl EncryptionConfiguration {
    /// Returns all errors.
    pub(super) fn validate(&self, reload: bool) -> Vec<FieldError> {
        let root = FieldPath::new("resources");
        let mut errors = Vec::new();
        if self.resources.is_empty() {
            errors.push(at_least_one(&root, root.as_str()));
        }
        let mut kms_names = HashSet::new();
        for (index, rule) in self.resources.iter().enumerate() {
            let path = root.index(index);
            let (resources, providers) = (path.child("resources"), path.child("providers"));
            if rule.resources.is_empty() {
                errors.push(at_least_one(&resources, resources.as_str()));
            }
            check_overlap(&rule.resources, &resources, &mut errors);
            check_names(&rule.resources, &resources, &mut errors);
            if rule.providers.is_empty() {
                errors.push(at_least_one(&providers, providers.as_str()));
            }
            for (index, provider) in rule.providers.iter().enumerate() {
                check_provider(provider, &providers.index(index), &mut kms_names, reload, &mut errors);
            }
        }
        errors
    }
}

/// Parses `resource`, `resource.group` or a wildcard.
pub(crate) fn parse_resource(text: &str) -> GroupResource {
    let (resource, group) = text.split_once('.').unwrap_or((text, ""));
    GroupResource { group: group.to_owned(), resource: resource.to_owned() }
}

fn at_least_one(path: &FieldPath, what: &str) -> FieldError {
    FieldError::required(path, format!("at least one {what} is required"))
}

fn check_overlap(resources: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let parsed: Vec<GroupResource> = resources.iter().map(|text| parse_resource(text)).collect();
    let mut seen = HashSet::new();
    let has_duplicate = !parsed.iter().all(|resource| seen.insert(resource));
    let of_group = |group: &str| seen.iter().filter(|resource| resource.group == group).count();
    let has_overlap = seen.iter().any(|resource| {
        resource.resource == "*"
            && if resource.group == "*" { seen.len() > 1 } else { of_group(&resource.group) > 1 }
    });
    for (found, why) in [(has_duplicate, DUPLICATE), (has_overlap, OVERLAP)] {
        if found {
            errors.push(FieldError::invalid(path, json!(resources), why));
        }
    }
}

fn check_names(resources: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, text) in resources.iter().enumerate() {
        let resource = parse_resource(text);
        let why = if text.to_lowercase() != *text {
            "resource name should not contain capital letters"
        } else if text == "*" {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        } else if WITHOUT_API.contains(&text.as_str()) {
            "resources which do not have REST API/s cannot be encrypted"
        } else if resource.group == "events.k8s.io" {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        } else if resource.group == "extensions" {
            "'extensions' group has been removed and cannot be used for encryption"
        } else if resource.group == "*" && resource.resource != "*" {
            "encrypting the same resource across groups is not supported"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(&path.index(index), text.as_str(), why));
    }
}

fn check_provider<'c>(
    provider: &'c ProviderConfig,
    path: &FieldPath,
    kms_names: &mut HashSet<&'c str>,
    reload: bool,
    errors: &mut Vec<FieldError>,
) {
    let given: Vec<&str> = [
        ("AESGCM", provider.aesgcm.is_some()),
        ("AESCBC", provider.aescbc.is_some()),
        ("Secretbox", provider.secretbox.is_some()),
        ("Identity", provider.identity.is_some()),
        ("KMS", provider.kms.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_given)| is_given.then_some(name))
    .collect();
    match given.len() {
        1 => {}
        0 => errors.push(FieldError::invalid(path, json!({}), NO_PROVIDER)),
        _ => errors.push(FieldError::invalid(path, json!(given), SEVERAL_PROVIDERS)),
    }
    if let Some(kms) = &provider.kms {
        check_kms(kms, &path.child("kms"), kms_names, reload, errors);
        kms_names.insert(&kms.name);
    } else if let Some((algorithm, keys)) = provider.keys() {
        let field = match algorithm {
            Algorithm::AesGcm => "aesgcm",
            Algorithm::AesCbc => "aescbc",
            Algorithm::Secretbox => "secretbox",
        };
        let path = path.child(field).child("keys");
        if keys.is_empty() {
            errors.push(at_least_one(&path, "keys"));
        }
        for (index, key) in keys.iter().enumerate() {
            check_key(key, algorithm, &path.index(index), errors);
        }
    }
}

fn check_key(key: &KeyConfig, algorithm: Algorithm, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if key.name.is_empty() {
        errors.push(mandatory(&path.child("name"), "name", "key"));
    }
    let path = path.child("secret");
    if key.secret.is_empty() {
        errors.push(mandatory(&path, "secret", "key"));
        return;
    }
    let why = match key.bytes() {
        None => "secrets must be base64 encoded".to_owned(),
        Some(bytes) if !algorithm.key_lengths().contains(&bytes.len()) => {
            let lengths: Vec<String> = algorithm.key_lengths().iter().map(ToString::to_string).collect();
            format!(
                "secret is not of the expected length, got {}, expected one of [{}]",
                bytes.len(),
                lengths.join(" ")
            )
        }
        Some(_) => return,
    };
    errors.push(FieldError::invalid(&path, "REDACTED", why));
}

impl KeyConfig {
    /// Returns the key; `None` if it is not base64.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        // Go's decoder skips line breaks.
        let text: String = self.secret.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
        STANDARD.decode(text).ok()
    }
}

fn check_kms(
    kms: &KmsConfig,
    path: &FieldPath,
    names: &HashSet<&str>,
    reload: bool,
    errors: &mut Vec<FieldError>,
) {
    let (name, v1) = (path.child("name"), kms.is_v1());
    if kms.name.is_empty() {
        errors.push(mandatory(&name, "name", "provider"));
    }
    if !v1 && kms.name.contains(':') {
        let why = format!("invalid KMS provider name {}, must not contain ':'", kms.name);
        errors.push(FieldError::invalid(&name, kms.name.as_str(), why));
    }
    if (reload || !v1) && names.contains(kms.name.as_str()) {
        let why = format!("duplicate KMS provider name {}, names must be unique", kms.name);
        errors.push(FieldError::invalid(&name, kms.name.as_str(), why));
    }
    if let Some(text) = &kms.timeout
        && duration::parse(text).is_none_or(|timeout| timeout.is_zero())
    {
        let why = "timeout should be a positive value";
        errors.push(FieldError::invalid(&path.child("timeout"), text.as_str(), why));
    }
    check_endpoint(&kms.endpoint, &path.child("endpoint"), errors);
    let cache = path.child("cachesize");
    match kms.cachesize {
        Some(size) if !v1 => {
            errors.push(FieldError::invalid(&cache, size, "cachesize is not supported in v2"));
        }
        Some(0) => {
            let why = "cachesize should be a positive value, or negative to disable";
            errors.push(FieldError::invalid(&cache, 0, why));
        }
        _ => {}
    }
    if !v1 && kms.api_version != "v2" {
        let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(FieldError::invalid(&path.child("apiVersion"), kms.api_version.as_str(), why));
    }
}

fn check_endpoint(endpoint: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let why = if endpoint.is_empty() {
        "endpoint is a mandatory field for a kms".to_owned()
    } else if endpoint.starts_with(':') {
        format!("invalid endpoint for kms provider, error: parse {endpoint:?}: missing protocol scheme")
    } else {
        match endpoint.split_once("://").map_or("", |(scheme, _)| scheme) {
            "unix" => return,
            scheme => format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"),
        }
    };
    errors.push(FieldError::invalid(path, endpoint, why));
}

fn mandatory(path: &FieldPath, field: &str, of: &str) -> FieldError {
    FieldError::required(path, format!("{field} is a mandatory field for a {of}"))
}

/// Resources of upstream's storage that no client can access.
const WITHOUT_API: [&str; 3] = ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];
const DUPLICATE: &str = "the same resource cannot be specified multiple times";
const OVERLAP: &str = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
const NO_PROVIDER: &str =
    "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
const SEVERAL_PROVIDERS: &str =
    "more than one provider specified in a single element, should split into different list elements";

#[cfg(test)]
mod tests;
