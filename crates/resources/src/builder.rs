//! Builders that declare resources. Each method overrides a default.

use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupVersion, GroupVersionKind};
use nave_schema::SchemaSet;

use crate::def::{
    Conversion, Generation, KeptMetadata, NameRule, ResourceDef, ResourceVersion, Rules, Schema,
    SelectableField, Storage, Subresource, SubresourceKind, Verb,
};
use crate::optional;
use crate::registry::Group;
use crate::scale::ScalePaths;
use crate::strategy::{Plain, Strategy};
use crate::table::{Column, age, name};

/// A group under construction.
pub(crate) struct GroupBuilder {
    name: &'static str,
    package: &'static str,
    versions: &'static [&'static str],
    resources: Vec<Builder>,
}

/// A group whose types' OpenAPI names start with `package`.
pub(crate) fn group(name: &'static str, package: &'static str, resources: Vec<Builder>) -> GroupBuilder {
    GroupBuilder { name, package, versions: &["v1"], resources }
}

impl GroupBuilder {
    /// Sets the served versions, in order of preference; the default is `v1`.
    pub(crate) fn versions(self, versions: &'static [&'static str]) -> Self {
        Self { versions, ..self }
    }

    /// Builds the group with its types looked up in `schemas`.
    pub(crate) fn build(self, schemas: &SchemaSet) -> Group {
        let Self { name, package, versions, resources } = self;
        let mut served = versions.to_vec();
        for version in resources.iter().flat_map(|resource| resource.optional) {
            if !served.contains(version) {
                served.push(version);
            }
        }
        let resources =
            resources.into_iter().map(|it| Arc::new(it.build(name, package, versions, schemas))).collect();
        Group { name: name.to_owned(), versions: served.iter().map(ToString::to_string).collect(), resources }
    }
}

/// A resource under construction.
pub(crate) struct Builder {
    kind: &'static str,
    resource: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [Verb],
    subresources: Vec<Subresource>,
    columns: Vec<Column>,
    fields: Vec<SelectableField>,
    name_rule: NameRule,
    rules: Rules,
    strategy: Arc<dyn Strategy>,
    prefix: Option<&'static str>,
    stored_as: Option<(&'static str, &'static str, &'static str)>,
    ttl: Option<Duration>,
    deprecation: Option<&'static str>,
    /// The versions that are served only if they are enabled.
    optional: &'static [&'static str],
    /// False if the resource has only such versions.
    is_stable: bool,
    stored: bool,
}

/// A stored, namespaced resource with all verbs.
pub(crate) fn resource(kind: &'static str, resource: &'static str) -> Builder {
    Builder {
        kind,
        resource,
        namespaced: true,
        short_names: &[],
        categories: &[],
        verbs: Verb::ALL,
        subresources: Vec::new(),
        columns: vec![name(), age()],
        fields: Vec::new(),
        name_rule: NameRule::Subdomain,
        rules: Rules::default(),
        strategy: Arc::new(Plain),
        prefix: None,
        stored_as: None,
        ttl: None,
        deprecation: None,
        optional: &[],
        is_stable: true,
        stored: true,
    }
}

/// A review: a create returns a response and stores nothing.
pub(crate) fn review(kind: &'static str, plural: &'static str) -> Builder {
    Builder { verbs: Verb::CREATE, stored: false, ..resource(kind, plural) }
}

impl Builder {
    /// Makes the resource cluster-scoped.
    pub(crate) fn cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// Sets the short names for command lines.
    pub(crate) fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    /// Sets the categories, such as `all`.
    pub(crate) fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    /// Sets the verbs.
    pub(crate) fn verbs(self, verbs: &'static [Verb]) -> Self {
        Self { verbs, ..self }
    }

    /// Makes the resource virtual: the server computes its responses and stores nothing.
    pub(crate) fn virtual_resource(self) -> Self {
        Self { stored: false, ..self }
    }

    /// Adds a `status` subresource.
    pub(crate) fn status(self) -> Self {
        let kind = self.kind;
        self.sub("status", SubresourceKind::Status, ("", "", kind), Verb::VIEW)
    }

