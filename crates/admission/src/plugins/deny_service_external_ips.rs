//! DenyServiceExternalIPs refuses new external IPs of services (upstream:
//! `plugin/pkg/admission/network/denyserviceexternalips`).

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use crate::{Attributes, Plugin, Validate};

const EXTERNAL_IPS: [&str; 2] = ["spec", "externalIPs"];

/// DenyServiceExternalIPs.
pub(super) fn plugin() -> Plugin {
    Plugin::validating(DenyServiceExternalIps)
}

struct DenyServiceExternalIps;

#[async_trait]
impl Validate for DenyServiceExternalIps {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_resource("", "services") && attributes.is_object()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(service) = object else { return Ok(()) };
        let old = attributes.old.map_or(&[][..], |old| old.list_at(&EXTERNAL_IPS));
        if service.list_at(&EXTERNAL_IPS).iter().all(|ip| old.contains(ip)) {
            return Ok(());
        }
        Err(attributes.forbidden(service, "Use of external IPs is denied by admission control"))
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    #[tokio::test]
    async fn refuses_new_external_ips_only() {
        let service = |ips: &[&str]| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ips}});
        let refused = Err((
            403,
            r#"services "s" is forbidden: Use of external IPs is denied by admission control"#.to_owned(),
        ));
        for (new, old, expected) in [
            (service(&[]), Value::Null, Ok(())),
            (service(&["1.2.3.4"]), Value::Null, refused.clone()),
            (service(&["1.2.3.4"]), service(&["1.2.3.4", "1.2.3.5"]), Ok(())),
            (service(&["1.2.3.4", "1.2.3.6"]), service(&["1.2.3.4"]), refused),
        ] {
            let request = Request::new(registry(), "", "services", new, old);
            assert_eq!(outcome(request.validate(&DenyServiceExternalIps).await), expected);
        }
    }
}
