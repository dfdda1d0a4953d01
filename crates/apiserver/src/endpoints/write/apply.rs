//! Server-side apply (KEP-555): merges a configuration into an object, or creates the object.

use nave_codec::yaml::{self, YamlError};
use nave_machinery::options::FieldValidation;
use nave_machinery::{Map, Status, Value, meta};

use super::{CreateRight, Target, Write, parse_resource_version};
use crate::endpoints::decode;
use crate::endpoints::view::View;
use crate::storage::{Attempt, Stored};

/// An apply request.
pub struct Apply<'a> {
    /// The configuration, or the decoding error of the body. The error is reported only if the object can be applied
    /// to.
    configuration: Result<Value, Status>,
    /// The errors for duplicate fields in the body.
    duplicates: Vec<String>,
    /// True if the apply takes ownership of conflicting fields.
    force: bool,
    /// The field validation, which determines how duplicate fields are handled.
    validation: FieldValidation,
    /// Checks the right to create the object; `None` if the apply cannot create it.
    create: Option<CreateRight<'a>>,
}

impl<'a> Apply<'a> {
    /// Parses the body of an apply as YAML, a superset of JSON.
    pub(super) fn parse(
        bytes: &[u8],
        force: bool,
        validation: FieldValidation,
        create: Option<CreateRight<'a>>,
    ) -> Self {
        let (configuration, duplicates) = match yaml::decode(bytes) {
            Ok(decoded) => (configuration(decoded.value), decoded.duplicates),
            Err(YamlError::Limit(limit)) => (Err(limit.into_status()), Vec::new()),
            Err(error) => {
                let why = format!("error converting YAML to JSON: {error}");
                (Err(undecodable(&why)), Vec::new())
            }
        };
        Self { configuration, duplicates, force, validation, create }
    }

    /// Creates an apply of the server itself, which takes ownership of conflicting fields and creates no object.
    pub(crate) fn internal(configuration: Value) -> Self {
        Self {
            configuration: Ok(configuration),
            duplicates: Vec::new(),
            force: true,
            validation: FieldValidation::Ignore,
            create: None,
        }
    }

    /// Rejects duplicate fields or adds warnings, depending on the field validation.
    fn check_duplicates(&self, target: &Target<'_>) -> Result<(), Status> {
        match self.validation {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                let why = self.duplicates.join(", ");
                let text = format!("error strict decoding YAML: error converting YAML to JSON: {why}");
                Err(Status::bad_request(text))
            }
            FieldValidation::Warn => {
                target.warn(decode::strict_warnings(self.duplicates.clone()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Write<'_> {
    /// Computes the next state from the stored object or, if it does not exist, a new object.
    pub(super) async fn apply(&self, apply: &Apply<'_>, current: Option<&Stored>) -> Result<Attempt, Status> {
        let target = self.target;
        let create = apply.create.as_ref().filter(|_| target.view == View::Object);
        if current.is_none() && create.is_none() {
            return Err(Status::not_found(&target.endpoint.resource(), target.name));
        }
        let configuration = apply.configuration.as_ref().map_err(Status::clone)?;
        let stored = current.map(|current| current.object.as_value());
        let object = self.merge_applied(stored, configuration, apply.force).await?;
        apply.check_duplicates(target)?;
        let body = decode::Body { object, ..decode::Body::default() };
        // Unknown fields were rejected when the configuration was merged.
        let object = target.typed(body, FieldValidation::Ignore)?;
        let Some(current) = current else {
            let uid = meta::uid(&object);
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Status::conflict(&target.endpoint.resource(), target.name, &why));
            }
            target.check_name(&object)?;
            if let Some(right) = create {
                right.authorization.authorize(&right.attributes).await?;
            }
            let admitted = self.admit_new(self.applied_to_storage(None, object)?).await?;
            return self.prepare_new(admitted).await;
        };
        target.check_name(&object)?;
        if parse_resource_version(&object)?.is_some_and(|version| version != current.revision) {
            return Err(target.modified());
        }
        self.prepare_changed(self.applied_to_storage(stored, object)?, &current.object).await
    }
}

fn configuration(value: Value) -> Result<Value, Status> {
    match value {
        Value::Object(_) => Ok(value),
        // Go's decoder treats null as an empty map.
        Value::Null => Ok(Value::Object(Map::new())),
        other => {
            let found = decode::json_type(&other);
            let why =
                format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
            Err(undecodable(&format!("error unmarshaling JSON: while decoding JSON: {why}")))
        }
    }
}

fn undecodable(why: &str) -> Status {
    Status::bad_request(format!("error decoding YAML: {why}"))
}
