//! NamespaceExists refuses requests in namespaces that do not exist (upstream:
//! `plugin/pkg/admission/namespace/exists`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Object, Status};

use super::Parts;
use crate::{Attributes, Lister, Operation, Plugin, Validate};

/// NamespaceExists.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(NamespaceExists { namespaces: Arc::clone(&parts.cluster.namespaces) })
}

struct NamespaceExists {
    namespaces: Arc<dyn Lister>,
}

#[async_trait]
impl Validate for NamespaceExists {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect
            && !attributes.namespace.is_empty()
            && !attributes.is_resource("", "namespaces")
    }

    async fn validate(&self, attributes: &Attributes<'_>, _: Option<&Object>) -> Result<(), Status> {
        let name = attributes.namespace;
        if self.namespaces.get("", name)?.is_some() || self.namespaces.get_live("", name).await?.is_some() {
            return Ok(());
        }
        Err(Status::not_found(&GroupResource::new("", "namespaces"), name))
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    #[tokio::test]
    async fn refuses_each_operation_in_a_missing_namespace() {
        let namespaces = Arc::new(Memory::default());
        let plugin = NamespaceExists { namespaces: Arc::clone(&namespaces) as _ };
        let object = json!({"metadata": {"name": "a"}});
        let missing = Err((404, r#"namespaces "ns" not found"#.to_owned()));
        let cases = [(object.clone(), Value::Null), (object.clone(), object.clone()), (Value::Null, object)];
        for exists in [false, true] {
            for (new, old) in cases.clone() {
                let request = Request::new(registry(), "", "secrets", new, old);
                let expected = if exists { Ok(()) } else { missing.clone() };
                assert_eq!(outcome(request.validate(&plugin).await), expected);
            }
            namespaces.put_uncached(json!({"metadata": {"name": "ns"}}));
        }
    }
}
