//! PersistentVolumeClaimResize allows claims to grow only if their storage class allows expansion (upstream:
//! `plugin/pkg/admission/storage/persistentvolume/resize`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::quantity::Quantity;
use nave_machinery::{Object, Status};

use super::Parts;
use crate::{Attributes, Lister, Plugin, Validate};

/// PersistentVolumeClaimResize.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(ClaimResize { classes: Arc::clone(&parts.cluster.storage_classes) })
}

struct ClaimResize {
    classes: Arc<dyn Lister>,
}

#[async_trait]
impl Validate for ClaimResize {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_update()
            && attributes.is_resource("", "persistentvolumeclaims")
            && attributes.is_object()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let (Some(claim), Some(old)) = (object, attributes.old) else { return Ok(()) };
        if size(claim) <= size(old) {
            return Ok(());
        }
        if old.str_at(&["status", "phase"]) != Some("Bound") {
            return Err(attributes.forbidden(claim, "Only bound persistent volume claims can be expanded"));
        }
        if self.allows_growth(claim, old)? {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(attributes.forbidden(claim, why))
    }
}

impl ClaimResize {
    fn allows_growth(&self, claim: &Object, old: &Object) -> Result<bool, Status> {
        let name = class_name(claim);
        if name.is_empty() || name != class_name(old) {
            return Ok(false);
        }
        let class = self.classes.get("", name)?;
        Ok(class.is_some_and(|class| class.is_true_at(&["allowVolumeExpansion"])))
    }
}

fn size(claim: &Object) -> Quantity {
    let size = claim.str_at(&["spec", "resources", "requests", "storage"]);
    size.and_then(|size| Quantity::parse(size).ok()).unwrap_or(Quantity::ZERO)
}

fn class_name(claim: &Object) -> &str {
    let annotated = claim.annotation("volume.beta.kubernetes.io/storage-class");
    annotated.or_else(|| claim.str_at(&["spec", "storageClassName"])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    #[tokio::test]
    async fn growth_requires_an_expandable_class() {
        let classes = Arc::new(Memory::default());
        classes.put(json!({"metadata": {"name": "grow"}, "allowVolumeExpansion": true}));
        classes.put(json!({"metadata": {"name": "fixed"}, "allowVolumeExpansion": false}));
        classes.put(json!({"metadata": {"name": "unset"}}));
        let plugin = ClaimResize { classes };
        let claim = |class: Value, size: &str, phase: &str| {
            json!({"metadata": {"name": "c"}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let refused = |why: &str| Err((403, format!(r#"persistentvolumeclaims "c" is forbidden: {why}"#)));
        let not_allowed = refused(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
        for (class, from, to, phase, expected) in [
            (json!("grow"), "2Gi", "3Gi", "Bound", Ok(())),
            (
                json!("grow"),
                "2Gi",
                "3Gi",
                "Pending",
                refused("Only bound persistent volume claims can be expanded"),
            ),
            (json!("fixed"), "2Gi", "3Gi", "Bound", not_allowed.clone()),
            (json!("unset"), "2Gi", "3Gi", "Bound", not_allowed.clone()),
            (json!(""), "2Gi", "3Gi", "Bound", not_allowed.clone()),
            (json!(null), "2Gi", "3Gi", "Bound", not_allowed.clone()),
            (json!("gone"), "2Gi", "3Gi", "Bound", not_allowed),
            (json!("fixed"), "2Gi", "2048Mi", "Bound", Ok(())),
            (json!("fixed"), "2Gi", "1Gi", "Bound", Ok(())),
        ] {
            let (new, old) = (claim(class.clone(), to, phase), claim(class, from, phase));
            let request = Request::new(registry(), "", "persistentvolumeclaims", new, old);
            assert_eq!(outcome(request.validate(&plugin).await), expected, "{}", request.object);
        }
    }
}
