//! Config maps and secrets.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nave_machinery::{FieldError, FieldErrorKind, Map, Value, meta, names};
use serde_json::json;

use crate::defaults::{object, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, immutable};

/// The maximum total size of the values, in bytes.
const SIZE_MAX: usize = 1024 * 1024;

const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
const FROZEN: &str = "field is immutable when `immutable` is set";

/// The strategy of config maps.
pub(super) struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate(&self, config_map: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(config_map);
        let (data, binary) = (root.field("data"), root.field("binaryData"));
        let mut size = keys(data, &mut errors, str::len);
        for (key, value) in data.entries() {
            if binary.key(key).is_set() {
                let detail = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(&value.path(), key, detail));
            }
        }
        size += keys(binary, &mut errors, decoded_len);
        too_large(At::named("[]", None), size, &mut errors);
        errors
    }

    fn validate_update(&self, config_map: &Value, old: &Value) -> Errors {
        let mut errors = immutable_fields(config_map, old, &["data", "binaryData"]);
        errors.extend(self.validate(config_map));
        errors
    }
}

/// The strategy of secrets.
pub(super) struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn default(&self, secret: &mut Value, _version: &str) {
        let Some(fields) = secret.as_object_mut() else { return };
        set(fields, "type", "Opaque");
        encode_texts(fields);
    }

    fn validate(&self, secret: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(secret);
        let data = root.field("data");
        let size = keys(data, &mut errors, decoded_len);
        too_large(data, size, &mut errors);
        let kind = root.field("type").text();
        for key in required_keys(kind) {
            if !data.key(key).is_set() {
                errors.push(data.key(key).required(""));
            }
        }
        match kind {
            "kubernetes.io/service-account-token" => service_account(root, &mut errors),
            "kubernetes.io/basic-auth"
                if !data.key("username").is_set() && !data.key("password").is_set() =>
            {
                errors.push(data.key("username").required(""));
                errors.push(data.key("password").required(""));
            }
            "kubernetes.io/dockercfg" => json_file(data.key(".dockercfg"), &mut errors),
            "kubernetes.io/dockerconfigjson" => json_file(data.key(".dockerconfigjson"), &mut errors),
            _ => {}
        }
        errors
    }

    fn validate_update(&self, secret: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        immutable(At::root(secret).field("type"), At::root(old).field("type"), &mut errors);
        errors.extend(immutable_fields(secret, old, &["data"]));
        errors.extend(self.validate(secret));
        errors
    }
}

/// The strategy of service accounts.
pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn prepare_for_create(&self, account: &mut Value) {
        keep_names_of_secrets(account);
    }

    fn prepare_for_update(&self, account: &mut Value, _old: &Value) {
        keep_names_of_secrets(account);
    }

    fn warnings(&self, account: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |account| meta::annotation(account, MOUNTABLE_SECRETS).is_some();
        if !has(account) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }
}

/// Removes all but the names from the references to secrets (upstream: `cleanSecretReferences`).
fn keep_names_of_secrets(account: &mut Value) {
    let secrets = account.get_mut("secrets").and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten().filter_map(Value::as_object_mut) {
        secret.retain(|field, _| field == "name");
    }
}

/// Moves the write-only `stringData` into `data`.
fn encode_texts(secret: &mut Map) {
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let Some(data) = object(secret, "data") else { return };
    for (key, text) in texts {
        data.insert(key, json!(BASE64.encode(text.as_str().unwrap_or_default())));
    }
}

/// Returns the required keys of a secret type.
fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

fn service_account(secret: At, errors: &mut Errors) {
    let metadata = secret.field("metadata");
    let annotations = metadata.field("annotations");
    let name = annotations.key("kubernetes.io/service-account.name");
    if name.text().is_empty() {
        errors.push(name.required(""));
    }
}

fn json_file(at: At, errors: &mut Errors) {
    let Some(bytes) = at.value().and_then(|_| BASE64.decode(at.text()).ok()) else { return };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        let detail = format!("{error}");
        errors.push(FieldError::invalid(&at.path(), "<secret contents redacted>", detail));
    }
}

/// Checks the keys of a map; returns the total size of its values.
fn keys(data: At, errors: &mut Errors, len: fn(&str) -> usize) -> usize {
    let mut size = 0;
    for (key, value) in data.entries() {
        for why in names::is_config_map_key(key) {
            errors.push(FieldError::invalid(&value.path(), key, why));
        }
        size += len(value.text());
    }
    size
}

/// Returns the decoded size of a base64 text.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn too_large(at: At, size: usize, errors: &mut Errors) {
    if size > SIZE_MAX {
        let detail = format!("may not be more than {SIZE_MAX} bytes");
        errors.push(crate::validate::plain(FieldErrorKind::TooLong, at, detail));
    }
}

/// Checks that an update of an immutable object does not change `fields`.
fn immutable_fields(new: &Value, old: &Value, fields: &[&'static str]) -> Errors {
    let (new, old) = (At::root(new), At::root(old));
    let mut errors = Errors::new();
    if !old.field("immutable").flag() {
        return errors;
    }
    if !new.field("immutable").flag() {
        errors.push(new.field("immutable").forbidden(FROZEN));
    }
    for field in fields {
        if content(new.field(field)) != content(old.field(field)) {
            errors.push(new.field(field).forbidden(FROZEN));
        }
    }
    errors
}

/// Returns the entries of a map; empty if absent.
fn content<'v>(at: At<'_, 'v>) -> BTreeSet<(&'v str, &'v str)> {
    let map = at.map().into_iter().flatten();
    map.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_keep_only_the_names_of_secrets() {
        let account = json!({"secrets": [{"name": "s", "namespace": "n", "kind": "Secret"}, {"uid": "u"}]});
        let (mut new, mut changed) = (account.clone(), account.clone());
        ServiceAccountStrategy.prepare_for_create(&mut new);
        ServiceAccountStrategy.prepare_for_update(&mut changed, &account);
        assert_eq!(new, json!({"secrets": [{"name": "s"}, {}]}));
        assert_eq!(changed, new);
    }
}
