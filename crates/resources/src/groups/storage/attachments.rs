//! Volume attachments and CSI storage capacities (upstream: `pkg/apis/storage`).

use nave_machinery::{FieldError, FieldPath, Value, names};

use crate::groups::core::inline_volume;
use crate::groups::core::pod_spec::warnings::of_label_selector;
use crate::strategy::Strategy;
use crate::validate::{
    At, Errors, IMMUTABLE, checked, driver_name, immutable, label_selector, quantity_not_negative,
};

const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_MAX: usize = 1024;

/// The strategy of volume attachments.
pub(super) struct AttachmentStrategy;

impl Strategy for AttachmentStrategy {
    fn validate(&self, attachment: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(attachment);
        let spec = root.field("spec");
        driver_name(spec.field("attacher"), &mut errors);
        source(spec.field("source"), &mut errors);
        checked(spec.field("nodeName"), names::is_dns1123_subdomain, &mut errors);
        status(root.field("status"), &mut errors);
        errors
    }

    fn validate_update(&self, attachment: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(attachment);
        let (root, old) = (At::root(attachment), At::root(old));
        if root.field("spec").value() != old.field("spec").value() {
            errors.push(root.field("spec").invalid(IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, attachment: &Value, old: &Value) -> Errors {
        self.validate_update(attachment, old)
    }
}

fn source(source: At, errors: &mut Errors) {
    let (inline, named) = (source.field("inlineVolumeSpec"), source.field("persistentVolumeName"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), named.is_set()) {
        (false, false) => errors.push(source.required(one)),
        (true, true) => errors.push(source.forbidden(one)),
        (false, true) if named.text().is_empty() => {
            errors.push(named.required("must specify non empty persistentVolumeName"));
        }
        (false, true) => {}
        (true, false) => inline_volume(inline, errors),
    }
    if named.is_set() {
        let path = FieldPath::new("spec.source.persistentVolumeName");
        let found = names::is_dns1123_subdomain(named.text());
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, named.text(), why)));
    }
}

fn status(status: At, errors: &mut Errors) {
    let metadata = status.field("attachmentMetadata");
    let bytes: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if bytes > METADATA_BYTES_MAX {
        errors.push(FieldError::too_long(&metadata.path(), METADATA_BYTES_MAX));
    }
    for error in ["attachError", "detachError"] {
        let error = status.field(error);
        let (message, code) = (error.field("message"), error.field("errorCode"));
        if message.text().len() > MESSAGE_MAX {
            errors.push(FieldError::too_long(&message.path(), METADATA_BYTES_MAX));
        }
        if code.int().is_some_and(|code| code < 0) {
            errors.push(code.invalid(format!("must be between 0 and {}, inclusive", i32::MAX)));
        }
    }
}

/// The strategy of CSI storage capacities.
pub(super) struct CapacityStrategy;

impl Strategy for CapacityStrategy {
    fn validate(&self, capacity: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(capacity);
        label_selector(root.field("nodeTopology"), &mut errors);
        checked(root.field("storageClassName"), names::is_dns1123_subdomain, &mut errors);
        quantity_not_negative(root.field("capacity"), &mut errors);
        errors
    }

    fn validate_update(&self, capacity: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(capacity);
        let (root, old) = (At::root(capacity), At::root(old));
        for field in ["nodeTopology", "storageClassName"] {
            immutable(root.field(field), old.field(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, capacity: &Value, _old: Option<&Value>) -> Vec<String> {
        of_label_selector(At::root(capacity).field("nodeTopology"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn attachment_has_one_source() {
        let attachment =
            |source: Value| json!({"spec": {"attacher": "a", "nodeName": "n", "source": source}});
        for (source, expected) in [
            (json!({"persistentVolumeName": "pv"}), &[][..]),
            (json!({}), &["spec.source"]),
            (
                json!({"persistentVolumeName": ""}),
                &[
                    "spec.source.persistentVolumeName",
                    "spec.source.persistentVolumeName",
                    "spec.source.persistentVolumeName",
                ],
            ),
            (json!({"persistentVolumeName": "pv", "inlineVolumeSpec": {}}), &["spec.source"]),
            (
                json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}}}),
                &[],
            ),
        ] {
            let errors = AttachmentStrategy.validate(&attachment(source.clone()));
            let found: Vec<_> = fields(&errors).into_iter().collect();
            if source["persistentVolumeName"] == "" {
                assert!(found.iter().all(|field| field == expected[0]), "{found:?}");
            } else {
                assert_eq!(found, expected, "{source}");
            }
        }
        let mut failed = attachment(json!({"persistentVolumeName": "pv"}));
        failed["status"] = json!({"attachError": {"errorCode": -1, "message": "x".repeat(2000)}});
        assert_eq!(
            fields(&AttachmentStrategy.validate(&failed)),
            ["status.attachError.message", "status.attachError.errorCode",]
        );
    }

    #[test]
    fn capacity_requires_a_class() {
        let capacity = json!({"storageClassName": "A_", "capacity": "-1"});
        assert_eq!(fields(&CapacityStrategy.validate(&capacity)), ["storageClassName", "capacity"]);
        let labels = json!({"nodeTopology": {"matchLabels": {"beta.kubernetes.io/os": "linux"}}});
        assert_eq!(CapacityStrategy.warnings(&labels, None).len(), 1);
    }
}