    /// Adds a `scale` subresource.
    pub(crate) fn scale(self, paths: ScalePaths) -> Self {
        self.sub("scale", SubresourceKind::Scale(paths), ("autoscaling", "v1", "Scale"), Verb::VIEW)
    }

    /// Adds a subresource that reads the object and updates only the fields that the kind's strategy allows.
    pub(crate) fn restricted_update(self, name: &'static str, verbs: &'static [Verb]) -> Self {
        let kind = self.kind;
        self.sub(name, SubresourceKind::RestrictedUpdate, ("", "", kind), verbs)
    }

    /// Adds a subresource with its own kind.
    pub(crate) fn special(
        self,
        name: &'static str,
        (group, version, kind): (&'static str, &'static str, &'static str),
        verbs: &'static [Verb],
    ) -> Self {
        self.sub(name, SubresourceKind::Other, (group, version, kind), verbs)
    }

    fn sub(
        mut self,
        name: &str,
        kind: SubresourceKind,
        (group, version, response): (&str, &str, &str),
        verbs: &'static [Verb],
    ) -> Self {
        let response = GroupVersionKind::new(group, version, response);
        self.subresources.push(Subresource { name: name.to_owned(), kind, response, type_id: None, verbs });
        self.subresources.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// Sets the columns of its `Table`; the default is name and age.
    pub(crate) fn columns(self, columns: Vec<Column>) -> Self {
        Self { columns, ..self }
    }

    /// Adds a field selector for `path` that reads the value at the same path; the default value is empty.
    pub(crate) fn field(self, path: &'static str) -> Self {
        self.field_at(path, path, "")
    }

    /// Adds a field selector for `path` that reads the value at `at`; the default value is `missing`.
    pub(crate) fn field_at(mut self, path: &'static str, at: &str, missing: &'static str) -> Self {
        let at = vec![at.split('.').map(str::to_owned).collect()];
        self.fields.push(SelectableField { path: path.to_owned(), indexed: false, at, missing });
        self
    }

    /// Adds a field selector for `path` that reads the first of `places` with a value.
    pub(crate) fn field_first(mut self, path: &'static str, places: &[&str]) -> Self {
        let at = places.iter().map(|place| place.split('.').map(str::to_owned).collect()).collect();
        self.fields.push(SelectableField { path: path.to_owned(), indexed: false, at, missing: "" });
        self
    }

    /// Indexes the most recently declared field.
    pub(crate) fn indexed(mut self) -> Self {
        if let Some(field) = self.fields.last_mut() {
            field.indexed = true;
        }
        self
    }

    /// Sets the rule for names; the default is a DNS subdomain.
    pub(crate) fn named(self, name_rule: NameRule) -> Self {
        Self { name_rule, ..self }
    }

    /// Sets the fields (dotted paths) that increment `metadata.generation` when they change.
    pub(crate) fn generation(mut self, fields: &'static [&'static str]) -> Self {
        self.rules.generation = Generation::Of(fields);
        self
    }

    /// Sets the metadata fields that updates through subresources preserve; the default is [`KeptMetadata::NONE`].
    pub(crate) fn keeps_metadata(mut self, kept: KeptMetadata) -> Self {
        self.rules.kept_metadata = kept;
        self
    }

    /// Keeps the objects compressed in the watch cache.
    pub(crate) fn packed(mut self) -> Self {
        self.rules.packed = true;
        self
    }

    /// Lets a PUT create the object.
    pub(crate) fn create_on_update(mut self) -> Self {
        self.rules.create_on_update = true;
        self
    }

    /// Requires a resourceVersion in updates.
    pub(crate) fn conditional_update(mut self) -> Self {
        self.rules.unconditional_update = false;
        self
    }

    /// Makes a completed DELETE return the object.
    pub(crate) fn returns_deleted(mut self) -> Self {
        self.rules.returns_deleted = true;
        self
    }

    /// Keeps the garbage collector's finalizers off the objects, which have no dependents.
    pub(crate) fn without_dependents(mut self) -> Self {
        self.rules.without_dependents = true;
        self
    }

    /// Makes the first DELETE only mark the object, and reports a failed precondition of a DELETE for the resource
    /// instead of the kind.
    pub(crate) fn own_deletion(mut self) -> Self {
        self.rules.own_deletion = true;
        self
    }

    /// Lets a create set `status`.
    pub(crate) fn creates_with_status(mut self) -> Self {
        self.rules.creates_with_status = true;
        self
    }

    /// Makes a DELETE without propagation policy orphan the dependents.
    pub(crate) fn orphans_dependents(mut self) -> Self {
        self.rules.orphans_dependents = true;
        self
    }

    /// Sets the strategy of the kind.
    pub(crate) fn strategy(self, strategy: impl Strategy + 'static) -> Self {
        Self { strategy: Arc::new(strategy), ..self }
    }

    /// Sets the path below `/registry/`; the default is the resource's name.
    pub(crate) fn prefix(self, prefix: &'static str) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// Sets the group, version and OpenAPI package of the stored form; the default is the preferred version.
    pub(crate) fn stored_as(self, group: &'static str, version: &'static str, package: &'static str) -> Self {
        Self { stored_as: Some((group, version, package)), ..self }
    }

    /// Makes objects expire.
    pub(crate) fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Sets the deprecation warning for clients.
    pub(crate) fn deprecated(self, warning: &'static str) -> Self {
        Self { deprecation: Some(warning), ..self }
    }

    /// Adds versions that are served only if they are enabled, in order of preference.
    pub(crate) fn optional(self, versions: &'static [&'static str]) -> Self {
        Self { optional: versions, ..self }
    }

    /// Sets the versions of a resource without a stable one, in order of preference.
    pub(crate) fn only(self, versions: &'static [&'static str]) -> Self {
        Self { optional: versions, is_stable: false, ..self }
    }

