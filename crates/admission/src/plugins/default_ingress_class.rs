//! DefaultIngressClass sets the default class of ingresses without a class (upstream:
//! `plugin/pkg/admission/network/defaultingressclass`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::Parts;
use super::default_storage_class::newest;
use crate::{Attributes, Lister, Mutate, Plugin};

/// The annotation that marks the default class.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The legacy annotation for the class of an ingress.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// DefaultIngressClass.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(DefaultIngressClass { classes: Arc::clone(&parts.cluster.ingress_classes) })
}

struct DefaultIngressClass {
    classes: Arc<dyn Lister>,
}

#[async_trait]
impl Mutate for DefaultIngressClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create()
            && attributes.is_resource("networking.k8s.io", "ingresses")
            && attributes.is_object()
    }

    async fn admit(&self, _: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(ingress) = object else { return Ok(()) };
        let named = ingress.value_at(&["spec", "ingressClassName"]).is_some_and(|name| !name.is_null());
        if named || ingress.annotation(CLASS_ANNOTATION).is_some() {
            return Ok(());
        }
        let is_default = |class: &Object| class.annotation(IS_DEFAULT) == Some("true");
        if let Some(class) = newest(self.classes.list(None)?, is_default) {
            ingress.map_mut("spec").insert("ingressClassName".to_owned(), class.name().into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, registry};

    #[tokio::test]
    async fn sets_the_default_class() {
        let classes = Arc::new(Memory::default());
        let plugin = DefaultIngressClass { classes: Arc::clone(&classes) as _ };
        let create = async |spec: Value, annotations: Value| {
            let ingress = json!({"metadata": {"name": "i", "annotations": annotations}, "spec": spec});
            let mut request =
                Request::new(registry(), "networking.k8s.io", "ingresses", ingress, Value::Null);
            request.mutate(&plugin).await.unwrap();
            request.object["spec"].get("ingressClassName").cloned()
        };
        for (value, expected) in [("True", None), ("true", Some(json!("pub")))] {
            classes.put(json!({"metadata": {"name": "pub", "annotations": {IS_DEFAULT: value}}}));
            assert_eq!(create(json!({}), json!({})).await, expected);
        }
        assert_eq!(create(json!({"ingressClassName": "x"}), json!({})).await, Some(json!("x")));
        assert_eq!(create(json!({}), json!({CLASS_ANNOTATION: "nginx"})).await, None);
    }
}
