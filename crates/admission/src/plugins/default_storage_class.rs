//! DefaultStorageClass sets the default class of claims without a class (upstream:
//! `plugin/pkg/admission/storage/storageclass/setdefault`).

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::Parts;
use crate::{Attributes, Lister, Mutate, Plugin};

/// The annotations that mark the default class.
const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The legacy annotation for the class of a claim.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// DefaultStorageClass.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(DefaultStorageClass { classes: Arc::clone(&parts.cluster.storage_classes) })
}

struct DefaultStorageClass {
    classes: Arc<dyn Lister>,
}

#[async_trait]
impl Mutate for DefaultStorageClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create()
            && attributes.is_resource("", "persistentvolumeclaims")
            && attributes.is_object()
    }

    async fn admit(&self, _: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(claim) = object else { return Ok(()) };
        let named = claim.value_at(&["spec", "storageClassName"]).is_some_and(|name| !name.is_null());
        if named || claim.annotation(CLASS_ANNOTATION).is_some() {
            return Ok(());
        }
        let is_default = |class: &Object| IS_DEFAULT.iter().any(|key| class.annotation(key) == Some("true"));
        if let Some(class) = newest(self.classes.list(None)?, is_default) {
            claim.map_mut("spec").insert("storageClassName".to_owned(), class.name().into());
        }
        Ok(())
    }
}

/// Returns the newest default class; among classes created at the same time, the first by name.
pub(super) fn newest(classes: Vec<Arc<Object>>, is_marked: impl Fn(&Object) -> bool) -> Option<Arc<Object>> {
    let marked = classes.into_iter().filter(|class| is_marked(class));
    // The text order of API timestamps is their time order.
    let rank = |class: &Arc<Object>| {
        (class.creation_timestamp().map(str::to_owned), Reverse(class.name().to_owned()))
    };
    marked.max_by_key(rank)
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, registry};

    #[tokio::test]
    async fn sets_the_newest_default_class() {
        let classes = Arc::new(Memory::default());
        let plugin = DefaultStorageClass { classes: Arc::clone(&classes) as _ };
        let class = |name: &str, day: u32, annotation: &str, value: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z"),
                "annotations": {annotation: value}}})
        };
        let create = async |spec: Value, annotations: Value| {
            let claim = json!({"metadata": {"name": "c", "annotations": annotations}, "spec": spec});
            let mut request = Request::new(registry(), "", "persistentvolumeclaims", claim, Value::Null);
            request.mutate(&plugin).await.unwrap();
            request.object["spec"].get("storageClassName").cloned()
        };
        classes.put(class("no", 9, IS_DEFAULT[0], "false"));
        assert_eq!(create(json!({}), json!({})).await, None);
        classes.put(class("old", 1, IS_DEFAULT[0], "true"));
        assert_eq!(create(json!({}), json!({})).await, Some(json!("old")));
        classes.put(class("b", 2, IS_DEFAULT[1], "true"));
        classes.put(class("a", 2, IS_DEFAULT[0], "true"));
        assert_eq!(create(json!({}), json!({})).await, Some(json!("a")));
        assert_eq!(create(json!({"storageClassName": null}), json!({})).await, Some(json!("a")));
        assert_eq!(create(json!({"storageClassName": ""}), json!({})).await, Some(json!("")));
        assert_eq!(create(json!({}), json!({CLASS_ANNOTATION: "x"})).await, None);
    }
}
