//! LimitPodHardAntiAffinityTopology restricts required pod anti-affinity to the topology of hosts (upstream:
//! `plugin/pkg/admission/antiaffinity`).

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::pods::text;
use crate::{Attributes, Plugin, Validate};

/// The only topology key that required anti-affinity may have.
const HOSTNAME: &str = "kubernetes.io/hostname";
const REQUIRED_TERMS: [&str; 4] =
    ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];

/// LimitPodHardAntiAffinityTopology.
pub(super) fn plugin() -> Plugin {
    Plugin::validating(LimitPodHardAntiAffinityTopology)
}

struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Validate for LimitPodHardAntiAffinityTopology {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_pods() && attributes.is_object()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let mut keys = pod.list_at(&REQUIRED_TERMS).iter().map(|term| text(term, "topologyKey"));
        let Some(key) = keys.find(|key| *key != HOSTNAME) else { return Ok(()) };
        let why = format!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
        );
        Err(Status::forbidden(&attributes.def.group_resource(), pod.name(), &why))
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    #[tokio::test]
    async fn allows_the_hostname_only() {
        let check = async |kind: &str, key: &str| {
            let term = json!([{"topologyKey": HOSTNAME}, {"topologyKey": key}]);
            let pod =
                json!({"metadata": {"name": "p"}, "spec": {"affinity": {"podAntiAffinity": {kind: term}}}});
            outcome(
                Request::new(registry(), "", "pods", pod, Value::Null)
                    .validate(&LimitPodHardAntiAffinityTopology)
                    .await,
            )
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let refused = r#"pods "p" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed"#;
        assert_eq!(check(required, HOSTNAME).await, Ok(()));
        assert_eq!(check(required, "zone").await, Err((403, refused.to_owned())));
        assert_eq!(check("preferredDuringSchedulingIgnoredDuringExecution", "zone").await, Ok(()));
    }
}
