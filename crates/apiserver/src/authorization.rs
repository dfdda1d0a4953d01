//! The authorization stage: decides whether the user may make the request.

mod follow;

use nave_admission::{Notes, Recorded};
use nave_authz::{Attributes, Chain, Decision, Selected, Verdict};
use nave_machinery::Status;
use nave_machinery::selector::{FieldSelector, LabelSelector};
use nave_machinery::user::UserInfo;

pub use self::follow::{follow_nodes, follow_rbac};
use crate::context::RequestContext;
use crate::request_info::{RequestInfo, Verb};

/// The authorizers, in order.
pub struct Authorization(pub Chain);

impl Authorization {
    /// Lets a request pass if an authorizer allows it.
    ///
    /// # Errors
    /// 403 if no authorizer allows the request.
    pub(crate) async fn run(&self, context: &RequestContext) -> Result<(), Status> {
        let attributes = RequestAttributes::new(&context.info);
        let attributes = attributes.of_user(context.user());
        let verdict = self.0.attempt(&attributes).await;
        if context.notes.records(Recorded::Metadata) {
            annotate(&context.notes, &verdict);
        }
        verdict.into_result(&attributes)
    }
}

/// The authorizer attributes of a request. Storage keys are built from the same parsed parts.
pub struct RequestAttributes<'a> {
    info: &'a RequestInfo,
    verb: &'a str,
    selectors: Option<Selectors>,
}

/// The selectors of a list, watch or deletecollection; `None` for a selector that cannot be parsed.
#[derive(Default)]
struct Selectors {
    fields: Option<FieldSelector>,
    labels: Option<LabelSelector>,
}

impl<'a> RequestAttributes<'a> {
    /// Parses the attributes of a request.
    pub fn new(info: &'a RequestInfo) -> Self {
        Self { info, verb: info.attribute_verb(), selectors: Selectors::from_request(info) }
    }

    /// Returns the verb.
    pub(crate) fn verb(&self) -> &'a str {
        self.verb
    }

    /// Returns the attributes for a user.
    pub fn of_user(&'a self, user: &'a UserInfo) -> Attributes<'a> {
        let all = Attributes { verb: self.verb, path: &self.info.path, ..Attributes::for_user(user) };
        let Some(resource) = &self.info.resource else { return all };
        let mut attributes = Attributes {
            group: &resource.gvr.group,
            version: &resource.gvr.version,
            resource: &resource.gvr.resource,
            subresource: &resource.subresource,
            name: &resource.name,
            namespace: &resource.namespace,
            ..all
        };
        if let Some(Selectors { fields, labels }) = &self.selectors {
            attributes.fields = Selected {
                requirements: fields.as_ref().map_or(&[], FieldSelector::requirements),
                incomplete: fields.is_none(),
            };
            attributes.labels = Selected {
                requirements: labels.as_ref().map_or(&[], LabelSelector::requirements),
                incomplete: labels.is_none(),
            };
            // A list filtered to one name is authorized as a request for that object.
            let named = fields.as_ref().and_then(|fields| fields.exact("metadata.name"));
            if let Some(name) = named.filter(|name| attributes.name.is_empty() && is_path_segment(name))
                && self.info.verb != Verb::DeleteCollection
            {
                attributes.name = name;
            }
        }
        attributes
    }
}

impl Selectors {
    fn from_request(info: &RequestInfo) -> Option<Self> {
        if !matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
            return None;
        }
        let (fields, labels) = (info.query.get("fieldSelector"), info.query.get("labelSelector"));
        fields.or(labels)?;
        Some(Self {
            fields: FieldSelector::parse(fields.unwrap_or_default()).ok(),
            labels: LabelSelector::parse(labels.unwrap_or_default()).ok(),
        })
    }
}

/// Adds the decision to the audit annotations.
fn annotate(notes: &Notes, verdict: &Verdict) {
    let decision = match (verdict.decision, &verdict.error) {
        (Decision::Allow, _) => "allow",
        (_, None) => "forbid",
        (_, Some(_)) => "",
    };
    let reason = if decision.is_empty() { "internal error" } else { &verdict.reason };
    for (key, value) in [(DECISION, decision), (REASON, reason)] {
        // An earlier decision of the same request stays. A request that fails in authorization has no decision.
        if key == REASON || !value.is_empty() {
            let _ = notes.annotate(key, value);
        }
    }
}

