//! AlwaysPullImages sets the image pull policy of pods to Always (upstream: `plugin/pkg/admission/alwayspullimages`).

use async_trait::async_trait;
use nave_machinery::{FieldError, FieldPath, Object, Status, Value};

use super::plain_error;
use super::pods::{ContainerKind, containers, containers_mut, list, text};
use crate::{Attributes, Mutate, Plugin, Validate};

const ALWAYS: &str = "Always";

/// AlwaysPullImages.
pub(super) fn plugin() -> Plugin {
    Plugin::both(AlwaysPullImages)
}

struct AlwaysPullImages;

/// Returns whether the request creates or updates a pod. `has_new_images` later skips updates without new images.
fn handles(attributes: &Attributes<'_>) -> bool {
    attributes.is_write() && attributes.is_pods() && attributes.is_object()
}

#[async_trait]
impl Mutate for AlwaysPullImages {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        if !has_new_images(attributes, pod) {
            return Ok(());
        }
        let Some(spec) = pod.map_at_mut(&["spec"]) else { return Ok(()) };
        for (_, container) in containers_mut(spec, &ContainerKind::ALL) {
            container.insert("imagePullPolicy".to_owned(), ALWAYS.into());
        }
        let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten();
        for image in volumes.filter_map(|volume| volume.get_mut("image")?.as_object_mut()) {
            image.insert("pullPolicy".to_owned(), ALWAYS.into());
        }
        Ok(())
    }
}

#[async_trait]
impl Validate for AlwaysPullImages {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object.filter(|pod| has_new_images(attributes, pod)) else { return Ok(()) };
        let Some(spec) = pod.get("spec") else { return Ok(()) };
        let at = FieldPath::new("spec");
        let mut errors = Vec::new();
        for container in containers(spec) {
            let policy = text(container.value, "imagePullPolicy");
            if policy != ALWAYS {
                let at = at.child(container.kind.field()).index(container.index).child("imagePullPolicy");
                errors.push(FieldError::not_supported(&at, policy, &[ALWAYS]));
            }
        }
        for (index, volume) in list(spec.get("volumes")).iter().enumerate() {
            let Some(image) = volume.get("image") else { continue };
            let policy = text(image, "pullPolicy");
            if policy != ALWAYS {
                let at = at.child("volumes").index(index).child("image").child("pullPolicy");
                errors.push(FieldError::not_supported(&at, policy, &[ALWAYS]));
            }
        }
        let messages: Vec<_> = errors.iter().map(|error| attributes.forbidden(pod, error).message).collect();
        match messages.as_slice() {
            [] => Ok(()),
            // Upstream returns a plain error instead of a status here.
            [one] => Err(plain_error(one)),
            many => Err(plain_error(format!("[{}]", many.join(", ")))),
        }
    }
}

/// Returns whether a pod has an image that the stored pod does not have.
fn has_new_images(attributes: &Attributes<'_>, pod: &Object) -> bool {
    let Some(old) = attributes.old.filter(|_| attributes.is_update()) else { return true };
    let images = |pod: &Object| -> Vec<String> {
        let Some(spec) = pod.get("spec") else { return Vec::new() };
        let of_volumes = list(spec.get("volumes")).iter().filter_map(|volume| volume.get("image"));
        let of_volumes = of_volumes.map(|image| text(image, "reference").to_owned());
        containers(spec).map(|it| text(it.value, "image").to_owned()).chain(of_volumes).collect()
    };
    let old = images(old);
    images(pod).iter().any(|image| !old.contains(image))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    fn pod(image: &str, policy: &str) -> Value {
        let container = json!({"name": "c", "image": image, "imagePullPolicy": policy});
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [container], "initContainers": [container], "ephemeralContainers": [container],
            "volumes": [{"name": "v", "image": {"reference": image, "pullPolicy": policy}}]}})
    }

    #[tokio::test]
    async fn sets_the_policy_for_new_images() {
        for (new, old, expected) in [
            (pod("a", "Never"), Value::Null, pod("a", "Always")),
            (pod("b", "Never"), pod("a", "Never"), pod("b", "Always")),
            (pod("a", "Never"), pod("a", "Never"), pod("a", "Never")),
        ] {
            let mut request = Request::new(registry(), "", "pods", new, old);
            request.admit(&plugin()).await.unwrap();
            assert_eq!(request.object, expected);
        }
    }

    #[tokio::test]
    async fn refuses_another_policy() {
        let request = Request::new(registry(), "", "pods", pod("a", "Never"), Value::Null);
        let (code, message) = outcome(request.validate(&AlwaysPullImages).await).unwrap_err();
        assert_eq!(code, 500);
        for field in ["initContainers[0]", "containers[0]", "ephemeralContainers[0]"] {
            let part = format!(
                r#"pods "p" is forbidden: spec.{field}.imagePullPolicy: Unsupported value: "Never": supported values: "Always""#
            );
            assert!(message.contains(&part), "{message}");
        }
        assert!(message.contains("spec.volumes[0].image.pullPolicy: Unsupported value"), "{message}");
    }
}
