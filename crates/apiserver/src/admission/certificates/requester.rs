//! Who made a request: what a signer decides by (upstream: `registry/certificates`).

use nave_machinery::{Status, Value};
use serde_json::json;

use super::is_request;
use crate::admission::{Attributes, Operation, Plugin};

/// Puts the requesting user into new `certificatesigningrequests`, whatever they say themselves.
pub struct CertificateRequester;

impl Plugin for CertificateRequester {
    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let Attributes { def, user, operation, .. } = attributes;
        let new = matches!(operation, Operation::Create) && is_request(def);
        let spec = object.filter(|_| new).and_then(|it| it.get_mut("spec"));
        let Some(spec) = spec.and_then(Value::as_object_mut) else { return Ok(()) };
        spec.insert("username".to_owned(), json!(user.name));
        for (field, value, empty) in [
            ("uid", json!(user.uid), user.uid.is_empty()),
            ("groups", json!(user.groups), user.groups.is_empty()),
            ("extra", json!(user.extra), user.extra.is_empty()),
        ] {
            if empty {
                spec.remove(field);
            } else {
                spec.insert(field.to_owned(), value);
            }
        }
        Ok(())
    }
}
