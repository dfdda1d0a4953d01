//! Validation of the volumes of pods.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, names};

use super::containers::pull_policy;
use super::environment::{field_reference, resource_reference};
use crate::groups::core::volume_sources::{self, Source};
use crate::signer::{is_kubernetes_signer, signer_name, trust_bundle_name};
use crate::validate::{
    At, Errors, driver_name, label_selector, one_of, quantity, required_checked, required_text,
};

/// The maximum mode of a file.
const MODE_MAX: i64 = 0o777;
const MODE_MESSAGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const CONFLICT: &str = "conflicting duplicate paths";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const KEY_TYPES: [&str; 6] = ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
const CERTIFICATE_SECONDS_MIN: i64 = 3600;
/// The maximum lifetime of a pod certificate: 91 days, or one day for Kubernetes signers.
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 86_400;
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 86_400;
/// The pod fields that downward API files support.
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The sources of a projected volume.
const PROJECTED: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

const FIRST: [Source; 1] = [Source::new("emptyDir", |empty, errors| {
    let limit = empty.field("sizeLimit");
    if quantity(limit).is_some_and(Quantity::is_negative) {
        errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
    }
})];

const LAST: [Source; 8] = [
    Source::new("secret", |secret, errors| {
        required_text(secret.field("secretName"), errors);
        mode(secret.field("defaultMode"), errors);
        secret.field("items").items().for_each(|item| key_to_path(item, errors));
    }),
    Source::new("persistentVolumeClaim", |claim, errors| {
        required_text(claim.field("claimName"), errors);
    }),
    Source::new("downwardAPI", |source, errors| {
        mode(source.field("defaultMode"), errors);
        // Upstream reports the volume instead of its item.
        source.field("items").items().for_each(|item| downward_file(item, source, errors));
    }),
    Source::new("configMap", |map, errors| {
        required_text(map.field("name"), errors);
        mode(map.field("defaultMode"), errors);
        map.field("items").items().for_each(|item| key_to_path(item, errors));
    }),
    Source::new("projected", projected),
    Source::new("csi", csi),
    Source::new("ephemeral", |ephemeral, errors| {
        let template = ephemeral.field("volumeClaimTemplate");
        if template.is_set() {
            crate::groups::core::claim_template(template, errors);
        } else {
            errors.push(template.required(""));
        }
    }),
    Source::new("image", |image, errors| pull_policy(image.field("pullPolicy"), errors)),
];

/// The valid volumes of a pod spec by name, with true for claims.
pub(super) struct Volumes<'v>(BTreeMap<&'v str, bool>);

impl Volumes<'_> {
    /// Returns whether a volume has this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns whether the volume uses a claim, including the future claim of an ephemeral volume.
    pub(super) fn is_claim(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or_default()
    }
}

/// Checks the volumes of a pod spec. `pod_name` is `None` for a template.
pub(super) fn all<'v>(spec: At<'_, 'v>, pod_name: Option<&str>, errors: &mut Errors) -> Volumes<'v> {
    let mut valid = Volumes(BTreeMap::new());
    let list = spec.field("volumes");
    let pod_name = pod_name.unwrap_or_default();
    let made: HashSet<String> = list
        .items()
        .filter(|volume| volume.field("ephemeral").is_set() && !pod_name.is_empty())
        .map(|volume| format!("{pod_name}-{}", volume.field("name").text()))
        .collect();
    for volume in list.items().map(At::with_field_filter) {
        let before = errors.len();
        one(volume, pod_name, errors);
        let name = volume.field("name");
        required_checked(name, names::is_dns1123_label, errors);
        if valid.contains(name.text()) {
            errors.push(name.duplicate());
        }
        let (claim, ephemeral) = (volume.field("persistentVolumeClaim"), volume.field("ephemeral"));
        if errors.len() == before {
            valid.0.insert(name.text(), claim.is_set() || ephemeral.is_set());
        }
        let claim_name = claim.field("claimName");
        if made.contains(claim_name.text()) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(claim_name.invalid(why));
        }
    }
    valid
}

fn one(volume: At, pod_name: &str, errors: &mut Errors) {
    let kinds = FIRST.iter().chain(&volume_sources::COMMON).chain(&LAST).chain(&volume_sources::IN_POD);
    volume_sources::one_of_kinds(volume, kinds, errors);
    let name = volume.field("name");
    if volume_sources::is_portal_too_long(volume.field("iscsi"), name.text()) {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(name.invalid_text(why));
    }
    if volume.field("ephemeral").is_set() && !pod_name.is_empty() && !name.text().is_empty() {
        let claim = format!("{pod_name}-{}", name.text());
        for why in names::is_dns1123_subdomain(&claim) {
            errors.push(name.invalid(format!("PVC name {claim:?}: {why}")));
        }
    }
}