/// The audit annotations of authorization.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// Returns whether a text is a valid object name in a path.
fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && nave_machinery::names::is_path_segment_name(name).is_empty()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;
    use nave_authz::Authorizer;
    use nave_authz::rbac::{self, Change, Rbac};
    use serde_json::{Value, json};

    use super::*;

    /// Returns an index in which user `u` may get and list pods in namespace `a`, and get the secret `s` there.
    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let change = |kind, object: Value| Change {
            kind,
            namespace: "a".to_owned(),
            name: "r".to_owned(),
            json: Some(Bytes::from(object.to_string())),
        };
        let metadata = json!({"namespace": "a", "name": "r"});
        let rules = json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]},
        ]);
        let role = json!({"metadata": metadata, "rules": rules});
        let role_ref = json!({"kind": "Role", "name": "r"});
        let subjects = json!([{"kind": "User", "name": "u"}]);
        let binding = json!({"metadata": metadata, "roleRef": role_ref, "subjects": subjects});
        rbac.apply([change(rbac::Kind::Role, role), change(rbac::Kind::RoleBinding, binding)]);
        rbac
    }

    async fn is_allowed(rbac: &Rbac, method: &Method, uri: &str) -> bool {
        let info = RequestInfo::new(method, &uri.parse().unwrap());
        let user = UserInfo { name: "u".into(), ..UserInfo::default() };
        rbac.authorize(&RequestAttributes::new(&info).of_user(&user)).await.decision == Decision::Allow
            // Refused after authorization.
            && info.check_encoding().is_ok()
    }

    #[tokio::test]
    async fn no_spelling_of_a_path_widens_access() {
        let rbac = rbac();
        for uri in [
            "/api/v1/namespaces/a/pods",
            "/api/v1/namespaces/a/pods/p",
            "/api/v1/namespaces/a/pods/p/",
            "/api/v1/namespaces/%61/pods",
            "/api/v1/namespaces/a/secrets/s",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds",
        ] {
            assert!(is_allowed(&rbac, &Method::GET, uri).await, "{uri}");
        }
        for uri in [
            "/api/v1/pods",
            "/api/v1/namespaces/b/pods",
            "/api/v1/namespaces//pods",
            "/api/v1//namespaces/a/pods",
            "/api/v1/namespaces/a//pods",
            "/api/v1/namespaces/a/../b/pods",
            "/api/v1/namespaces/a%2f..%2fb/pods",
            "/api/v1/namespaces/a/pods/../secrets/s",
            "/api/v1/namespaces/a/pods%2flog",
            "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/namespaces/a/pods/p/exec",
            "/api/v1/namespaces/A/pods",
            "/api/v1/namespaces/a/Pods",
            "/API/v1/namespaces/a/pods",
            "/apis/apps/v1/namespaces/a/pods",
            "/apis//v1/namespaces/a/pods/p/status",
            "/api/v1/namespaces/a/secrets",
            "/api/v1/namespaces/a/secrets/t",
            "/api/v1/namespaces/a/secrets/s%2f..%2ft",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Ds",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dt",
            "/api/v1/namespaces/a/secrets?labelSelector=metadata.name%3Ds",
            "/api/v1/namespaces/a/secrets/t?fieldSelector=metadata.name%3Ds",
            "/api/v1/watch/namespaces/a/pods",
            "/api/v1/namespaces/a/pods?watch=1",
            "/api/v1/namespaces/a/pods/%ff",
        ] {
            assert!(!is_allowed(&rbac, &Method::GET, uri).await, "{uri}");
        }
        let secrets = "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds";
        for method in [Method::DELETE, Method::POST, Method::OPTIONS] {
            assert!(!is_allowed(&rbac, &method, secrets).await, "{method}");
        }
    }
}
