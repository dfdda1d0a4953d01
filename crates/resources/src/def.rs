//! The definition of a resource: names, versions, verbs, columns, selectable fields, storage and strategy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, Map, Value, meta, names};
use nave_schema::TypeId;

use crate::custom::CustomSchema;
use crate::scale::ScalePaths;
use crate::strategy::Strategy;
use crate::table::Column;

/// A resource, built-in or custom, with everything that generic code needs to serve it.
#[derive(Clone)]
pub struct ResourceDef {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural name in paths: `deployments`.
    pub resource: String,
    /// The singular name: `deployment`.
    pub singular: String,
    /// The kind: `Deployment`.
    pub kind: String,
    /// The kind of its lists: `DeploymentList`.
    pub list_kind: String,
    /// Short names for command lines: `deploy`.
    pub short_names: Vec<String>,
    /// The categories, such as `all`.
    pub categories: Vec<String>,
    /// True if its objects are namespaced.
    pub namespaced: bool,
    /// The served versions, in discovery order.
    pub versions: Vec<ResourceVersion>,
    /// The versions that are not served, in which objects may still be stored and fields managed.
    pub unserved: Vec<ResourceVersion>,
    /// The conversion between versions.
    pub conversion: Conversion,
    /// The verbs of the resource itself, sorted.
    pub verbs: &'static [Verb],
    /// The selectable fields of all versions, without `metadata.name` and `metadata.namespace`. Watch caches store
    /// the values of these fields.
    pub fields: Vec<SelectableField>,
    /// The storage; `None` for a virtual resource, such as a review or a binding.
    pub storage: Option<Storage>,
    /// The rule for names.
    pub name_rule: NameRule,
    /// The settings for generic code.
    pub rules: Rules,
    /// The hooks of the kind.
    pub strategy: Arc<dyn Strategy>,
}

/// Groups that accept any qualified name as a finalizer.
const PLAIN_FINALIZERS: [&str; 5] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

impl ResourceDef {
    /// Returns the group and resource, for errors.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    /// Returns the group and kind, for validation errors. Upstream names the internal kind, whose group is that of the
    /// storage version: the core group for events.
    pub fn group_kind(&self) -> GroupKind {
        let group = self.storage.as_ref().map_or(&self.group, |storage| &storage.version.group);
        GroupKind { group: group.clone(), kind: self.kind.clone() }
    }

    /// Returns the group with one of its versions.
    pub fn group_version(&self, version: &str) -> GroupVersion {
        GroupVersion::new(self.group.clone(), version)
    }

    /// Returns whether finalizers must have a domain or be Kubernetes finalizers.
    pub fn requires_qualified_finalizers(&self) -> bool {
        !self.is_custom() && !PLAIN_FINALIZERS.contains(&self.group.as_ref())
    }

    /// Returns whether the resource is defined by a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.versions.iter().any(|version| matches!(version.schema, Schema::Custom(_)))
    }

    /// Returns the schema of stored objects if the only version is also the storage version and its defaults are not
    /// large. Objects of other custom resources are pruned and defaulted on read, by the schema of the requested version.
    pub fn stored_schema(&self) -> Option<&CustomSchema> {
        let ([only], []) = (&self.versions[..], &self.unserved[..]) else { return None };
        let is_stored = self.storage.as_ref().is_some_and(|storage| storage.version.version == only.name);
        only.custom().filter(|schema| is_stored && !schema.has_large_defaults())
    }

    /// Returns the schema of a custom resource in a version, which need not be served.
    pub fn schema(&self, version: &str) -> Option<&CustomSchema> {
        let unserved = || self.unserved.iter().find(|unserved| unserved.name == version);
        self.version(version).or_else(unserved)?.custom()
    }

    /// Returns the served version with this name.
    pub fn version(&self, name: &str) -> Option<&ResourceVersion> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// Returns the kind of the objects of a version or of one of its subresources; an empty name selects the objects
    /// themselves. Returns `None` if the version has no such subresource.
    pub fn kind_of(&self, version: &ResourceVersion, subresource: &str) -> Option<GroupVersionKind> {
        let own = |kind: &str| GroupVersionKind::new(&*self.group, &*version.name, kind);
        if subresource.is_empty() {
            return Some(own(&self.kind));
        }
        let response = &version.subresource(subresource)?.response;
        Some(if response.version.is_empty() { own(&response.kind) } else { response.clone() })
    }

    /// Returns whether the resource serves `verb`.
    pub fn serves(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Returns the selectable field at `path`.
    pub fn field(&self, path: &str) -> Option<&SelectableField> {
        self.fields.iter().find(|field| field.path == path)
    }
}

/// The conversion of objects between the versions of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Conversion {
    /// [`Strategy::convert`](crate::Strategy::convert).
    #[default]
    Strategy,
    /// A webhook of the definition (`spec.conversion` with the strategy `Webhook`).
    Webhook(ConversionWebhook),
}

