//! AlwaysDeny refuses every request (upstream: `plugin/pkg/admission/deny`).

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use crate::{Attributes, Mutate, Plugin, Validate};

/// AlwaysDeny.
pub(super) fn deny() -> Plugin {
    Plugin::both(AlwaysDeny)
}

struct AlwaysDeny;

#[async_trait]
impl Mutate for AlwaysDeny {
    fn handles(&self, _: &Attributes<'_>) -> bool {
        true
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        self.validate(attributes, object.as_deref()).await
    }
}

#[async_trait]
impl Validate for AlwaysDeny {
    fn handles(&self, _: &Attributes<'_>) -> bool {
        true
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        Err(attributes.forbidden(object, "admission control is denying all modifications"))
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    #[tokio::test]
    async fn refuses_each_operation() {
        let object = json!({"metadata": {"name": "a"}});
        for (new, old) in
            [(object.clone(), Value::Null), (object.clone(), object.clone()), (Value::Null, object)]
        {
            let mut request = Request::new(registry(), "", "configmaps", new, old);
            let refused = r#"configmaps "a" is forbidden: admission control is denying all modifications"#;
            assert_eq!(outcome(request.admit(&deny()).await), Err((403, refused.to_owned())));
        }
    }
}
