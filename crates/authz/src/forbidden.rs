//! The response to a forbidden request.

use std::fmt::Write;

use nave_machinery::{GroupResource, Reason, Status, status::StatusDetails};

use crate::Attributes;

/// Returns a 403 with upstream's message and details. For non-resource requests, the details are present but empty.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut why = what_is_forbidden(attributes);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    if attributes.is_resource_request() {
        let resource = GroupResource::new(attributes.group, attributes.resource);
        return Status::forbidden(&resource, attributes.name, &why);
    }
    let message = format!("forbidden: {why}");
    Status::failure(403, Reason::Forbidden, message).with_details(StatusDetails::default())
}

fn what_is_forbidden(attributes: &Attributes<'_>) -> String {
    let Attributes { verb, group, resource, subresource, namespace, path, .. } = *attributes;
    let user = &attributes.user.name;
    if !attributes.is_resource_request() {
        return format!("User {user:?} cannot {verb} path {path:?}");
    }
    let slash = if subresource.is_empty() { "" } else { "/" };
    let mut text = format!(
        r#"User {user:?} cannot {verb} resource "{resource}{slash}{subresource}" in API group {group:?}"#
    );
    let _ = if namespace.is_empty() {
        write!(text, " at the cluster scope")
    } else {
        write!(text, " in the namespace {namespace:?}")
    };
    text
}

#[cfg(test)]
mod tests {
    use nave_machinery::user::UserInfo;
    use serde_json::json;

    use super::*;

    fn message(attributes: Attributes<'_>) -> String {
        forbidden(&attributes, "").message
    }

    #[test]
    fn messages_match_upstream() {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let none = Attributes::for_user(&user);
        assert_eq!(
            message(Attributes { verb: "list", resource: "pods", namespace: "y", ..none }),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        assert_eq!(
            message(Attributes { verb: "get", resource: "nodes", name: "n", ..none }),
            r#"nodes "n" is forbidden: User "x" cannot get resource "nodes" in API group "" at the cluster scope"#
        );
        let status = Attributes {
            verb: "patch",
            group: "apps",
            resource: "deployments",
            subresource: "status",
            namespace: "y",
            name: "d",
            ..none
        };
        assert_eq!(
            message(status),
            r#"deployments.apps "d" is forbidden: User "x" cannot patch resource "deployments/status" in API group "apps" in the namespace "y""#
        );
        assert_eq!(
            message(Attributes { verb: "get", path: "/y", ..none }),
            r#"forbidden: User "x" cannot get path "/y""#
        );
    }

    #[test]
    fn status_details_name_the_resource() {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let get = Attributes {
            verb: "get",
            group: "apps",
            resource: "deployments",
            name: "d",
            ..Attributes::for_user(&user)
        };
        let value = forbidden(&get, "because").to_value();
        assert_eq!(value["code"], 403);
        assert_eq!(value["reason"], "Forbidden");
        assert_eq!(value["details"], json!({"name": "d", "group": "apps", "kind": "deployments"}));
        assert!(value["message"].as_str().unwrap().ends_with("at the cluster scope: because"));
        let path = Attributes { verb: "get", path: "/y", ..Attributes::for_user(&user) };
        assert_eq!(forbidden(&path, "").to_value()["details"], json!({}));
    }
}
