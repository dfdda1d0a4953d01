//! The user who made a request, which a signer decides by (upstream: `registry/certificates`).

use nave_machinery::user::UserInfo;
use nave_machinery::{Object, Value};
use serde_json::json;

/// Puts the requesting user into a new `certificatesigningrequests` object, whatever it says itself. Belongs where the
/// strategy prepares an object to be created: after the mutating phase, so that no plugin changes it.
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