/// The conversion webhook of a CustomResourceDefinition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversionWebhook {
    /// The `WebhookClientConfig`.
    pub client_config: Value,
    /// The versions of `ConversionReview` that the webhook accepts, in order of its preference.
    pub review_versions: Vec<String>,
}

impl fmt::Debug for ResourceDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceDef({})", self.group_resource())
    }
}

/// A served version of a resource.
#[derive(Clone, Debug)]
pub struct ResourceVersion {
    /// The version: `v1`.
    pub name: String,
    /// The OpenAPI definition name of the kind: `io.k8s.api.apps.v1.Deployment`.
    pub type_name: String,
    /// The structure of its objects.
    pub schema: Schema,
    /// The deprecation warning, if the version is deprecated.
    pub deprecation: Option<String>,
    /// The subresources, sorted by name.
    pub subresources: Arc<[Subresource]>,
    /// The columns of its `Table`. Cells of built-in objects are read from the storage version, cells of custom
    /// objects from this version.
    pub columns: Arc<[Column]>,
    /// The paths that field selectors support, in addition to `metadata.name` and `metadata.namespace`.
    pub selectable: Arc<[String]>,
}

impl ResourceVersion {
    /// Returns the built-in type; `None` for a custom resource.
    pub fn type_id(&self) -> Option<TypeId> {
        match &self.schema {
            Schema::Builtin(type_id) => *type_id,
            Schema::Custom(_) => None,
        }
    }

    /// Returns the schema of a custom resource.
    pub fn custom(&self) -> Option<&CustomSchema> {
        match &self.schema {
            Schema::Builtin(_) => None,
            Schema::Custom(schema) => Some(schema),
        }
    }

    /// Returns the subresource with this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Returns whether the version has a `status` subresource. If so, writes of the object itself ignore `status`.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// The structure of a version's objects.
#[derive(Clone, Debug)]
pub enum Schema {
    /// A built-in type; `None` if the registry's schema set lacks the type.
    Builtin(Option<TypeId>),
    /// A schema from a CustomResourceDefinition.
    Custom(Arc<CustomSchema>),
}

/// A verb of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All verbs of a stored resource.
    pub const ALL: &'static [Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];
    /// The verbs of a subresource that reads and writes the object.
    pub const VIEW: &'static [Self] = &[Self::Get, Self::Patch, Self::Update];
    /// The only verb of reviews.
    pub const CREATE: &'static [Self] = &[Self::Create];

    /// Returns the verb in lower case, as in discovery and RBAC.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A subresource.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The path segment: `status`.
    pub name: String,
    /// Its behaviour.
    pub kind: SubresourceKind,
    /// The kind of its requests and responses; group and version are empty if the parent's apply.
    pub response: GroupVersionKind,
    /// The type of [`Self::response`], if it differs from the parent's.
    pub type_id: Option<TypeId>,
    /// The verbs, sorted.
    pub verbs: &'static [Verb],
}

/// The behaviour of a subresource.
#[derive(Clone, Debug, PartialEq)]
pub enum SubresourceKind {
    /// Reads the object and writes only its `status`.
    Status,
    /// Reads and writes an `autoscaling/v1` `Scale`.
    Scale(ScalePaths),
    /// Reads the object and writes only the fields that the strategy's `prepare_for_subresource_update` preserves
    /// (`finalize`, `approval`, `ephemeralcontainers`, `resize`).
    RestrictedUpdate,
    /// Has semantics that generic code does not implement (`exec`, `binding`, `token`).
    Other,
}

/// A field that field selectors may use.
#[derive(Clone, Debug)]
pub struct SelectableField {
    /// The name in selectors: `spec.nodeName`.
    pub path: String,
    /// True if lists and watches by this field use an index.
    pub indexed: bool,
    /// The paths of the value in the storage version; the first path with a value is used.
    pub at: Vec<Vec<String>>,
    /// The default value.
    pub missing: &'static str,
}

impl SelectableField {
    /// Returns the value in the string form that selectors compare.
    pub fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        let found = self
            .at
            .iter()
            .find_map(|path| scalar(path.iter().try_fold(object, |place, name| place.get(name))?));
        found.unwrap_or(Cow::Borrowed(self.missing))
    }
}

/// Returns a scalar in the string form that selectors compare; `None` for other values and empty strings.
fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// The storage of a resource's objects.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The key prefix in etcd, without a trailing slash: `/registry/pods`.
    pub prefix: String,
    /// The group and version in which objects are stored.
    pub version: GroupVersion,
    /// The type of the stored version, if the schema set has it.
    pub type_id: Option<TypeId>,
    /// The time after which an object expires.
    pub ttl: Option<Duration>,
}

