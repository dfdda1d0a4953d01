//! The structure of the objects of a custom resource in one version.

use std::sync::OnceLock;

use nave_cel::rules::Validator;
use nave_machinery::limits::LimitError;
use nave_machinery::{FieldError, FieldErrorKind, FieldPath, Value, meta};
use nave_structural::{Malformed, Structural};
use sha2::{Digest, Sha256};

use crate::scale::ScalePaths;

/// The schema of a version.
#[derive(Debug)]
pub struct CustomSchema {
    /// `None` for a version without a schema, whose objects are taken as they are.
    structural: Option<Structural>,
    /// True if no field is pruned (`spec.preserveUnknownFields` of definitions older than v1).
    preserves_unknown: bool,
    /// The fields of the `scale` subresource, if there is one.
    scale: Option<ScalePaths>,
    /// The validation rules, compiled when the first object is validated: most of the definitions in a cluster have no
    /// objects.
    rules: OnceLock<Validator>,
    /// True if the schema has validation rules.
    has_rules: bool,
    /// The schema as compact JSON, for documents.
    text: Box<str>,
    /// The SHA-256 of the text.
    digest: [u8; 32],
}

impl CustomSchema {
    /// Compiles `openAPIV3Schema`, which definitions older than v1 may lack.
    ///
    /// # Errors
    /// The schema is not structural, or too large.
    pub fn compile(
        schema: Option<&Value>,
        preserves_unknown: bool,
        scale: Option<ScalePaths>,
    ) -> Result<Self, String> {
        let structural = schema.map(Structural::compile).transpose().map_err(|why| why.to_string())?;
        let text = schema.map(Value::to_string).unwrap_or_default();
        let digest = Sha256::digest(&text).into();
        let has_rules = schema.is_some_and(nave_structural::rules::has_expressions);
        let rules = OnceLock::new();
        Ok(Self { structural, preserves_unknown, scale, rules, has_rules, text: text.into(), digest })
    }

    /// Returns whether the schema has validation rules, whose cost does not follow from the size of an object.
    pub fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// `openAPIV3Schema` as JSON; `None` if the version has none.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok()
    }

    /// A hash of the schema.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The topology of the objects, for server-side apply; `None` if it follows from the values alone.
    pub fn topology(&self) -> Option<&Structural> {
        self.structural.as_ref()
    }

    /// Brings an object of a client into the form of the schema: drops unknown fields and returns their paths. The
    /// object's own metadata is left to the caller.
    ///
    /// # Errors
    /// The metadata of an embedded resource is malformed.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        let Some(structural) = &self.structural else { return Ok(Vec::new()) };
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
        self.structural.as_ref().map_or(Ok(()), |structural| structural.default(object))
    }

    /// Brings a stored object into the form of the schema, which may have changed since the object was stored.
    ///
    /// # Errors
    /// The object becomes too large by defaults.
    pub fn read(&self, object: &mut Value) -> Result<(), LimitError> {
        self.coerce(object);
        self.default(object)
    }

    /// Drops what the schema does not allow of an object that was converted to this version, or stored before the schema
    /// changed.
    pub fn coerce(&self, object: &mut Value) {
        let Some(structural) = &self.structural else { return };
        if !self.preserves_unknown {
            structural.prune(object);
        }
        structural.drop_nulls(object);
        // Malformed parts are dropped, so that there is no error.
        let _ = structural.coerce_metadata(object, Malformed::Drop);
    }

    /// Returns what is wrong with an object of this kind, or with an update of `old`.
    pub fn validate(&self, kind: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let found = meta::kind(object);
        if found != kind {
            errors.push(FieldError::invalid(&FieldPath::new("kind"), found, format!("must be {kind}")));
        }
        if let Some(structural) = &self.structural {
            errors.extend(structural.validate(object, old).errors);
        }
        if let Some(scale) = &self.scale {
            errors.extend(validate_replicas(object, &scale.spec_replicas));
            errors.extend(validate_replicas(object, &scale.status_replicas));
            errors.extend(validate_selector(object, scale));
        }
        errors
    }

    /// Applies the validation rules (`x-kubernetes-validations`) to an object, or to an update of `old`, unless it has
    /// one of the `errors` that rules do not expect (upstream: `hasBlockingErr`).
    pub fn validate_rules(
        &self,
        object: &Value,
        old: Option<&Value>,
        errors: &[FieldError],
    ) -> (Vec<FieldError>, Vec<String>) {
        if !self.has_rules {
            return (Vec::new(), Vec::new());
        }
        if errors.iter().any(is_blocking) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            let error = FieldError::invalid(&FieldPath::new("<nil>"), Value::Null, why);
            return (vec![error], Vec::new());
        }
        let rules = self.rules.get_or_init(|| Validator::new(&self.json().unwrap_or_default()));
        let outcome = rules.validate(object, old);
        let warnings = outcome.warnings.iter().map(ToString::to_string).collect();
        (outcome.errors.into_iter().map(FieldError::from).collect(), warnings)
    }

    /// Returns what is wrong with an update of the status.
    pub fn validate_status(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = Vec::new();
        if let Some(structural) = &self.structural {
            errors.extend(structural.validate_status(object, old).errors);
        }
        if let Some(scale) = &self.scale {
            errors.extend(validate_replicas(object, &scale.status_replicas));
            errors.extend(validate_selector(object, scale));
        }
        errors
    }
}

fn is_blocking(error: &FieldError) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

/// A number of replicas must be a whole number that `autoscaling/v1` `Scale` can show.
fn validate_replicas(object: &Value, path: &[String]) -> Option<FieldError> {
    let value = path.iter().try_fold(object, |place, part| place.get(part))?;
    let at = FieldPath::new(&format!(".{}", path.join(".")));
    let why = match value.as_i64() {
        None => "must be an integer".to_owned(),
        Some(replicas) if replicas < 0 => "should be a non-negative integer".to_owned(),
        Some(replicas) if replicas > i64::from(i32::MAX) => {
            format!("should be less than or equal to {}", i32::MAX)
        }
        Some(_) => return None,
    };
    Some(FieldError::invalid(&at, value.clone(), why))
}

fn validate_selector(object: &Value, scale: &ScalePaths) -> Option<FieldError> {
    let path = scale.selector.as_ref()?;
    let value = path.iter().try_fold(object, |place, part| place.get(part))?;
    let at = FieldPath::new(&format!(".{}", path.join(".")));
    (!value.is_string()).then(|| FieldError::invalid(&at, value.clone(), "must be a string"))
}
