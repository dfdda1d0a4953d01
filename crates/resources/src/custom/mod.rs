//! Converts a CustomResourceDefinition to the resource that it defines.
//!
//! | file | content |
//! | --- | --- |
//! | `mod` | the [`ResourceDef`] of a definition |
//! | [`names`] | the accepted names of a group, and the conditions that report them |
//! | [`schema`] | the structure of a version's objects |
//! | `text` | the JSON of a definition, which its schemas are compiled from |
//! | `columns` | the columns of tables |
//! | `deletion` | the deletion of a definition |
//! | [`versions`] | the order of versions |

mod columns;
pub(crate) mod deletion;
pub mod names;
pub mod schema;
mod text;
pub mod versions;

use std::sync::Arc;

use nave_machinery::packed::Packed;
use nave_machinery::{FieldPath, GroupVersion, GroupVersionKind, Value, meta, names as names_of};

pub use self::schema::CustomSchema;
pub use self::text::DefinitionText;
use crate::convert::{self, ConversionError};
use crate::def::{
    Conversion, ConversionWebhook, Generation, KeptMetadata, NameRule, ResourceDef, ResourceVersion, Rules,
    Schema, SelectableField, Storage, Subresource, SubresourceKind, Verb,
};
use crate::read;
use crate::scale::ScalePaths;
use crate::strategy::Strategy;

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The verbs of a custom resource, in the order of upstream's discovery documents.
const VERBS: &[Verb] = &[
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Create,
    Verb::Update,
    Verb::Watch,
];

/// The reason why a resource cannot be built from a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// A name is missing from `status.acceptedNames`.
    #[error("status.acceptedNames.{0} is empty")]
    Name(&'static str),
    /// A name cannot be part of a storage key.
    #[error("{0:?} cannot be part of a storage key")]
    Key(String),
    /// No version is the storage version.
    #[error("no version is stored")]
    Storage,
    /// A version's schema cannot be used.
    #[error("version {version}: {why}")]
    Schema {
        /// The version.
        version: String,
        /// The reason.
        why: String,
    },
}

/// Builds the resource of a CustomResourceDefinition from its accepted names.
///
/// # Errors
/// The definition lacks a name or a storage version, or a schema is invalid. Validation rejects such definitions.
pub fn resource(definition: &Value) -> Result<ResourceDef, DefinitionError> {
    let json = Packed::new(definition.to_string().as_bytes());
    resource_with_text(definition, &DefinitionText::new(Arc::new(json)))
}

/// As [`resource`], with the text of a definition that has the same `spec`.
///
/// # Errors
/// As [`resource`].
pub fn resource_with_text(
    definition: &Value,
    text: &Arc<DefinitionText>,
) -> Result<ResourceDef, DefinitionError> {
    let group = read::text(definition, "spec.group");
    let name = |field: &'static str| match read::text(definition, &format!("status.acceptedNames.{field}")) {
        "" => Err(DefinitionError::Name(field)),
        text => Ok(text.to_owned()),
    };
    let (plural, kind) = (name("plural")?, name("kind")?);
    // Group and plural are parts of the storage key. Keys of built-in resources have no dot in the segment of the
    // group, or their prefixes are reserved.
    if !names_key(group) || !group.contains('.') {
        return Err(DefinitionError::Key(group.to_owned()));
    }
    if !names_key(&plural) {
        return Err(DefinitionError::Key(plural));
    }
    let accepted = |field: &str| texts(definition, &format!("status.acceptedNames.{field}"));
    let mut specs: Vec<&Value> = read::list(definition, "spec.versions").iter().collect();
    specs.sort_by(|one, other| versions::compare(read::text(one, "name"), read::text(other, "name")));
    let stored = specs.iter().find(|spec| read::flag(spec, "storage")).ok_or(DefinitionError::Storage)?;
    let served: Vec<&Value> = specs.iter().filter(|spec| read::flag(spec, "served")).copied().collect();
    let fields = fields(&served);
    let conversion = conversion(definition);
    let preserves = read::flag(definition, "spec.preserveUnknownFields");
    let package: Vec<&str> = group.rsplit('.').collect();
    let version = |spec: &&Value| -> Result<ResourceVersion, DefinitionError> {
        let name = read::text(spec, "name").to_owned();
        let unusable = |why: String| DefinitionError::Schema { version: name.clone(), why };
        let subresources = subresources(spec, &kind);
        let scale = subresources.iter().find_map(|sub| match &sub.kind {
            SubresourceKind::Scale(paths) => Some(paths.clone()),
            _ => None,
        });
        let schema = read::value_at(spec, "schema.openAPIV3Schema");
        let schema = CustomSchema::compile(schema, text, &name, preserves, scale).map_err(unusable)?;
        Ok(ResourceVersion {
            type_name: format!("{}.{name}.{kind}", package.join(".")),
            schema: Schema::Custom(Arc::new(schema)),
            deprecation: read::flag(spec, "deprecated").then(|| deprecation(group, &kind, spec, &served)),
            subresources: subresources.into(),
            columns: columns::of(spec).into(),
            selectable: selectable(spec).map(|path| path.join(".")).collect(),
            name,
        })
    };
    Ok(ResourceDef {
        group: group.to_owned(),
        singular: name("singular")?,
        list_kind: name("listKind")?,
        short_names: accepted("shortNames"),
        categories: accepted("categories"),
        namespaced: read::text(definition, "spec.scope") == "Namespaced",
        versions: without_spare(served.iter().map(version).collect::<Result<_, _>>()?),
        unserved: without_spare(
            specs.iter().filter(|spec| !read::flag(spec, "served")).map(version).collect::<Result<_, _>>()?,
        ),
        strategy: Arc::new(CustomStrategy { converts: conversion == Conversion::Strategy }),
        conversion,
        verbs: VERBS,
        fields,
        storage: Some(Storage {
            prefix: storage_prefix(group, &plural),
            version: GroupVersion::new(group, read::text(stored, "name")),
            type_id: None,
            ttl: None,
        }),
        name_rule: NameRule::Subdomain,
        rules: Rules {
            kept_metadata: KeptMetadata::ALL,
            generation: Generation::AllButMetadata,
            unconditional_update: false,
            refuses_creates: read::condition_is_true(definition, "Terminating"),
            ..Rules::default()
        },
        resource: plural,
        kind,
    })
}

