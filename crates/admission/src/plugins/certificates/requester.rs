//! The requesting user of a certificate request, which signers rely on (upstream: `registry/certificates`).

use nave_machinery::user::UserInfo;
use nave_machinery::{Object, Value};
use serde_json::json;

/// Sets the requesting user of a new `certificatesigningrequests` object, overwriting the client's values. Must be
/// called when the strategy prepares the object for create: after the mutating phase, so that no plugin can change
/// the values.
pub fn set_certificate_requester(request: &mut Object, user: &UserInfo) {
    let spec = request.map_mut("spec");
    spec.insert("username".to_owned(), json!(user.name));
    for (field, value, is_empty) in [
        ("uid", json!(user.uid), user.uid.is_empty()),
        ("groups", json!(user.groups), user.groups.is_empty()),
        ("extra", json!(user.extra), user.extra.is_empty()),
    ] {
        let _: Option<Value> =
            if is_empty { spec.remove(field) } else { spec.insert(field.to_owned(), value) };
    }
}
