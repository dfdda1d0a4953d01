//! AppArmor profiles in annotations of new pods (upstream: `applyAppArmorVersionSkew`).

use nave_machinery::{Value, meta};
use serde_json::json;

use super::annotations::{APP_ARMOR_PREFIX, Profiles};
use super::security::PATH_MAX;
use crate::defaults::object;
use crate::read;

/// Copies AppArmor profiles from annotations to the fields that replaced them.
pub(crate) fn sync(pod: &mut Value) {
    for Annotated { list, index, profile, .. } in annotated(pod) {
        let container = pod.pointer_mut(&format!("/spec/{list}/{index}")).and_then(Value::as_object_mut);
        if let (Some(container), Some(profile)) = (container, profile)
            && let Some(context) = object(container, "securityContext")
        {
            context.insert("appArmorProfile".to_owned(), profile);
        }
    }
}

/// Warns about the AppArmor annotations of a new pod. The warnings depend on fields that [`sync`] sets.
pub(crate) fn warnings(pod: &Value) -> Vec<String> {
    let warning = |found: Annotated| {
        format!(
            "metadata.annotations[{}]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            found.key
        )
    };
    annotated(pod).into_iter().map(warning).collect()
}

/// A container of a new pod whose AppArmor profile is only in an annotation.
struct Annotated {
    list: &'static str,
    index: usize,
    key: String,
    /// The profile for the field; `None` if the annotation has no valid profile.
    profile: Option<Value>,
}

/// Returns the containers whose AppArmor annotation has no field, without those that have the profile of the pod.
fn annotated(pod: &Value) -> Vec<Annotated> {
    let annotations = meta::field(pod, "annotations").and_then(Value::as_object);
    let Some(annotations) = annotations.filter(|map| Profiles::from_annotations(Some(map)).app_armor) else {
        return Vec::new();
    };
    if read::text(pod, "spec.os.name") == "windows" {
        return Vec::new();
    }
    let field = "/securityContext/appArmorProfile";
    let of_pod = pod.get("spec").and_then(|spec| spec.pointer(field));
    let mut found = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let key = format!("{APP_ARMOR_PREFIX}{}", read::text(container, "name"));
            let Some(annotation) = annotations.get(&key).and_then(Value::as_str) else { continue };
            let own = container.pointer(field).filter(|profile| !profile.is_null());
            let profile = profile_in(annotation);
            if own.is_none() && (profile.is_none() || profile.as_ref() != of_pod) {
                found.push(Annotated { list, index, key, profile });
            }
        }
    }
    found
}

/// Returns the field for an annotation; `None` if it is unknown or the field would be invalid.
fn profile_in(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => annotation
            .strip_prefix("localhost/")
            .filter(|file| !file.is_empty() && file.trim() == *file && file.len() <= PATH_MAX)
            .map(|file| json!({"type": "Localhost", "localhostProfile": file})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_profiles_from_annotations() {
        let runtime = json!({"type": "RuntimeDefault"});
        let file = json!({"type": "Localhost", "localhostProfile": "x"});
        let none = Value::Null;
        // Annotation, profiles of the container and of the pod, profile of the container afterwards, warning.
        let cases = [
            ("runtime/default", &none, &none, &runtime, true),
            ("localhost/x", &none, &none, &file, true),
            ("localhost/x", &none, &runtime, &file, true),
            ("runtime/default", &none, &runtime, &none, false),
            ("runtime/default", &runtime, &none, &runtime, false),
            ("localhost/", &none, &none, &none, true),
            ("localhost/ x", &none, &none, &none, true),
            ("", &none, &runtime, &none, true),
            ("docker/default", &none, &none, &none, true),
        ];
        for (annotation, own, of_pod, wanted, warns) in cases {
            for list in ["containers", "initContainers"] {
                let mut pod = json!({"metadata": {"annotations": {}}, "spec": {
                    "securityContext": {"appArmorProfile": of_pod},
                    (list): [{"name": "a"}, {"name": "c", "securityContext": {"appArmorProfile": own}}],
                }});
                pod["metadata"]["annotations"][format!("{APP_ARMOR_PREFIX}c")] = json!(annotation);
                let found = warnings(&pod);
                let key =
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated";
                assert_eq!(found.iter().filter(|text| text.starts_with(key)).count(), usize::from(warns));
                sync(&mut pod);
                assert_eq!(
                    &pod["spec"][list][1]["securityContext"]["appArmorProfile"], wanted,
                    "{annotation}"
                );
                assert_eq!(pod["spec"][list][0], json!({"name": "a"}));
            }
        }
    }

    #[test]
    fn leaves_windows_pods_alone() {
        let mut pod = json!({
            "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}},
            "spec": {"os": {"name": "windows"}, "containers": [{"name": "c"}]},
        });
        assert_eq!(warnings(&pod), Vec::<String>::new());
        sync(&mut pod);
        assert_eq!(pod["spec"]["containers"][0], json!({"name": "c"}));
    }
}