/// A rule for the names of objects.
#[derive(Clone, Copy, Debug)]
pub enum NameRule {
    /// A DNS subdomain (RFC 1123), the usual rule.
    Subdomain,
    /// A DNS label (RFC 1123): up to 63 characters without dots.
    Label,
    /// A DNS label (RFC 1035): must start with a letter.
    Label1035,
    /// Any valid path segment.
    PathSegment,
    /// A custom rule that returns error messages; the list is empty for a valid name.
    With(fn(&str) -> Vec<String>),
}

impl NameRule {
    /// Returns error messages; the list is empty for a valid name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => names::is_dns1123_subdomain(name),
            Self::Label => names::is_dns1123_label(name),
            Self::Label1035 => names::is_dns1035_label(name),
            Self::PathSegment => names::is_path_segment_name(name),
            Self::With(check) => check(name),
        }
    }
}

/// Metadata fields that updates through subresources preserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMetadata(&'static [&'static str]);

impl KeptMetadata {
    /// No additional fields.
    pub const NONE: Self = Self(&[]);
    /// The labels.
    pub const LABELS: Self = Self(&["labels"]);
    /// The owner references; `deletionTimestamp` is dropped instead of rejected.
    pub const OWNERS_AND_DELETION: Self = Self(&["ownerReferences", "deletionTimestamp"]);
    /// Labels, annotations, finalizers and owner references.
    pub const SETTABLE: Self = Self(&["labels", "annotations", "finalizers", "ownerReferences"]);
    /// All fields that a client can set.
    pub const ALL: Self = Self(&[
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]);
    /// The owner references. Subresources of all kinds preserve them: otherwise, permission to update `status` would
    /// include permission to have the object garbage-collected.
    pub const OWNERS: Self = Self(&["ownerReferences"]);

    /// Copies the kept fields of `old` to `object`.
    pub fn restore(self, object: &mut Value, old: &Value) {
        let Some(metadata) = meta::metadata_mut(object) else { return };
        for field in self.0 {
            match meta::field(old, field) {
                Some(value) => metadata.insert((*field).to_owned(), value.clone()),
                None => metadata.remove(*field),
            };
        }
    }

    /// Returns the kept metadata fields; `None` if all settable fields are kept.
    pub fn fields(self) -> Option<&'static [&'static str]> {
        (self != Self::ALL && self != Self::SETTABLE).then_some(self.0)
    }

    /// Returns whether `field` of the metadata is kept.
    pub fn contains(self, field: &str) -> bool {
        self.0.contains(&field)
    }
}

/// The settings in which kinds differ for generic code.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "four independent yes-or-no facts of a kind")]
pub struct Rules {
    /// Metadata fields that updates through subresources preserve.
    pub kept_metadata: KeptMetadata,
    /// The changes that increment `metadata.generation`.
    pub generation: Generation,
    /// True if a PUT to a name that does not exist creates the object.
    pub create_on_update: bool,
    /// True if updates may omit the resourceVersion.
    pub unconditional_update: bool,
    /// True if a completed DELETE returns the object instead of a `Status`.
    pub returns_deleted: bool,
    /// True if the first DELETE only marks the object, and a failed precondition of a DELETE is reported for the
    /// resource instead of the kind.
    pub own_deletion: bool,
    /// True if a DELETE ignores the propagation policy, because the objects have no dependents.
    pub without_dependents: bool,
    /// True if a DELETE without propagation policy orphans the dependents.
    pub orphans_dependents: bool,
    /// True if a create may set `status`.
    pub creates_with_status: bool,
    /// True if creates are rejected because the definition of the custom resource is being deleted.
    pub refuses_creates: bool,
    /// True if privileged containers are refused (`--allow-privileged`).
    pub refuses_privileged: bool,
    /// True if the watch cache keeps the objects compressed, because they are large and rarely read.
    pub packed: bool,
}

impl Rules {
    /// Returns whether an update increments `metadata.generation`.
    pub fn bumps_generation(&self, object: &Value, old: &Value) -> bool {
        match self.generation {
            Generation::Of(paths) => paths
                .iter()
                .any(|path| crate::read::value_at(object, path) != crate::read::value_at(old, path)),
            Generation::AllButMetadata => {
                let fields = |object: &Value| object.as_object().map_or(0, Map::len);
                let has = |object: &Value| usize::from(object.get("metadata").is_some());
                fields(object) - has(object) != fields(old) - has(old)
                    || object
                        .as_object()
                        .into_iter()
                        .flatten()
                        .any(|(name, value)| name != "metadata" && old.get(name) != Some(value))
            }
        }
    }
}

/// The changes that increment `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Changes of these fields (dotted paths); an empty list disables the generation.
    Of(&'static [&'static str]),
    /// Changes of any field except `metadata`, as for custom resources.
    AllButMetadata,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            kept_metadata: KeptMetadata::NONE,
            generation: Generation::Of(&[]),
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
            own_deletion: false,
            without_dependents: false,
            orphans_dependents: false,
            creates_with_status: false,
            refuses_creates: false,
            refuses_privileged: false,
            packed: false,
        }
    }
}
