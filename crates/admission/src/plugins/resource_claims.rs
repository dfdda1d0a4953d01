//! Rights that writers of resource claims need besides those to the object (upstream: `pkg/registry/resource/utils.go`).
//!
//! | change | admitted |
//! | --- | --- |
//! | a new claim or template that requests admin access to devices | in namespaces with the label [`ADMIN_LABEL`] |
//! | an allocation with admin access | in namespaces with the label |
//! | `status.allocation`, `status.reservedFor` | for users with the right to `resourceclaims/binding` |
//! | `status.devices` of a driver | for users with the right to `resourceclaims/driver` of that name |
//!
//! This check is not a plugin, so flags cannot disable it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Chain, Decision, forbidden};
use nave_machinery::{FieldError, FieldPath, Object, Status, Value, meta};

use super::Parts;
use crate::attributes::Attributes;
use crate::chain::Validate;
use crate::cluster::Lister;

const GROUP: &str = "resource.k8s.io";
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// The attribute of service account tokens that are bound to a pod on a node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Creates the check.
pub(super) fn check(parts: &Parts) -> Arc<dyn Validate> {
    Arc::new(ResourceClaims {
        authorizer: parts.authorizer.clone(),
        namespaces: Arc::clone(&parts.cluster.namespaces),
    })
}

struct ResourceClaims {
    authorizer: Chain,
    namespaces: Arc<dyn Lister>,
}

#[async_trait]
impl Validate for ResourceClaims {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.def.group == GROUP
            && match &*attributes.def.resource {
                "resourceclaims" => is_new(attributes) || is_status(attributes),
                "resourceclaimtemplates" => is_new(attributes),
                _ => false,
            }
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let new = object.as_value();
        let mut errors = Vec::new();
        if is_new(attributes) {
            let spec =
                if attributes.def.resource == "resourceclaims" { &new["spec"] } else { &new["spec"]["spec"] };
            let requests = items(&spec["devices"]["requests"]);
            if let Some(index) = requests.iter().position(|request| request["exactly"]["adminAccess"] == true)
            {
                let at = FieldPath::new("spec").child("devices").child("requests").index(index);
                errors.extend(self.admin_access(attributes, &at.child("adminAccess"))?);
            }
        } else {
            let old = attributes.old.map_or(&Value::Null, |old| &old.as_value()["status"]);
            let status = FieldPath::new("status");
            if let Some(index) = admin_result(&new["status"]).filter(|_| admin_result(old).is_none()) {
                let results = status.child("allocation").child("devices").child("results");
                errors.extend(self.admin_access(attributes, &results.index(index).child("adminAccess"))?);
            }
            errors.extend(self.binding(attributes, &new["status"], old).await);
            if !new["status"]["allocation"].is_null() {
                errors.extend(self.drivers(attributes, &new["status"], old).await);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&attributes.def.group_kind(), object.name(), &errors))
    }
}

impl ResourceClaims {
    fn admin_access(
        &self,
        attributes: &Attributes<'_>,
        at: &FieldPath,
    ) -> Result<Option<FieldError>, Status> {
        let namespace = self.namespaces.get("", attributes.namespace)?;
        let is_labelled = namespace.is_some_and(|namespace| {
            meta::field(namespace.as_value(), "labels").is_some_and(|labels| labels[ADMIN_LABEL] == "true")
        });
        Ok((!is_labelled).then(|| {
            let why = format!(
                "admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"
            );
            FieldError::forbidden(at, why)
        }))
    }

    async fn binding(&self, attributes: &Attributes<'_>, new: &Value, old: &Value) -> Option<FieldError> {
        if new["allocation"] == old["allocation"] && items(&new["reservedFor"]) == items(&old["reservedFor"])
        {
            return None;
        }
        let right = Right { verb: attributes.verb, subresource: "binding", namespace: "", name: "" };
        let why = self.missing(attributes, right).await?;
        let at = FieldPath::new("status").child("allocation");
        let verb = attributes.verb;
        Some(FieldError::forbidden(
            &at,
            format!(
                r#"changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="{verb}" permission: {why}"#
            ),
        ))
    }