    fn build(self, group: &str, package: &str, versions: &[&str], schemas: &SchemaSet) -> ResourceDef {
        let type_name = |package: &str, version: &str, kind: &str| format!("{package}.{version}.{kind}");
        let versions = if self.is_stable { versions } else { &[] };
        let preferred = versions.iter().chain(self.optional).next().copied().unwrap_or_default();
        let storage = self.stored.then(|| {
            let (group, version, package) = self.stored_as.unwrap_or((group, preferred, package));
            Storage {
                prefix: format!("/registry/{}", self.prefix.unwrap_or(self.resource)),
                version: GroupVersion::new(group, version),
                type_id: schemas
                    .find(&type_name(package, version, self.kind))
                    .or_else(|| schemas.find(&type_name(package, preferred, self.kind))),
                ttl: self.ttl,
            }
        });
        let mut subresources = self.subresources;
        for subresource in &mut subresources {
            let GroupVersionKind { group, version, kind } = &subresource.response;
            let (package, version) = match group.as_str() {
                "" => (package, if version.is_empty() { preferred } else { version }),
                "authentication.k8s.io" => ("io.k8s.api.authentication", version.as_str()),
                "autoscaling" => ("io.k8s.api.autoscaling", version.as_str()),
                _ => ("io.k8s.api.policy", version.as_str()),
            };
            subresource.type_id = schemas.find(&type_name(package, version, kind));
        }
        let subresources: Arc<[Subresource]> = subresources.into();
        let columns: Arc<[Column]> = self.columns.into();
        let selectable: Arc<[String]> = self.fields.iter().map(|field| field.path.clone()).collect();
        let served = versions.iter().chain(self.optional).map(|version| {
            let type_name = type_name(package, version, self.kind);
            let deprecation = self.deprecation.map(str::to_owned);
            ResourceVersion {
                name: (*version).to_owned(),
                schema: Schema::Builtin(schemas.find(&type_name)),
                type_name,
                deprecation: deprecation.or_else(|| optional::deprecation(group, version, self.kind)),
                subresources: Arc::clone(&subresources),
                columns: Arc::clone(&columns),
                selectable: Arc::clone(&selectable),
            }
        });
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        ResourceDef {
            group: group.to_owned(),
            resource: self.resource.to_owned(),
            singular: self.kind.to_lowercase(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            short_names: owned(self.short_names),
            categories: owned(self.categories),
            namespaced: self.namespaced,
            versions: served.collect(),
            unserved: Vec::new(),
            conversion: Conversion::Strategy,
            verbs: self.verbs,
            fields: self.fields,
            storage,
            name_rule: self.name_rule,
            rules: self.rules,
            strategy: self.strategy,
        }
    }
}
