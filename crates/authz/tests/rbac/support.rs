//! A slow and simple RBAC evaluator. It visits all bindings for each request and shares no code with the index.

use bytes::Bytes;
use nave_authz::Attributes;
use nave_authz::rbac::{Change, Kind};
use serde_json::Value;

/// All roles and bindings, as objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy(pub(crate) Vec<Value>);

impl Policy {
    /// Returns whether a role bound to the user allows the request.
    pub(crate) fn allows(&self, request: &Attributes<'_>) -> bool {
        self.rules(request).into_iter().any(|rule| rule_allows(rule, request))
    }

    /// The changes that add this policy to an index.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.0.iter().map(|object| change(object, Some(object))).collect()
    }

    fn rules(&self, request: &Attributes<'_>) -> Vec<&Value> {
        let bindings = self.0.iter().filter(|object| match text(object, "kind") {
            "ClusterRoleBinding" => true,
            "RoleBinding" => !request.namespace.is_empty() && namespace(object) == request.namespace,
            _ => false,
        });
        let bound = bindings.filter(|binding| {
            list(binding, "subjects").iter().any(|subject| is_subject(subject, namespace(binding), request))
        });
        bound.filter_map(|binding| self.role(binding)).flat_map(|role| list(role, "rules")).collect()
    }

    fn role(&self, binding: &Value) -> Option<&Value> {
        let (kind, name) = (text(&binding["roleRef"], "kind"), text(&binding["roleRef"], "name"));
        self.0.iter().find(|object| {
            text(object, "kind") == kind
                && object["metadata"]["name"] == name
                && (kind == "ClusterRole" || namespace(object) == namespace(binding))
        })
    }
}

/// The change that replaces the object of this kind and name with `object`.
pub(crate) fn change(identity: &Value, object: Option<&Value>) -> Change {
    Change {
        kind: match text(identity, "kind") {
            "Role" => Kind::Role,
            "ClusterRole" => Kind::ClusterRole,
            "RoleBinding" => Kind::RoleBinding,
            _ => Kind::ClusterRoleBinding,
        },
        namespace: namespace(identity).to_owned(),
        name: identity["metadata"]["name"].as_str().unwrap().to_owned(),
        json: object.map(|object| Bytes::from(object.to_string())),
    }
}

fn is_subject(subject: &Value, binding_namespace: &str, request: &Attributes<'_>) -> bool {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "User" => request.user.name == name,
        "Group" => request.user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = text(subject, "namespace");
            let namespace = if own.is_empty() { binding_namespace } else { own };
            !namespace.is_empty() && request.user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn rule_allows(rule: &Value, request: &Attributes<'_>) -> bool {
    let has = |field: &str, wanted: &str| list(rule, field).iter().any(|word| word == wanted);
    if !has("verbs", "*") && !has("verbs", request.verb) {
        return false;
    }
    if request.resource.is_empty() {
        return list(rule, "nonResourceURLs").iter().filter_map(Value::as_str).any(|url| {
            let start = url.trim_end_matches('*');
            url == request.path || (url.ends_with('*') && request.path.starts_with(start))
        });
    }
    let resource = match request.subresource {
        "" => has("resources", request.resource),
        sub => {
            has("resources", &format!("{}/{sub}", request.resource)) || has("resources", &format!("*/{sub}"))
        }
    };
    (has("apiGroups", "*") || has("apiGroups", request.group))
        && (has("resources", "*") || resource)
        && (list(rule, "resourceNames").is_empty() || has("resourceNames", request.name))
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}
