//! Validation of definitions (upstream: `apiextensions/validation`, `ValidateCustomResourceDefinition`).

use std::collections::{HashMap, HashSet};

use nave_machinery::{FieldError, FieldErrors, Value, conditions, names};
use nave_structural::rules::{self, Requirements};

use super::schema::OldSchemas;
use super::versions::Parts;
use super::{approval, columns, conversion, schema};
use crate::validate::{At, Errors, immutable};

/// Facts about the old definition that relax the rules for an update.
pub(super) struct Old<'o> {
    object: &'o Value,
    is_established: bool,
}

impl<'o> Old<'o> {
    pub(super) fn new(object: &'o Value) -> Self {
        Self { object, is_established: conditions::is_true(object, "Established") }
    }
}

/// The rules that depend on the old definition.
struct Options<'o> {
    requirements: Requirements,
    /// The schemas of the old versions. Their rules are exempt from the cost limit per rule.
    old_schemas: OldSchemas,
    requires_schema: bool,
    conversion: conversion::Options,
    /// The selectable fields of the old versions, by version name.
    old_selectable: HashMap<&'o str, &'o Value>,
    /// The selectable fields shared by all old versions.
    old_shared_selectable: Option<&'o Value>,
}

impl<'o> Options<'o> {
    fn of_create() -> Self {
        Self {
            requirements: Requirements::ALL,
            old_schemas: OldSchemas::default(),
            requires_schema: true,
            conversion: conversion::Options {
                requires_known_review_version: true,
                allows_invalid_bundle: true,
            },
            old_selectable: HashMap::new(),
            old_shared_selectable: None,
        }
    }

    fn of_update(old: &Old<'o>) -> Self {
        let versions = old.object.pointer("/spec/versions").and_then(Value::as_array);
        let has_schema = |version: &Value| {
            version.pointer("/schema/openAPIV3Schema").is_some_and(|schema| !schema.is_null())
        };
        let schemas = Parts::schemas(old.object);
        Self {
            requirements: Requirements::of_update(&schemas),
            old_schemas: OldSchemas::new(&schemas),
            requires_schema: versions.is_none_or(|versions| versions.iter().all(has_schema)),
            conversion: conversion::Options::of_update(old.object, old.is_established),
            old_selectable: versions.into_iter().flatten().filter_map(named_selectable).collect(),
            old_shared_selectable: Parts::shared(At::named("spec", old.object.get("spec")))
                .selectable
                .shared(),
        }
    }
}

pub(super) fn validate(root: At) -> FieldErrors {
    let mut errors = Errors::new();
    name(root, &mut errors);
    spec(root.field("spec"), Options::of_create(), &mut errors);
    status(root, &mut errors);
    approval::check(root, None, &mut errors);
    no_preserving(root.field("spec"), &mut errors);
    errors
}