fn csi(csi: At, errors: &mut Errors) {
    driver_name(csi.field("driver"), errors);
    let secret = csi.field("nodePublishSecretRef");
    if secret.is_set() {
        let name = secret.field("name");
        if required_text(name, errors) {
            // Upstream reports the source instead of the reference.
            let path = csi.path().child("name");
            let found = names::is_dns1123_subdomain(name.text());
            errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, name.text(), why)));
        }
    }
}

fn key_to_path(item: At, errors: &mut Errors) {
    required_text(item.field("key"), errors);
    required_text(item.field("path"), errors);
    file_name(item.field("path"), errors);
    mode(item.field("mode"), errors);
}

/// Checks a downward API file. Errors have the path of `shown`.
fn downward_file(file: At, shown: At, errors: &mut Errors) {
    let at = shown.with(file.value());
    required_text(at.field("path"), errors);
    file_name(at.field("path"), errors);
    let (field, resource) = (at.field("fieldRef"), at.field("resourceFieldRef"));
    if field.is_set() {
        field_reference(field, &FILE_FIELDS, errors);
        if resource.is_set() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(&shown.path(), "resource", why));
        }
    } else if resource.is_set() {
        resource_reference(resource, true, errors);
    } else {
        errors.push(shown.required("one of fieldRef and resourceFieldRef is required"));
    }
    mode(at.field("mode"), errors);
}

fn projected(projected: At, errors: &mut Errors) {
    mode(projected.field("defaultMode"), errors);
    let mut paths = Paths { volume: projected, seen: BTreeSet::new() };
    for source in projected.field("sources").items() {
        let mut given = 0;
        for field in PROJECTED {
            let at = source.field(field);
            if !at.is_set() {
                continue;
            }
            given += 1;
            match field {
                "secret" | "configMap" => keys(at, &mut paths, errors),
                "downwardAPI" => {
                    for item in at.field("items").items() {
                        downward_file(item, at, errors);
                        paths.add(item.field("path").text(), errors);
                    }
                }
                "serviceAccountToken" => token(projected, at, errors),
                "clusterTrustBundle" => trust_bundle(at, &mut paths, errors),
                _ => certificate(at, &mut paths, errors),
            }
        }
        if given > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

/// The file paths in a projected volume. Each path must be unique.
struct Paths<'p, 'v> {
    volume: At<'p, 'v>,
    seen: BTreeSet<&'v str>,
}

impl<'v> Paths<'_, 'v> {
    fn add(&mut self, path: &'v str, errors: &mut Errors) {
        if !path.is_empty() && !self.seen.insert(path) {
            errors.push(FieldError::invalid(&self.volume.path(), path, CONFLICT));
        }
    }
}

fn keys<'v>(source: At<'_, 'v>, paths: &mut Paths<'_, 'v>, errors: &mut Errors) {
    required_text(source.field("name"), errors);
    for item in source.field("items").items() {
        key_to_path(item, errors);
        paths.add(item.field("path").text(), errors);
    }
}

fn token(projected: At, token: At, errors: &mut Errors) {
    let seconds = token.field("expirationSeconds");
    if seconds.int().is_some_and(|it| it < TOKEN_SECONDS_MIN) {
        errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds.int().is_some_and(|it| it > TOKEN_SECONDS_MAX) {
        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    // Upstream reports the volume instead of its source.
    let path = projected.field("path").with(token.field("path").value());
    if required_text(path, errors) {
        file_name(path, errors);
    }
}

fn trust_bundle<'v>(bundle: At<'_, 'v>, paths: &mut Paths<'_, 'v>, errors: &mut Errors) {
    let (name, signer, selector) =
        (bundle.field("name"), bundle.field("signerName"), bundle.field("labelSelector"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => errors.push(bundle.invalid("only one of name and signerName may be used")),
        (true, false) => {
            if name.text().is_empty() {
                errors.push(name.required("must be a valid object name"));
            }
            for why in trust_bundle_name(name.text()) {
                errors.push(name.invalid(format!("not a valid clustertrustbundlename: {why}")));
            }
            if selector.is_set() {
                errors.push(selector.invalid("labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                errors.push(signer.required("must be a valid signer name"));
            }
            signer_name(signer, errors);
            label_selector(selector, errors);
        }
        (false, false) => errors.push(bundle.required("either name or signerName must be specified")),
    }
    required_text(bundle.field("path"), errors);
    file_name(bundle.field("path"), errors);
    paths.add(bundle.field("path").text(), errors);
}

fn certificate<'v>(certificate: At<'_, 'v>, paths: &mut Paths<'_, 'v>, errors: &mut Errors) {
    let signer = certificate.field("signerName");
    signer_name(signer, errors);
    let annotations = certificate.field("userAnnotations");
    for (key, _) in annotations.entries() {
        let found = names::is_qualified_name(&key.to_lowercase());
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&annotations.path(), key, why)));
        if !key.contains('/') {
            errors.push(FieldError::invalid(&annotations.path(), key, "must be a domain-prefixed key"));
        }
    }
    one_of(certificate.field("keyType"), &KEY_TYPES, errors);
    let life = certificate.field("maxExpirationSeconds");
    let is_own = is_kubernetes_signer(signer.text());
    let most = if is_own { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
    if life.int().is_some_and(|seconds| seconds < CERTIFICATE_SECONDS_MIN) {
        let why = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
        errors.push(life.invalid(why));
    }
    if life.int().is_some_and(|seconds| seconds > most) {
        errors.push(life.invalid(format!("if provided, maxExpirationSeconds must be <= {most}")));
    }
    let files =
        ["credentialBundlePath", "keyPath", "certificateChainPath"].map(|field| certificate.field(field));
    if files.iter().all(|file| file.text().is_empty()) {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(certificate.required(why));
    }
    for file in files {
        file_name(file, errors);
        paths.add(file.text(), errors);
    }
}

fn mode(at: At, errors: &mut Errors) {
    if at.int().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        errors.push(at.invalid(MODE_MESSAGE));
    }
}