/// Returns the versions without spare capacity, since thousands of resources have one version each.
fn without_spare(mut versions: Vec<ResourceVersion>) -> Vec<ResourceVersion> {
    versions.shrink_to_fit();
    versions
}

fn conversion(definition: &Value) -> Conversion {
    if read::text(definition, "spec.conversion.strategy") != "Webhook" {
        return Conversion::Strategy;
    }
    Conversion::Webhook(ConversionWebhook {
        client_config: read::value_at(definition, "spec.conversion.webhook.clientConfig")
            .cloned()
            .unwrap_or_default(),
        review_versions: texts(definition, "spec.conversion.webhook.conversionReviewVersions"),
    })
}

/// Returns the prefix of the storage keys of a custom resource, as upstream.
pub fn storage_prefix(group: &str, plural: &str) -> String {
    format!("/registry/{group}/{plural}")
}

/// Returns whether a name can be part of a storage key.
fn names_key(name: &str) -> bool {
    names_of::is_dns1123_subdomain(name).is_empty()
}

fn texts(object: &Value, path: &str) -> Vec<String> {
    read::list(object, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The warning to clients of a deprecated version (upstream: `defaultDeprecationWarning`).
fn deprecation(group: &str, kind: &str, spec: &Value, served: &[&Value]) -> String {
    let own = read::text(spec, "deprecationWarning");
    if !own.is_empty() {
        return own.to_owned();
    }
    let name = read::text(spec, "name");
    let newer = served.iter().map(|other| (read::text(other, "name"), read::flag(other, "deprecated")));
    // The versions are sorted by preference.
    let newer = newer.take_while(|(other, _)| *other != name).find(|(_, deprecated)| !deprecated);
    let use_instead = newer.map(|(newer, _)| format!("; use {group}/{newer} {kind}"));
    format!("{group}/{name} {kind} is deprecated{}", use_instead.unwrap_or_default())
}

/// Returns the paths in `spec.versions[*].selectableFields`.
fn selectable(spec: &Value) -> impl Iterator<Item = Vec<String>> {
    read::list(spec, "selectableFields").iter().map(|field| path(read::text(field, "jsonPath")))
}

/// Returns the selectable fields of all versions.
fn fields(served: &[&Value]) -> Vec<SelectableField> {
    let mut fields: Vec<SelectableField> = Vec::new();
    for at in served.iter().flat_map(|spec| selectable(spec)) {
        let path = at.join(".");
        if !fields.iter().any(|field| field.path == path) {
            fields.push(SelectableField { path, indexed: true, at: vec![at], missing: "" });
        }
    }
    fields
}

/// Splits a simple path: `.spec.replicas` becomes `spec`, `replicas`.
fn path(text: &str) -> Vec<String> {
    text.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

fn subresources(spec: &Value, kind: &str) -> Vec<Subresource> {
    let declared = |name: &str| spec.get("subresources")?.get(name).filter(|value| value.is_object());
    let mut subresources = Vec::new();
    let mut add = |name: &str, kind, response| {
        let name = name.to_owned();
        subresources.push(Subresource { name, kind, response, type_id: None, verbs: Verb::VIEW });
    };
    if declared("status").is_some() {
        add("status", SubresourceKind::Status, GroupVersionKind::new("", "", kind));
    }
    if let Some(scale) = declared("scale") {
        let paths = ScalePaths {
            spec_replicas: path(read::text(scale, "specReplicasPath")),
            status_replicas: path(read::text(scale, "statusReplicasPath")),
            selector: Some(read::text(scale, "labelSelectorPath")).filter(|text| !text.is_empty()).map(path),
        };
        let response = GroupVersionKind::new("autoscaling", "v1", "Scale");
        add("scale", SubresourceKind::Scale(paths), response);
    }
    subresources
}

/// The strategy of custom resources, apart from their schemas.
#[derive(Clone, Copy, Debug)]
struct CustomStrategy {
    /// True if the versions differ only in name; false if the caller must convert with the webhook.
    converts: bool,
}

impl Strategy for CustomStrategy {
    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        if self.converts || from == to {
            return convert::relabel(object, from, to);
        }
        Err(ConversionError::Invalid(format!("converting {from} to {to} needs the conversion webhook")))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(meta::finalizers).unwrap_or_default();
        let at = FieldPath::new("metadata").child("finalizers");
        let is_standard = |name: &str| matches!(name, "orphan" | "foregroundDeletion");
        meta::finalizers(object)
            .into_iter()
            .filter(|name| !name.contains('/') && !is_standard(name) && !known.contains(name))
            .map(|name| {
                let path = if name.contains('.') { " including a path (/)" } else { "" };
                format!(
                    "{at}: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