    async fn drivers(&self, attributes: &Attributes<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let arbitrary = format!("arbitrary-node:{}", attributes.verb);
        let verbs = if is_on_node(attributes, allocated_node(new)) {
            vec![format!("associated-node:{}", attributes.verb), arbitrary]
        } else {
            vec![arbitrary]
        };
        let mut errors = Vec::new();
        for driver in changed_drivers(new, old) {
            let mut refusal = None;
            for verb in &verbs {
                let right =
                    Right { verb, subresource: "driver", namespace: attributes.namespace, name: &driver };
                match self.missing(attributes, right).await {
                    None => {
                        refusal = None;
                        break;
                    }
                    Some(why) => refusal = refusal.or(Some(why)),
                }
            }
            if let Some(why) = refusal {
                let verbs = verbs.join(" ");
                let text = format!(
                    r#"changing status.devices requires resource="resourceclaims/driver", verb="[{verbs}]" permission: {why}"#
                );
                errors.push(FieldError::forbidden(&FieldPath::new("status").child("devices"), text));
            }
        }
        errors
    }

    /// Returns why the user lacks a right; `None` if the user has it.
    async fn missing(&self, attributes: &Attributes<'_>, right: Right<'_>) -> Option<String> {
        let asked = nave_authz::Attributes {
            verb: right.verb,
            group: GROUP,
            version: attributes.version,
            resource: "resourceclaims",
            subresource: right.subresource,
            namespace: right.namespace,
            name: right.name,
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        let verdict = self.authorizer.decide(&asked).await;
        (verdict.decision != Decision::Allow).then(|| forbidden(&asked, &verdict.reason).message)
    }
}

/// A right to a subresource that exists for authorization only.
#[derive(Clone, Copy)]
struct Right<'a> {
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

fn is_new(attributes: &Attributes<'_>) -> bool {
    attributes.is_create() && attributes.is_object()
}

fn is_status(attributes: &Attributes<'_>) -> bool {
    attributes.is_update() && attributes.subresource == "status"
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the index of the first allocated device with admin access.
fn admin_result(status: &Value) -> Option<usize> {
    let results = items(&status["allocation"]["devices"]["results"]);
    results.iter().position(|result| result["adminAccess"] == true)
}

/// Returns the drivers whose device statuses differ.
fn changed_drivers(new: &Value, old: &Value) -> BTreeSet<String> {
    let key = |device: &Value| {
        ["driver", "pool", "device", "shareID"]
            .map(|field| device[field].as_str().unwrap_or_default().to_owned())
    };
    let mut before: BTreeMap<_, _> =
        items(&old["devices"]).iter().map(|device| (key(device), device)).collect();
    let mut drivers = BTreeSet::new();
    for device in items(&new["devices"]) {
        let key = key(device);
        if before.remove(&key) != Some(device) {
            drivers.extend(key.into_iter().next());
        }
    }
    drivers.extend(before.into_keys().filter_map(|key| key.into_iter().next()));
    drivers
}

/// Returns the node of an allocation for one node.
fn allocated_node(status: &Value) -> Option<&str> {
    let [term] = items(&status["allocation"]["nodeSelector"]["nodeSelectorTerms"]) else { return None };
    let [field] = items(&term["matchFields"]) else { return None };
    let [node] = items(&field["values"]) else { return None };
    let is_name = field["key"] == "metadata.name" && field["operator"] == "In";
    node.as_str().filter(|_| is_name && items(&term["matchExpressions"]).is_empty())
}

/// Returns whether the user is a service account whose token is bound to a pod on the node.
fn is_on_node(attributes: &Attributes<'_>, node: Option<&str>) -> bool {
    let user = attributes.user;
    let bound = user.extra.get(NODE_NAME).map(Vec::as_slice);
    node.is_some_and(|node| {
        user.name.starts_with(SERVICE_ACCOUNT) && bound.is_some_and(|bound| bound == [node])
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::rights::allowing;
    use crate::testing::{MemoryCluster, Request, registry};

    async fn fields(request: Request<'_>, rights: &[&'static str], labels: Value) -> Vec<String> {
        let cluster = MemoryCluster::default();
        cluster.namespaces.put(json!({"metadata": {"name": "ns", "labels": labels}}));
        let refusal = request.validate(&*check(&cluster.parts(allowing(rights)))).await.err();
        let causes =
            refusal.and_then(|status| status.details).map(|details| details.causes).unwrap_or_default();
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[tokio::test]
    async fn admin_access_needs_a_label_of_the_namespace() {
        let devices = json!({"devices": {"requests": [{"name": "a", "exactly": {}}, {"name": "b", "exactly": {"adminAccess": true}}]}});
        let labelled = json!({"resource.kubernetes.io/admin-access": "true"});
        for (resource, spec) in
            [("resourceclaims", devices.clone()), ("resourceclaimtemplates", json!({"spec": devices}))]
        {
            let object = json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": spec});
            let new =
                || Request::new(registry(), GROUP, resource, object.clone(), Value::Null).by("alice", &[]);
            assert_eq!(
                fields(new(), &[], json!({})).await,
                ["spec.devices.requests[1].adminAccess"],
                "{resource}"
            );
            assert_eq!(fields(new(), &[], labelled.clone()).await, [""; 0], "{resource}");
        }
    }

    #[tokio::test]
    async fn status_needs_rights_by_field() {
        let claim = |status: Value| json!({"metadata": {"name": "c", "namespace": "ns"}, "status": status});
        let update = |new: Value, old: Value| {
            Request::new(registry(), GROUP, "resourceclaims", claim(new), claim(old))
                .by("alice", &[])
                .with_subresource("status")
        };
        let allocation = json!({"devices": {"results": []}});
        let device =
            |driver: &str, data: i64| json!({"driver": driver, "pool": "p", "device": "d", "data": data});
        let allocated = |devices: Value| json!({"allocation": allocation, "devices": devices});
        for (new, old, rights, expected) in [
            (allocated(json!([])), json!({}), &[][..], &["status.allocation"][..]),
            (allocated(json!([])), json!({}), &["update resourceclaims/binding"], &[]),
            (json!({"reservedFor": [{"name": "p"}]}), json!({}), &[], &["status.allocation"]),
            (json!({"reservedFor": []}), json!({}), &[], &[]),
            (
                allocated(json!([device("a", 2)])),
                allocated(json!([device("a", 1)])),
                &[],
                &["status.devices"],
            ),
            (allocated(json!([device("a", 1)])), allocated(json!([device("a", 1)])), &[], &[]),
            (
                allocated(json!([])),
                allocated(json!([device("a", 1), device("b", 1)])),
                &["arbitrary-node:update resourceclaims a"],
                &["status.devices"],
            ),
            (
                allocated(json!([device("a", 2)])),
                allocated(json!([])),
                &["arbitrary-node:update resourceclaims a"],
                &[],
            ),
            (
                allocated(json!([device("a", 2)])),
                allocated(json!([])),
                &["associated-node:update resourceclaims a"],
                &["status.devices"],
            ),
        ] {
            assert_eq!(
                fields(update(new.clone(), old.clone()), rights, json!({})).await,
                expected,
                "{new} {old}"
            );
        }
    }

    #[tokio::test]
    async fn drivers_write_devices_of_their_node() {
        let selector = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
        let claim = |devices: Value| json!({"metadata": {"name": "c", "namespace": "ns"}, "status": {"allocation": {"nodeSelector": selector}, "devices": devices}});
        let new = claim(json!([{"driver": "a", "pool": "p", "device": "d"}]));
        for (node, expected) in [("n", &[][..]), ("m", &["status.devices"])] {
            let mut request =
                Request::new(registry(), GROUP, "resourceclaims", new.clone(), claim(json!([])))
                    .by("system:serviceaccount:ns:driver", &[])
                    .with_subresource("status");
            request.user.extra.insert(NODE_NAME.to_owned(), vec![node.to_owned()]);
            assert_eq!(
                fields(request, &["associated-node:update resourceclaims a"], json!({})).await,
                expected
            );
        }
    }
}