/// Checks a relative path without `..` whose first segment does not begin with `..`.
fn file_name(path: At, errors: &mut Errors) {
    descending(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

/// Checks a relative path without `..`.
pub(crate) fn descending(path: At, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    absolute_or_relative(path, errors);
}

/// Checks a path without `..`.
pub(crate) fn absolute_or_relative(path: At, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(volumes: Value) -> Vec<String> {
        let spec = json!({"volumes": volumes});
        let mut errors = Errors::new();
        all(At::named("spec", Some(&spec)), Some("p"), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn volume_has_name_and_one_source() {
        for (volumes, expected) in [
            (json!([{"name": "v", "emptyDir": {}}]), &[][..]),
            (json!([{"name": "v"}]), &["spec.volumes[0]"]),
            (json!([{"name": "A", "emptyDir": {}}]), &["spec.volumes[0].name"]),
            (
                json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
                &["spec.volumes[1].name"],
            ),
            (
                json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
                &["spec.volumes[0].hostPath"],
            ),
            (
                json!([{"name": "e", "ephemeral": {}}, {"name": "c", "persistentVolumeClaim": {"claimName": "p-e"}}]),
                &[
                    "spec.volumes[0].ephemeral.volumeClaimTemplate",
                    "spec.volumes[1].persistentVolumeClaim.claimName",
                ],
            ),
        ] {
            assert_eq!(fields(volumes.clone()), expected, "{volumes}");
        }
    }

    #[test]
    fn projected_files_are_unique() {
        let sources = |sources: Value| fields(json!([{"name": "v", "projected": {"sources": sources}}]));
        let key = |name: &str, path: &str| json!({"name": name, "items": [{"key": "k", "path": path}]});
        for (given, expected) in [
            (json!([{"secret": key("a", "f")}, {"configMap": key("b", "g")}]), &[][..]),
            (
                json!([{"secret": key("a", "f")}, {"configMap": key("b", "f")}]),
                &["spec.volumes[0].projected"],
            ),
            (
                json!([{"secret": key("a", "../f")}]),
                &["spec.volumes[0].projected.sources[0].secret.items[0].path"],
            ),
            (
                json!([{"secret": key("a", "f"), "configMap": key("b", "g")}]),
                &["spec.volumes[0].projected.sources[0]"],
            ),
            (
                json!([{"serviceAccountToken": {"path": "", "expirationSeconds": 1}}]),
                &[
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds",
                    "spec.volumes[0].projected.path",
                ],
            ),
            (
                json!([{"clusterTrustBundle": {"path": "a"}}]),
                &["spec.volumes[0].projected.sources[0].clusterTrustBundle"],
            ),
            (
                json!([{"podCertificate": {"signerName": "example.com/a", "keyType": "RSA"}}]),
                &[
                    "spec.volumes[0].projected.sources[0].podCertificate.keyType",
                    "spec.volumes[0].projected.sources[0].podCertificate",
                ],
            ),
        ] {
            assert_eq!(sources(given.clone()), expected, "{given}");
        }
    }

    #[test]
    fn downward_api_file_has_one_field() {
        let item = |item: Value| fields(json!([{"name": "v", "downwardAPI": {"items": [item]}}]));
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.name"});
        assert_eq!(item(json!({"path": "f", "fieldRef": field})), [""; 0]);
        assert_eq!(item(json!({"path": "f"})), ["spec.volumes[0].downwardAPI"]);
        assert_eq!(
            item(json!({"path": "f", "fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}})),
            ["spec.volumes[0].downwardAPI.fieldRef.fieldPath"]
        );
        assert_eq!(
            item(json!({"path": "/f", "resourceFieldRef": {"resource": "limits.cpu"}})),
            [
                "spec.volumes[0].downwardAPI.path",
                "spec.volumes[0].downwardAPI.resourceFieldRef.containerName"
            ]
        );
    }
}
