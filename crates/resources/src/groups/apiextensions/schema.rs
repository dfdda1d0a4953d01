//! The schema of a version.

use std::collections::HashSet;

use nave_machinery::{FieldError, Value};
use nave_structural::rules::{self, Requirements};
use sha2::{Digest, Sha256};

use crate::validate::{At, Errors};

/// The root keywords that are allowed together with a `status` subresource, by their Go field names.
const AT_ROOT: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// Checks the schema of a version, or the schema shared by all versions. `old` has the schemas of the old definition.
pub(super) fn check(
    schema: At,
    has_status: bool,
    requirements: Requirements,
    old: &OldSchemas,
    errors: &mut Errors,
) {
    let root = schema.field("openAPIV3Schema");
    let Some(value) = root.value() else { return };
    if has_status {
        beside_status(root, errors);
    }
    if root.field("nullable").flag() {
        errors.push(root.field("nullable").forbidden("nullable cannot be true at the root"));
    }
    let path = root.path();
    let mut found = rules::check(value, &path, requirements);
    if found.is_structural && rules::has_expressions(value) {
        let of_rules = nave_cel::rules::check(value, path.as_str(), old.contains(value));
        let defaults = if found.errors.is_empty() {
            nave_cel::rules::check_defaults(value, path.as_str())
        } else {
            Vec::new()
        };
        let shown = of_rules.errors.into_iter().map(FieldError::from).filter(|error| {
            let schema =
                error.field.as_str().rsplit_once(".x-kubernetes-validations").map(|(schema, _)| schema);
            schema.is_none_or(|schema| found.is_sound(schema))
        });
        let shown: Vec<FieldError> = shown.collect();
        found.errors.extend(shown.into_iter().chain(defaults.into_iter().map(FieldError::from)));
    }
    errors.extend(found.errors);
}

/// The schemas of an old definition, to find those that an update does not change. Compared by hash, because a
/// definition may have many versions with large schemas.
#[derive(Default)]
pub(super) struct OldSchemas(HashSet<[u8; 32]>);

impl OldSchemas {
    pub(super) fn new(schemas: &[&Value]) -> Self {
        Self(schemas.iter().map(|schema| digest(schema)).collect())
    }

    fn contains(&self, schema: &Value) -> bool {
        !self.0.is_empty() && self.0.contains(&digest(schema))
    }
}

fn digest(schema: &Value) -> [u8; 32] {
    Sha256::digest(schema.to_string()).into()
}

/// Checks the root keywords. The root must not restrict `status`, because status updates are validated only by the
/// schema of the `status` property.
fn beside_status(root: At, errors: &mut Errors) {
    let kind = root.field("type");
    if !matches!(kind.text(), "" | "object") {
        let why = r#"only "object" is allowed as the type at the root of the schema if the status subresource is enabled"#;
        errors.push(kind.invalid(why));
        return;
    }
    let is_zero = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let is_allowed = |keyword: &str| AT_ROOT.iter().any(|(_, known)| *known == keyword);
    let mut keywords = root.map().into_iter().flatten();
    if keywords.any(|(keyword, value)| !is_allowed(keyword) && !is_zero(value)) {
        let allowed: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            allowed.join(" ")
        );
        errors.push(FieldError::invalid(&root.path(), root.value().cloned().unwrap_or_default(), why));
    }
}
