//! What a resource is: names, versions, verbs, columns, selectable fields, storage and a strategy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, Value, meta, names};
use nave_schema::TypeId;

use crate::scale::ScalePaths;
use crate::strategy::Strategy;
use crate::table::Column;

/// A resource, built-in or custom. Everything generic code needs to serve it.
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
    /// Named groups of resources it belongs to: `all`.
    pub categories: Vec<String>,
    /// True if its objects live in namespaces.
    pub namespaced: bool,
    /// The versions served, in the order discovery lists them.
    pub versions: Vec<ResourceVersion>,
    /// The verbs served on the resource itself, sorted.
    pub verbs: &'static [Verb],
    /// What is served below an object, sorted by name.
    pub subresources: Vec<Subresource>,
    /// The columns of its `Table`; cells read the object in its storage version.
    pub columns: Vec<Column>,
    /// The fields a field selector may name beside `metadata.name` and `metadata.namespace`.
    pub fields: Vec<SelectableField>,
    /// Where its objects are kept; `None` for a virtual resource (reviews, bindings), which computes an answer.
    pub storage: Option<Storage>,
    /// The rule its names follow.
    pub name_rule: NameRule,
    /// The rules generic code follows for it.
    pub rules: Rules,
    /// What is particular to the kind.
    pub strategy: Arc<dyn Strategy>,
}

/// The groups whose validation takes any qualified name for a finalizer.
const PLAIN_FINALIZERS: [&str; 5] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

impl ResourceDef {
    /// The group and resource, as errors name it.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    /// The group and kind, as errors of validation name it.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The group and one of its versions.
    pub fn group_version(&self, version: &str) -> GroupVersion {
        GroupVersion::new(self.group.clone(), version)
    }

    /// Returns whether a finalizer of the kind is one of Kubernetes' own or has a domain before a slash.
    pub fn requires_qualified_finalizers(&self) -> bool {
        !PLAIN_FINALIZERS.contains(&self.group.as_ref())
    }

    /// The served version of this name.
    pub fn version(&self, name: &str) -> Option<&ResourceVersion> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Returns whether the resource has a `status` subresource, so that plain writes leave `status` alone.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Returns whether the resource serves `verb`.
    pub fn serves(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The selectable field at `path`.
    pub fn field(&self, path: &str) -> Option<&SelectableField> {
        self.fields.iter().find(|field| field.path == path)
    }

    /// Returns whether a field selector on this resource may name `path`.
    pub fn is_selectable(&self, path: &str) -> bool {
        path == "metadata.name"
            || (self.namespaced && path == "metadata.namespace")
            || self.field(path).is_some()
    }
}

impl fmt::Debug for ResourceDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceDef({})", self.group_resource())
    }
}

/// A version a resource is served in.
#[derive(Clone, Debug)]
pub struct ResourceVersion {
    /// The version: `v1`.
    pub name: String,
    /// The OpenAPI definition name of its kind: `io.k8s.api.apps.v1.Deployment`.
    pub type_name: String,
    /// The type in the schema set the registry was built with, where it has one.
    pub type_id: Option<TypeId>,
    /// What a client of this version is warned with, where the version is deprecated.
    pub deprecation: Option<String>,
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
    /// The verbs of a subresource that is a view of the object.
    pub const VIEW: &'static [Self] = &[Self::Get, Self::Patch, Self::Update];
    /// The verb of a resource that is a question.
    pub const CREATE: &'static [Self] = &[Self::Create];

    /// The verb in lower case, as discovery and RBAC write it.
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

/// Something served below an object.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The path segment: `status`.
    pub name: String,
    /// What it does.
    pub kind: SubresourceKind,
    /// The kind it takes and answers with; group and version are empty where they are the parent's.
    pub response: GroupVersionKind,
    /// The type of [`Self::response`], where it has one of its own that is not the parent's.
    pub type_id: Option<TypeId>,
    /// The verbs, sorted.
    pub verbs: &'static [Verb],
}

/// What a subresource does.
#[derive(Clone, Debug, PartialEq)]
pub enum SubresourceKind {
    /// Reads the object, writes only its `status`.
    Status,
    /// Reads and writes an `autoscaling/v1` `Scale`.
    Scale(ScalePaths),
    /// Reads the object, writes only the part of it that the strategy's `prepare_for_subresource_update` lets through
    /// (`finalize`, `approval`, `ephemeralcontainers`, `resize`).
    RestrictedUpdate,
    /// Has a meaning of its own (`exec`, `binding`, `token`), which generic code does not know.
    Other,
}

