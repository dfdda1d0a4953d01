//! The schemas of the kinds that a policy matches, from the server's OpenAPI documents.

use std::collections::{BTreeSet, HashMap};

use http::Request;
use nave_cel::type_checking::resolve_schema;
use nave_machinery::{GroupVersion, GroupVersionKind};
use serde_json::Value;

use crate::frame::SyncError;

/// Maximum number of kinds that a policy is checked against, as upstream.
const MAX_KINDS: usize = 10;

/// Reads schemas. Each document is fetched once.
pub(super) struct Schemas {
    client: kube::Client,
    documents: HashMap<(String, String), Option<Value>>,
}

impl Schemas {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, documents: HashMap::new() }
    }

    /// Returns the kinds of the resources that the rules name, with their schemas, sorted. Rules with wildcards name no
    /// kinds.
    pub(super) async fn matched_kinds(
        &mut self,
        spec: &Value,
    ) -> Result<Vec<(GroupVersionKind, Value)>, SyncError> {
        let rules = spec.pointer("/matchConstraints/resourceRules").and_then(Value::as_array);
        let mut kinds = BTreeSet::new();
        'rules: for rule in rules.into_iter().flatten() {
            let mut count = 0;
            for (group, version) in group_versions(rule) {
                let Some(document) = self.document(&group, &version).await? else { continue };
                for resource in resources(rule) {
                    let Some(kind) = kind_of(document, &resource) else { continue };
                    kinds.insert((group.clone(), version.clone(), kind));
                    count += 1;
                    if count == MAX_KINDS {
                        break 'rules;
                    }
                }
            }
        }
        let mut found = Vec::new();
        for (group, version, kind) in kinds {
            let kind = GroupVersionKind::new(&group, &version, &kind);
            if let Some(schema) = self.schema(&kind).await? {
                found.push((kind, schema));
            }
        }
        Ok(found)
    }

    /// Returns the schema of the parameters: null if it is not known, `None` if the policy has no parameters.
    pub(super) async fn params(&mut self, spec: &Value) -> Result<Option<Value>, SyncError> {
        let Some(kind) = spec.get("paramKind").filter(|kind| kind.is_object()) else { return Ok(None) };
        let text = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some(version) = GroupVersion::parse(text("apiVersion")) else { return Ok(Some(Value::Null)) };
        let kind = GroupVersionKind::new(&version.group, &version.version, text("kind"));
        Ok(Some(self.schema(&kind).await?.unwrap_or_default()))
    }

    async fn schema(&mut self, kind: &GroupVersionKind) -> Result<Option<Value>, SyncError> {
        let document = self.document(&kind.group, &kind.version).await?;
        Ok(document.and_then(|document| resolve_schema(document, kind)))
    }

    /// Returns the document of a group and version; `None` if it is not served.
    async fn document(&mut self, group: &str, version: &str) -> Result<Option<&Value>, SyncError> {
        let key = (group.to_owned(), version.to_owned());
        if !self.documents.contains_key(&key) {
            let document = self.fetch(group, version).await?;
            self.documents.insert(key.clone(), document);
        }
        Ok(self.documents.get(&key).and_then(Option::as_ref))
    }

    async fn fetch(&self, group: &str, version: &str) -> Result<Option<Value>, SyncError> {
        let path = match group {
            "" => format!("/openapi/v3/api/{version}"),
            group => format!("/openapi/v3/apis/{group}/{version}"),
        };
        // Validation prevents names that are no part of a path.
        let Ok(request) = Request::get(path).body(Vec::new()) else { return Ok(None) };
        match self.client.request(request).await {
            Ok(document) => Ok(Some(document)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the groups and versions of a rule, sorted; none if one of them is a wildcard.
fn group_versions(rule: &Value) -> Vec<(String, String)> {
    let (groups, versions) = (texts(rule, "apiGroups"), texts(rule, "apiVersions"));
    if groups.iter().chain(&versions).any(|name| name.contains('*')) {
        return Vec::new();
    }
    let of = |group: &String| {
        let group = group.clone();
        versions.iter().map(move |version| (group.clone(), version.clone())).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of).collect()
}

/// Returns the resources of a rule, sorted, without wildcards and subresources.
fn resources(rule: &Value) -> Vec<String> {
    let mut resources = texts(rule, "resources");
    resources.retain(|resource| !resource.contains(['*', '/']));
    resources
}

fn texts(rule: &Value, field: &str) -> Vec<String> {
    let list = rule.get(field).and_then(Value::as_array).into_iter().flatten();
    let mut texts: Vec<_> = list.filter_map(|item| item.as_str().map(str::to_owned)).collect();
    texts.sort_unstable();
    texts
}

/// Returns the kind of a resource in a document.
fn kind_of(document: &Value, resource: &str) -> Option<String> {
    let paths = document.get("paths")?.as_object()?;
    let (_, path) = paths.iter().find(|(path, _)| path.rsplit('/').next() == Some(resource))?;
    let kind = path.get("get")?.pointer("/x-kubernetes-group-version-kind/kind")?.as_str()?;
    Some(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcards_and_subresources_name_no_kinds() {
        let rule = |groups: Value, resources: Value| json!({"apiGroups": groups, "apiVersions": ["v1"], "resources": resources});
        let plain = rule(json!(["b", "a"]), json!(["pods", "pods/status", "*", "deployments"]));
        assert_eq!(group_versions(&plain), [("a".into(), "v1".into()), ("b".into(), "v1".into())]);
        assert_eq!(resources(&plain), ["deployments", "pods"]);
        assert_eq!(group_versions(&rule(json!(["*"]), json!(["pods"]))), []);
    }

    #[test]
    fn finds_the_kind_of_a_resource() {
        let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
        let path = json!({"get": {"x-kubernetes-group-version-kind": kind}});
        let document = json!({"paths": {"/api/v1/namespaces/{namespace}/pods": path}});
        assert_eq!(kind_of(&document, "pods"), Some("Pod".to_owned()));
        assert_eq!(kind_of(&document, "nodes"), None);
    }
}
