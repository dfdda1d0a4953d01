//! What persistent volumes and claims must be.

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, Value, names};

use super::pod_spec::{scheduling, volumes};
use crate::validate::{At, Errors, checked, immutable, label_selector, one_of, quantity, required_text};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const CLAIM_FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
/// The fields of a volume's spec that say what it is, one of which it has.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Checks the spec of a claim, also of one in a template.
pub(crate) fn claim_spec(spec: At, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    label_selector(spec.field("selector"), errors);
    access_modes(modes, errors);
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    let storage = requests.key("storage");
    match quantity(storage) {
        None => errors.push(storage.required("")),
        Some(size) => positive(storage, size, errors),
    }
    let class = spec.field("storageClassName");
    if !class.text().is_empty() {
        checked(class, names::is_dns1123_subdomain, errors);
    }
    if spec.field("volumeMode").is_set() {
        one_of(spec.field("volumeMode"), &VOLUME_MODES, errors);
    }
}

fn access_modes(modes: At, errors: &mut Errors) {
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            // Upstream names the list, not its element.
            errors.push(FieldError::not_supported(&modes.path(), mode.text(), &ACCESS_MODES));
        }
    }
    if modes.len() > 1 && modes.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

fn positive(at: At, size: Quantity, errors: &mut Errors) {
    if size.is_negative() || size.is_zero() {
        errors.push(FieldError::invalid(&at.path(), size.to_string(), "must be greater than zero"));
    }
}

pub(super) fn claim(claim: &Value) -> Errors {
    let mut errors = Errors::new();
    claim_spec(At::root(claim).field("spec"), &mut errors);
    errors
}

/// After its creation a claim may grow once it is bound, and be bound; the rest stays.
pub(super) fn claim_update(new: &Value, old: &Value) -> Errors {
    let mut errors = claim(new);
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    let bound = !old_spec.field("volumeName").text().is_empty();
    let may_change = |name: &str| match name {
        "volumeName" | "storageClassName" => {
            !bound || (name == "storageClassName" && !old_spec.field("storageClassName").is_set())
        }
        "resources" | "volumeAttributesClassName" => bound,
        _ => false,
    };
    let names = spec.map().into_iter().chain(old_spec.map()).flat_map(|map| map.keys());
    let value = |at: At<'_, '_>, name: &str| at.value().and_then(|it| it.get(name)).cloned();
    if names.into_iter().any(|name| !may_change(name) && value(spec, name) != value(old_spec, name)) {
        errors.push(spec.forbidden(CLAIM_FIXED));
    }
    let storage = |spec: At<'_, '_>| {
        let request = spec.value()?.get("resources")?.get("requests")?.get("storage")?;
        quantity(At::named("", Some(request)))
    };
    if let (Some(size), Some(before)) = (storage(spec), storage(old_spec))
        && size < before
        && bound
    {
        let resources = spec.field("resources");
        errors.push(
            resources
                .field("requests")
                .key("storage")
                .forbidden("field can not be less than status.capacity"),
        );
    }
    errors
}

pub(super) fn volume(volume: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(volume);
    let spec = root.field("spec");
    let modes = spec.field("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required(""));
    }
    access_modes(modes, &mut errors);
    let capacity = spec.field("capacity");
    if capacity.len() == 0 {
        errors.push(capacity.required(""));
    } else if capacity.len() > 1 || !capacity.key("storage").is_set() {
        errors.push(FieldError::not_supported(&capacity.path(), shown(capacity), &["storage"]));
    }
    for (_, size) in capacity.entries() {
        if let Some(amount) = quantity(size) {
            positive(size, amount, &mut errors);
        }
    }
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !policy.text().is_empty() {
        one_of(policy, &RECLAIM_POLICIES, &mut errors);
    }
    let affinity = spec.field("nodeAffinity");
    if affinity.is_set() {
        scheduling::node_selector(affinity.field("required"), &mut errors);
    }
    volume_source(spec, &mut errors);
    if spec.field("volumeMode").is_set() {
        one_of(spec.field("volumeMode"), &VOLUME_MODES, &mut errors);
    }
    errors
}

fn shown(at: At) -> Value {
    at.value().cloned().unwrap_or(Value::Null)
}

fn volume_source(spec: At, errors: &mut Errors) {
    let sources: Vec<_> = spec
        .map()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !NOT_SOURCES.contains(&name.as_str()) && !value.is_null())
        .collect();
    if sources.is_empty() {
        errors.push(spec.required("must specify a volume type"));
    }
    for (name, _) in sources.iter().skip(1) {
        errors
            .push(FieldError::forbidden(&spec.path().child(name), "may not specify more than 1 volume type"));
    }
    if spec.field("hostPath").is_set() {
        volumes::host_path(spec.field("hostPath"), errors);
    }
    let csi = spec.field("csi");
    if csi.is_set() {
        required_text(csi.field("driver"), errors);
        required_text(csi.field("volumeHandle"), errors);
    }
}

pub(super) fn volume_update(new: &Value, old: &Value) -> Errors {
    let mut errors = volume(new);
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    let sources = |spec: At<'_, '_>| -> Vec<(String, Value)> {
        let fields =
            spec.map().into_iter().flatten().filter(|(name, _)| !NOT_SOURCES.contains(&name.as_str()));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if sources(spec) != sources(old_spec) {
        errors.push(
            spec.field("persistentvolumesource")
                .forbidden("spec.persistentvolumesource is immutable after creation"),
        );
    }
    immutable(spec.field("volumeMode"), old_spec.field("volumeMode"), &mut errors);
    errors
}