/// A field that a field selector may name.
#[derive(Clone, Debug)]
pub struct SelectableField {
    /// The name in selectors: `spec.nodeName`.
    pub path: String,
    /// True if lists and watches by this field are worth an index.
    pub indexed: bool,
    /// Where its value is in an object of the storage version: at the first of these paths that has one.
    pub at: Vec<Vec<String>>,
    /// The value where nothing is there.
    pub missing: &'static str,
}

impl SelectableField {
    /// The field's value as selectors compare it.
    pub fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        let found = self
            .at
            .iter()
            .find_map(|path| scalar(path.iter().try_fold(object, |place, name| place.get(name))?));
        found.unwrap_or(Cow::Borrowed(self.missing))
    }
}

/// A scalar as selectors compare it; `None` for what is none, and for an empty text.
fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// Where and how a resource's objects are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The key prefix without a slash at its end, as etcd has it: `/registry/pods`.
    pub prefix: String,
    /// The group and version objects are written in.
    pub version: GroupVersion,
    /// The type of that version, where it has one.
    pub type_id: Option<TypeId>,
    /// After how long an object disappears by itself.
    pub ttl: Option<Duration>,
}

/// What the names of a resource's objects must be.
#[derive(Clone, Copy, Debug)]
pub enum NameRule {
    /// A DNS subdomain (RFC 1123), the usual rule.
    Subdomain,
    /// A DNS label (RFC 1123): up to 63 characters, no dots.
    Label,
    /// A DNS label (RFC 1035): a label that begins with a letter.
    Label1035,
    /// Anything that can stand as one segment of a path.
    PathSegment,
    /// A rule of its own; messages, none if the name is fine.
    With(fn(&str) -> Vec<String>),
}

impl NameRule {
    /// What is wrong with `name`; nothing if it is fine.
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

/// The metadata that an update through a subresource leaves as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMetadata(&'static [&'static str]);

impl KeptMetadata {
    /// Nothing beyond what no update changes.
    pub const NONE: Self = Self(&[]);
    /// The labels.
    pub const LABELS: Self = Self(&["labels"]);
    /// The owner references, and a `deletionTimestamp` is dropped instead of refused.
    pub const OWNERS_AND_DELETION: Self = Self(&["ownerReferences", "deletionTimestamp"]);
    /// Labels, annotations, finalizers and owner references.
    pub const SETTABLE: Self = Self(&["labels", "annotations", "finalizers", "ownerReferences"]);
    /// All that a client can name.
    pub const ALL: Self = Self(&[
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]);
    /// The owner references. No subresource changes them, whatever the kind: otherwise a right to `status` would be a
    /// right to have the object garbage collected.
    pub const OWNERS: Self = Self(&["ownerReferences"]);

    /// Gives `object` the kept fields of `old`.
    pub fn restore(self, object: &mut Value, old: &Value) {
        let Some(metadata) = meta::metadata_mut(object) else { return };
        for field in self.0 {
            match meta::field(old, field) {
                Some(value) => metadata.insert((*field).to_owned(), value.clone()),
                None => metadata.remove(*field),
            };
        }
    }

    /// The fields of the metadata that are kept; `None` for all of them.
    pub fn fields(self) -> Option<&'static [&'static str]> {
        (self != Self::ALL && self != Self::SETTABLE).then_some(self.0)
    }

    /// Returns whether `field` of the metadata is kept.
    pub fn contains(self, field: &str) -> bool {
        self.0.contains(&field)
    }
}

/// The rules that generic code follows for a resource, where kinds differ.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "four independent yes-or-no facts of a kind")]
pub struct Rules {
    /// The metadata that updates through subresources leave as it is stored.
    pub kept_metadata: KeptMetadata,
    /// The fields (dotted paths) whose change bumps `metadata.generation`; none if the kind has no generation.
    pub generation: &'static [&'static str],
    /// True if a PUT to a name that does not exist creates the object.
    pub create_on_update: bool,
    /// True if an update without a resourceVersion is applied to whatever is there.
    pub unconditional_update: bool,
    /// True if a completed DELETE answers with the object rather than with a `Status`.
    pub returns_deleted: bool,
    /// True if the precondition of a DELETE is checked before the generic path, which names the resource in the error
    /// and not the kind.
    pub own_preconditions: bool,
    /// True if a DELETE that does not name a propagation policy orphans the object's dependents.
    pub orphans_dependents: bool,
    /// True if a create may set `status`.
    pub creates_with_status: bool,
}

impl Rules {
    /// Returns whether an update changes what `metadata.generation` counts.
    pub fn bumps_generation(&self, object: &Value, old: &Value) -> bool {
        self.generation.iter().any(|path| crate::read::at(object, path) != crate::read::at(old, path))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            kept_metadata: KeptMetadata::NONE,
            generation: &[],
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
            own_preconditions: false,
            orphans_dependents: false,
            creates_with_status: false,
        }
    }
}
