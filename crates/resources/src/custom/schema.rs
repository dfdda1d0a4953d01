//! The structure of the objects of a custom resource in one version.

use std::sync::{Arc, OnceLock};

use nave_cel::rules::{Validator, blocking_error};
use nave_machinery::limits::LimitError;
use nave_machinery::{FieldError, FieldErrors, FieldPath, Value, meta};
use nave_structural::{Malformed, Structural};
use sha2::{Digest, Sha256};

use super::text::DefinitionText;
use crate::scale::{ScalePaths, int_at, text_at};

/// The schema of a version.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct CustomSchema {
    /// `None` for a version without a schema; its objects are not changed. Compiled when the first object is read or
    /// written, because most definitions have no objects.
    structural: OnceLock<Option<Structural>>,
    /// True if no field is pruned (`spec.preserveUnknownFields` of definitions older than v1).
    preserves_unknown: bool,
    /// The fields of the `scale` subresource, if the version has it.
    scale: Option<ScalePaths>,
    /// The validation rules. Compiled when the first object is validated.
    rules: OnceLock<Validator>,
    /// True if the schema has validation rules.
    has_rules: bool,
    /// True if the schema has validation rules, alternatives (`anyOf`, `oneOf`) or costly patterns.
    is_costly: bool,
    /// True if the defaults are too large to be in each object of the watch cache.
    has_large_defaults: bool,
    /// The definition, and the version of it that has the schema.
    text: Arc<DefinitionText>,
    version: String,
    /// True if the version has a schema.
    has_schema: bool,
    /// The SHA-256 of the schema.
    digest: [u8; 32],
}

impl CustomSchema {
    /// Compiles `openAPIV3Schema` of a version. Definitions stored before v1 may lack it. `text` has the same schema.
    ///
    /// # Errors
    /// The schema is not structural, or too large.
    pub fn compile(
        schema: Option<&Value>,
        text: &Arc<DefinitionText>,
        version: &str,
        preserves_unknown: bool,
        scale: Option<ScalePaths>,
    ) -> Result<Self, String> {
        let compiled = schema.map(Structural::compile).transpose().map_err(|why| why.to_string())?;
        let size_of_defaults = compiled.as_ref().map_or(0, Structural::size_of_defaults);
        let json = schema.map(Value::to_string).unwrap_or_default();
        let digest = Sha256::digest(&json).into();
        let has_alternatives = ["\"anyOf\":", "\"oneOf\":"].iter().any(|keyword| json.contains(keyword));
        let has_rules = schema.is_some_and(nave_structural::rules::has_expressions);
        let rules = OnceLock::new();
        Ok(Self {
            structural: OnceLock::new(),
            preserves_unknown,
            scale,
            rules,
            has_rules,
            is_costly: has_rules
                || has_alternatives
                || schema.is_some_and(nave_structural::rules::has_costly_patterns),
            has_large_defaults: size_of_defaults > LARGE_DEFAULTS,
            text: Arc::clone(text),
            version: version.to_owned(),
            has_schema: schema.is_some(),
            digest,
        })
    }

    /// Returns whether validation can be expensive even for a small object: the schema has validation rules,
    /// alternatives that are each tried for a value, or large patterns.
    pub fn is_costly(&self) -> bool {
        self.is_costly
    }

    /// Returns whether the defaults are too large to be in each object of the watch cache. They are set for each
    /// reader, because a schema can gain defaults after many small objects were stored.
    pub fn has_large_defaults(&self) -> bool {
        self.has_large_defaults
    }

    /// Returns `openAPIV3Schema` as JSON; `None` if the version has no schema.
    pub fn json(&self) -> Option<Value> {
        self.has_schema.then(|| self.text.schema(&self.version)).flatten()
    }

    /// Returns a hash of the schema.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Returns the schema that defines list topology for server-side apply; `None` for a version without a schema,
    /// whose topology is inferred from the values.
    pub fn topology(&self) -> Option<&Structural> {
        self.structural()
    }

    fn structural(&self) -> Option<&Structural> {
        // `compile` has checked that the schema compiles.
        self.structural.get_or_init(|| Structural::compile(&self.json()?).ok()).as_ref()
    }

