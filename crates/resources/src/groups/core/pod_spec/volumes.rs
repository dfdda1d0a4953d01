//! Volumes of pods.

use std::collections::BTreeSet;

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, absent_or_one_of, quantity, required_checked, required_text};

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// The permissions a file can have.
const MODE_MAX: i64 = 0o777;
const MODE_MESSAGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes of a pod spec.
pub(super) fn all(spec: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for volume in spec.field("volumes").items() {
        source(volume, errors);
        let name = volume.field("name");
        if required_text(name, errors) {
            let found = names::is_dns1123_label(name.text());
            if found.is_empty() && !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            errors.extend(found.into_iter().map(|why| name.invalid(why)));
        }
    }
}

fn source(volume: At, errors: &mut Errors) {
    let Some(fields) = volume.map() else { return };
    let given = fields.iter().filter(|(kind, value)| *kind != "name" && !value.is_null()).count();
    match given {
        0 => errors.push(volume.required("must specify a volume type")),
        1 => {}
        _ => {
            let kinds = fields.iter().filter(|(kind, value)| *kind != "name" && !value.is_null());
            for (kind, _) in kinds.skip(1) {
                let path = volume.path().child(kind);
                errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
            }
            return;
        }
    }
    let Some((kind, _)) = fields.iter().find(|(kind, value)| *kind != "name" && !value.is_null()) else {
        return;
    };
    match kind.as_str() {
        "emptyDir" => {
            let empty = volume.field("emptyDir");
            let limit = empty.field("sizeLimit");
            if quantity(limit).is_some_and(nave_machinery::quantity::Quantity::is_negative) {
                errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
            }
        }
        "hostPath" => host_path(volume.field("hostPath"), errors),
        "secret" => {
            let secret = volume.field("secret");
            required_text(secret.field("secretName"), errors);
            files(secret, errors);
        }
        "configMap" => {
            let map = volume.field("configMap");
            required_text(map.field("name"), errors);
            files(map, errors);
        }
        "downwardAPI" => {
            let downward = volume.field("downwardAPI");
            mode(downward.field("defaultMode"), errors);
            downward_files(downward, errors);
        }
        "projected" => projected(volume.field("projected"), errors),
        "persistentVolumeClaim" => {
            let claim = volume.field("persistentVolumeClaim");
            required_checked(claim.field("claimName"), names::is_dns1123_subdomain, errors);
        }
        "nfs" => {
            let nfs = volume.field("nfs");
            required_text(nfs.field("server"), errors);
            if required_text(nfs.field("path"), errors) && !nfs.field("path").text().starts_with('/') {
                errors.push(nfs.field("path").invalid("must be an absolute path"));
            }
        }
        "csi" => {
            let csi = volume.field("csi");
            required_text(csi.field("driver"), errors);
        }
        "ephemeral" => {
            let ephemeral = volume.field("ephemeral");
            let template = ephemeral.field("volumeClaimTemplate");
            if template.is_set() {
                crate::groups::core::claim_spec(template.field("spec"), errors);
            } else {
                errors.push(template.required(""));
            }
        }
        _ => {}
    }
}

/// Checks a path on the host, also one of a persistent volume.
pub(crate) fn host_path(source: At, errors: &mut Errors) {
    let path = source.field("path");
    if required_text(path, errors) {
        no_steps_back(path, errors);
    }
    absent_or_one_of(source.field("type"), &HOST_PATH_TYPES, errors);
}

fn files(source: At, errors: &mut Errors) {
    mode(source.field("defaultMode"), errors);
    items(source, errors);
}

fn items(source: At, errors: &mut Errors) {
    for item in source.field("items").items() {
        required_text(item.field("key"), errors);
        if required_text(item.field("path"), errors) {
            file_name(item.field("path"), errors);
        }
        mode(item.field("mode"), errors);
    }
}

fn downward_files(source: At, errors: &mut Errors) {
    for item in source.field("items").items() {
        if required_text(item.field("path"), errors) {
            file_name(item.field("path"), errors);
        }
        let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
        if field.is_set() {
            required_text(field.field("fieldPath"), errors);
            if resource.is_set() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(item.invalid(detail));
            }
        } else if resource.is_set() {
            required_text(resource.field("containerName"), errors);
            required_text(resource.field("resource"), errors);
        } else {
            errors.push(item.required("one of fieldRef and resourceFieldRef is required"));
        }
        mode(item.field("mode"), errors);
    }
}

fn projected(projected: At, errors: &mut Errors) {
    mode(projected.field("defaultMode"), errors);
    for source in projected.field("sources").items() {
        for kind in ["secret", "configMap"] {
            let at = source.field(kind);
            if at.is_set() {
                required_text(at.field("name"), errors);
                items(at, errors);
            }
        }
        downward_files(source.field("downwardAPI"), errors);
        let token = source.field("serviceAccountToken");
        if token.is_set() {
            let seconds = token.field("expirationSeconds");
            if seconds.int().is_some_and(|it| it < 600) {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
            if seconds.int().is_some_and(|it| it > 1 << 32) {
                errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
            }
            required_text(token.field("path"), errors);
        }
    }
}

fn mode(at: At, errors: &mut Errors) {
    if at.int().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        errors.push(at.invalid(MODE_MESSAGE));
    }
}

/// A relative path that stays where it starts, and is not one of the names volumes use themselves.
fn file_name(path: At, errors: &mut Errors) {
    descending(path, errors);
    if path.text().starts_with("..") && !path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

/// A relative path that stays where it starts.
pub(super) fn descending(path: At, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_steps_back(path, errors);
}

fn no_steps_back(path: At, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}