pub(super) fn validate_update(root: At, old: &Old) -> FieldErrors {
    let mut errors = Errors::new();
    let old_root = At::root(old.object);
    let (new_spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    spec(new_spec, Options::of_update(old), &mut errors);
    let (names, old_names) = (new_spec.field("names"), old_spec.field("names"));
    if old.is_established {
        immutable(new_spec.field("scope"), old_spec.field("scope"), &mut errors);
        immutable(names.field("kind"), old_names.field("kind"), &mut errors);
    }
    immutable(new_spec.field("group"), old_spec.field("group"), &mut errors);
    immutable(names.field("plural"), old_names.field("plural"), &mut errors);
    status(root, &mut errors);
    approval::check(root, Some(old_root), &mut errors);
    if !old_spec.field("preserveUnknownFields").flag() {
        no_preserving(new_spec, &mut errors);
    }
    errors
}

/// Checks that the name is `<plural>.<group>`.
fn name(root: At, errors: &mut Errors) {
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    let names = spec.field("names");
    let required = format!("{}.{}", names.field("plural").text(), spec.field("group").text());
    for field in ["generateName", "name"] {
        let name = metadata.field(field);
        if !name.text().is_empty() && name.text() != required {
            errors.push(name.invalid(r#"must be spec.names.plural+"."+spec.group"#));
        }
    }
}

fn no_preserving(spec: At, errors: &mut Errors) {
    let preserve = spec.field("preserveUnknownFields");
    if preserve.flag() {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(preserve.invalid(why));
    }
}

fn spec(spec: At, mut options: Options, errors: &mut Errors) {
    group(spec.field("group"), errors);
    match spec.field("scope") {
        scope if scope.text().is_empty() => errors.push(scope.required("")),
        scope if !matches!(scope.text(), "Cluster" | "Namespaced") => {
            errors.push(scope.not_supported(&["Cluster", "Namespaced"]));
        }
        _ => {}
    }
    let shared = Parts::shared(spec);
    let preserves = spec.field("preserveUnknownFields");
    schemas_required(spec, &shared, options.requires_schema, errors);
    let versions = spec.field("versions");
    let schemas: Vec<&Value> = versions
        .items()
        .filter_map(|version| version.field("schema").field("openAPIV3Schema").value())
        .collect();
    let has = |holds: fn(&Value) -> bool| schemas.iter().any(|schema| holds(schema));
    let has_defaults = has(rules::has_defaults);
    if has_defaults && preserves.flag() {
        errors.push(preserves.invalid("must be false in order to use defaults in the schema"));
    }
    options.requirements.structural |= !preserves.flag() || has_defaults || has(rules::has_extensions);

    for version in versions.items() {
        version_parts(version, &shared, &options, errors);
    }
    version_list(spec, errors);
    names_given(spec.field("names"), errors);
    super::names::check(spec.field("names"), errors);
    shared_parts(spec, &shared, &options, errors);
    conversion::check(spec, options.conversion, errors);
}

fn group(group: At, errors: &mut Errors) {
    let wrong = names::is_dns1123_subdomain(group.text());
    if group.text().is_empty() {
        errors.push(group.required(""));
    } else if !wrong.is_empty() {
        errors.push(group.invalid(wrong.join(",")));
    } else if !group.text().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
}

/// Checks that each version has a schema. An update of a definition without schemas requires a schema only for
/// versions that are served and pruned.
fn schemas_required(spec: At, shared: &Parts, requires_all: bool, errors: &mut Errors) {
    let has_shared = shared.schema.shared().is_some_and(|schema| schema.get("openAPIV3Schema").is_some());
    let preserves = spec.field("preserveUnknownFields").flag();
    if has_shared || (!requires_all && preserves) {
        return;
    }
    let reason = if requires_all { "" } else { "because otherwise all fields are pruned" };
    for version in spec.field("versions").items() {
        let own = version.field("schema");
        let schema = own.field("openAPIV3Schema");
        if !schema.is_set() && (requires_all || version.field("served").flag()) {
            errors.push(schema.required(reason));
        }
    }
}

/// Checks the name of a version and its unshared parts.
fn version_parts(version: At, shared: &Parts, options: &Options, errors: &mut Errors) {
    let name = version.field("name");
    label(name, errors);
    columns::deprecation(version, errors);
    let has_status = version.field("subresources").field("status").is_set();
    if shared.schema.differs() {
        schema::check(
            version.field("schema"),
            has_status,
            options.requirements,
            &options.old_schemas,
            errors,
        );
    }
    if shared.subresources.differs() {
        columns::subresources(version.field("subresources"), errors);
    }
    if shared.columns.differs() {
        columns::check(version.field("additionalPrinterColumns"), errors);
    }
    let selectable = version.field("selectableFields");
    if shared.selectable.differs() && selectable.len() > 0 {
        let own = if shared.schema.differs() { version.field("schema").value() } else { None };
        let Some(own) = own.and_then(|schema| schema.get("openAPIV3Schema")) else {
            let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
            errors.push(FieldError::invalid(&selectable.path(), "", why));
            return;
        };
        let old = options.old_selectable.get(name.text()).copied();
        columns::selectable(selectable, own, old, errors);
    }
}

/// Checks the parts shared by all versions.
fn shared_parts(spec: At, shared: &Parts, options: &Options, errors: &mut Errors) {
    let has_status =
        spec.field("versions").items().any(|version| version.field("subresources").field("status").is_set());
    let schema = At::named("spec.validation", shared.schema.shared());
    self::schema::check(schema, has_status, options.requirements, &options.old_schemas, errors);
    columns::subresources(At::named("spec.subresources", shared.subresources.shared()), errors);
    columns::check(At::named("spec.additionalPrinterColumns", shared.columns.shared()), errors);
    let selectable = At::named("spec.selectableFields", shared.selectable.shared());
    if selectable.len() == 0 {
        return;
    }
    let Some(own) = schema.field("openAPIV3Schema").value() else {
        let why = "may only be set when validations.schema is included";
        errors.push(FieldError::invalid(&selectable.path(), "", why));
        return;
    };
    columns::selectable(selectable, own, options.old_shared_selectable, errors);
}

fn named_selectable(version: &Value) -> Option<(&str, &Value)> {
    Some((version.get("name")?.as_str()?, super::versions::present(version, "selectableFields")?))
}

/// Checks that version names are unique and that exactly one version is the storage version.
fn version_list(spec: At, errors: &mut Errors) {
    let versions = spec.field("versions");
    let mut seen = HashSet::new();
    let mut is_unique = true;
    let mut stored = 0;
    for version in versions.items() {
        is_unique &= seen.insert(version.field("name").text());
        stored += usize::from(version.field("storage").flag());
    }
    if !is_unique {
        errors.push(versions.invalid("must contain unique version names"));
    }
    if stored != 1 {
        errors.push(versions.invalid("must have exactly one version marked as storage version"));
    }
    // The first version sets upstream's `spec.version`.
    let first = versions.index(0);
    let name = At::named("spec.version", first.field("name").value());
    if !name.text().is_empty() {
        label(name, errors);
    }
}

fn label(at: At, errors: &mut Errors) {
    let wrong = names::is_dns1035_label(at.text());
    if !wrong.is_empty() {
        errors.push(at.invalid_text(wrong.join(",")));
    }
}

/// Checks the names that are required in the spec but not in the status.
fn names_given(names: At, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = names.field(field);
        if name.text().is_empty() {
            errors.push(name.required(""));
        }
    }
}

fn status(root: At, errors: &mut Errors) {
    let (spec, status) = (root.field("spec"), root.field("status"));
    super::names::check(status.field("acceptedNames"), errors);
    let (stored, versions) = (status.field("storedVersions"), spec.field("versions"));
    if stored.len() == 0 {
        errors.push(stored.with(None).invalid("must have at least one stored version"));
        return;
    }
    let known: HashSet<&str> = stored.value().into_iter().flat_map(texts).collect();
    let mut served = HashSet::new();
    for version in versions.items() {
        let name = version.field("name").text();
        served.insert(name);
        if version.field("storage").flag() && !known.contains(name) && errors.len() < MAX_ERRORS {
            errors.push(stored.invalid(format!("must have the storage version {name}")));
        }
    }
    for version in stored.items() {
        let name = version.text();
        if !served.contains(name) && errors.len() < MAX_ERRORS {
            errors.push(version.invalid(format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            )));
        }
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Maximum number of errors about stored versions. A response shows 100 errors.
const MAX_ERRORS: usize = 500;

#[cfg(test)]
mod tests;