    /// Prunes an object from a client and returns the paths of unknown fields. The caller decodes the object's
    /// metadata.
    ///
    /// # Errors
    /// The metadata of an embedded resource is malformed.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        let Some(structural) = self.structural() else { return Ok(Vec::new()) };
        let mut unknown = if self.preserves_unknown { Vec::new() } else { structural.prune(object) };
        structural.drop_nulls(object);
        unknown.extend(structural.coerce_metadata(object, Malformed::Refuse)?);
        unknown.sort_unstable();
        Ok(unknown)
    }

    /// Sets the defaults of fields that are absent.
    ///
    /// # Errors
    /// The object becomes too large.
    pub fn default(&self, object: &mut Value) -> Result<(), LimitError> {
        self.structural().map_or(Ok(()), |structural| structural.default(object))
    }

    /// Prunes and defaults a stored object, because the schema may have changed since it was stored.
    ///
    /// # Errors
    /// The object becomes too large because of defaults.
    pub fn read(&self, object: &mut Value) -> Result<(), LimitError> {
        self.coerce(object);
        self.default(object)
    }

    /// Drops the fields that the schema does not allow, after conversion to this version or a change of the schema.
    pub fn coerce(&self, object: &mut Value) {
        let Some(structural) = self.structural() else { return };
        if !self.preserves_unknown {
            structural.prune(object);
        }
        structural.drop_nulls(object);
        // Malformed metadata is dropped, so this cannot fail.
        let _ = structural.coerce_metadata(object, Malformed::Drop);
    }

    /// Validates an object of this kind, or an update of `old`.
    pub fn validate(&self, kind: &str, object: &Value, old: Option<&Value>) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let found = meta::kind(object);
        if found != kind {
            errors.push(FieldError::invalid(&FieldPath::new("kind"), found, format!("must be {kind}")));
        }
        if let Some(structural) = self.structural() {
            errors.extend(structural.validate(object, old).errors);
        }
        if let Some(scale) = &self.scale {
            errors.extend(validate_replicas(object, &scale.spec_replicas));
            errors.extend(validate_replicas(object, &scale.status_replicas));
            errors.extend(validate_selector(object, scale));
        }
        errors
    }

    /// Evaluates the validation rules (`x-kubernetes-validations`) for an object or an update of `old`. Skips them if
    /// one of the `errors` makes evaluation unsafe.
    pub fn validate_rules(
        &self,
        object: &Value,
        old: Option<&Value>,
        errors: &FieldErrors,
    ) -> (FieldErrors, Vec<String>) {
        if !self.has_rules {
            return (FieldErrors::new(), Vec::new());
        }
        if let Some(error) = blocking_error(errors) {
            return ([error].into(), Vec::new());
        }
        let rules = self.rules.get_or_init(|| Validator::new(&self.json().unwrap_or_default()));
        let outcome = rules.validate(object, old);
        let warnings = outcome.warnings.iter().map(ToString::to_string).collect();
        (outcome.errors.into_iter().map(FieldError::from).collect(), warnings)
    }

    /// Validates an update of the status.
    pub fn validate_status(&self, object: &Value, old: &Value) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if let Some(structural) = self.structural() {
            errors.extend(structural.validate_status(object, old).errors);
        }
        if let Some(scale) = &self.scale {
            errors.extend(validate_replicas(object, &scale.status_replicas));
            errors.extend(validate_selector(object, scale));
        }
        errors
    }
}

/// Maximum size of the JSON of defaults that objects in the watch cache have.
const LARGE_DEFAULTS: usize = 8 << 10;

/// Checks that the number of replicas is an integer that `autoscaling/v1` `Scale` can represent.
fn validate_replicas(object: &Value, path: &[String]) -> Option<FieldError> {
    let at = FieldPath::new(&format!(".{}", path.join(".")));
    let (replicas, why) = match int_at(object, path) {
        // As upstream, the number is 0 if there is none.
        Err(error) => (0, error.to_string()),
        Ok(Some(replicas)) if replicas < 0 => (replicas, "should be a non-negative integer".to_owned()),
        Ok(Some(replicas)) if replicas > i64::from(i32::MAX) => {
            (replicas, format!("should be less than or equal to {}", i32::MAX))
        }
        Ok(_) => return None,
    };
    Some(FieldError::invalid(&at, replicas, why))
}

fn validate_selector(object: &Value, scale: &ScalePaths) -> Option<FieldError> {
    let path = scale.selector.as_ref()?;
    let at = FieldPath::new(&format!(".{}", path.join(".")));
    text_at(object, path).err().map(|error| FieldError::invalid(&at, "", error.to_string()))
}
