//! `serviceaccounts/token`: issues tokens for service accounts (upstream: `TokenREST`).

use async_trait::async_trait;
use nave_authn::service_account::{BoundObject, Issuer, Reference};
use nave_machinery::{
    FieldError, FieldPath, GroupKind, GroupResource, GroupVersionResource, Status, Value, meta, time,
};
use nave_resources::storage_key;
use serde_json::json;

use crate::endpoints::virtual_resource::{VirtualRequest, VirtualResource};

/// Minimum and maximum lifetime of a token, in seconds.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The default lifetime of a token, in seconds.
const DEFAULT_SECONDS: i64 = 3600;

/// Issues tokens.
pub(super) struct TokenRequests {
    pub(super) issuer: Issuer,
}

#[async_trait]
impl VirtualResource for TokenRequests {
    async fn create(&self, request: &VirtualRequest<'_>, mut object: Value) -> Result<Value, Status> {
        let name = meta::name(&object);
        if !name.is_empty() && name != request.name() {
            let at = FieldPath::new("metadata").child("name");
            let error = FieldError::invalid(&at, name, "must match the service account name if specified");
            return Err(Status::invalid(&kind(), request.name(), &[error]));
        }
        let account = find(request, "serviceaccounts", request.namespace(), request.name()).await?;
        let (wanted, found) = (meta::uid(&object), meta::uid(&account));
        if !wanted.is_empty() && wanted != found {
            let why = format!(
                "the UID in the token request ({wanted}) does not match the UID of the service account ({found})"
            );
            annotate(request, "authentication.k8s.io/token-request-uid-mismatch", why.clone());
            return Err(Status::conflict_of_kind(&kind(), request.name(), &why));
        }
        let audiences = self.audiences(&object);
        let spec = object.get("spec");
        // Admission may have removed the default.
        let seconds = spec.and_then(|spec| spec["expirationSeconds"].as_i64()).unwrap_or(DEFAULT_SECONDS);
        check_expiration(seconds)?;
        let bound = match spec.and_then(|spec| spec.get("boundObjectRef")) {
            None | Some(Value::Null) => BoundObject::None,
            Some(reference) => bound(request, reference).await?,
        };
        let created = time::now();
        let issued = self.issuer.issue(&account, bound, &audiences, seconds).await;
        let issued = issued.map_err(Status::internal)?;
        let id = format!("JTI={}", issued.token_id);
        annotate(request, "authentication.kubernetes.io/issued-credential-id", id);
        meta::set(&mut object, "name", request.name().into());
        meta::set(&mut object, "namespace", request.namespace().into());
        meta::set(&mut object, "uid", meta::uid(&account).into());
        meta::set(&mut object, "creationTimestamp", created.rfc3339().into());
        object["spec"]["audiences"] = json!(audiences);
        object["spec"]["expirationSeconds"] = issued.expiration_seconds.into();
        object["status"] = json!({"token": issued.token, "expirationTimestamp": issued.expires.rfc3339()});
        Ok(object)
    }

    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        let spec = object.entry("spec").or_insert(Value::Null);
        if spec.is_null() {
            *spec = json!({});
        }
        if let Some(seconds) =
            spec.as_object_mut().map(|spec| spec.entry("expirationSeconds").or_insert(Value::Null))
            && seconds.is_null()
        {
            *seconds = DEFAULT_SECONDS.into();
        }
    }
}

impl TokenRequests {
    /// Returns the requested audiences; by default, those of this API.
    fn audiences(&self, object: &Value) -> Vec<String> {
        let named = meta::value_at(object, &["spec", "audiences"]).and_then(Value::as_array);
        let named: Vec<String> =
            named.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if named.is_empty() { self.issuer.audiences().to_vec() } else { named }
    }
}

/// Adds an audit annotation. The key is valid and has one value per request.
fn annotate(request: &VirtualRequest<'_>, key: &str, value: String) {
    let _ = request.context.notes.annotate(key, value);
}

fn kind() -> GroupKind {
    GroupKind { group: "authentication.k8s.io".to_owned(), kind: "TokenRequest".to_owned() }
}

fn check_expiration(seconds: i64) -> Result<(), Status> {
    let why = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let field = FieldPath::new("spec").child("expirationSeconds");
    Err(Status::invalid(&kind(), "", &[FieldError::invalid(&field, seconds, why)]))
}

/// Returns the object that the token is bound to. It must exist and have the requested uid.
async fn bound(request: &VirtualRequest<'_>, reference: &Value) -> Result<BoundObject, Status> {
    let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, api_version) = (text("kind"), text("name"), text("apiVersion"));
    let (object, bound) = match (api_version, kind) {
        ("v1", "Pod") => {
            let pod = find(request, "pods", request.namespace(), name).await?;
            let account = meta::str_at(&pod, &["spec", "serviceAccountName"]).unwrap_or_default();
            if account != request.name() {
                let text = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    request.name()
                );
                return Err(Status::bad_request(text));
            }
            let node = node_of(request, &pod).await?;
            let bound = BoundObject::Pod(Reference::to(&pod), node);
            (pod, bound)
        }
        ("v1", "Secret") => {
            let secret = find(request, "secrets", request.namespace(), name).await?;
            let bound = BoundObject::Secret(Reference::to(&secret));
            (secret, bound)
        }
        ("v1", "Node") => {
            let node = find(request, "nodes", "", name).await?;
            let bound = BoundObject::Node(Reference::to(&node));
            (node, bound)
        }
        _ => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(text));
        }
    };
    let (wanted, found) = (text("uid"), meta::uid(&object));
    if !wanted.is_empty() && wanted != found {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", kind), name, &why));
    }
    Ok(bound)
}

/// Returns the node of a pod; the UID is empty if the node does not exist.
async fn node_of(request: &VirtualRequest<'_>, pod: &Value) -> Result<Option<Reference>, Status> {
    let name = meta::str_at(pod, &["spec", "nodeName"]).unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    match find(request, "nodes", "", name).await {
        Ok(node) => Ok(Some(Reference::to(&node))),
        Err(status) if status.code == 404 => {
            Ok(Some(Reference { name: name.to_owned(), uid: String::new() }))
        }
        Err(status) => Err(status),
    }
}

async fn find(
    request: &VirtualRequest<'_>,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let gvr = GroupVersionResource::new("", "v1", resource);
    let endpoint = request.catalog.endpoint(&gvr).ok_or_else(Status::no_such_path)?;
    let storage = endpoint.storage()?;
    let namespace = endpoint.def.namespaced.then_some(namespace);
    let key = storage_key(&endpoint.def, namespace, name)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let found = storage.get_latest(&key).await?;
    let found = found.ok_or_else(|| Status::not_found(&GroupResource::new("", resource), name))?;
    storage.codec().parse_cached(&found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_between_ten_minutes_and_32_bits_of_seconds() {
        for (seconds, message) in [
            (600, None),
            (1 << 32, None),
            (599, Some("less than 10 minutes")),
            (-1, Some("less than 10 minutes")),
            ((1 << 32) + 1, Some("larger than 2^32 seconds")),
        ] {
            let error = check_expiration(seconds).err().map(|status| status.message);
            assert_eq!(error.is_some(), message.is_some(), "{seconds}");
            if let (Some(error), Some(message)) = (error, message) {
                assert!(error.contains(message), "{error}");
            }
        }
    }
}
