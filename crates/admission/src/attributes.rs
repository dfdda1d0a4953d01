//! The attributes of a request: the input of every plugin besides the object.

use std::fmt;
use std::time::Instant;

use nave_machinery::options::{CreateOptions, DeleteOptions};
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionKind, GroupVersionResource, Object, Status, Value};
use nave_resources::ResourceDef;

use crate::notes::Notes;

/// The attributes of a request (upstream: `admission.Attributes`).
pub struct Attributes<'a> {
    /// The resource.
    pub def: &'a ResourceDef,
    /// The kind of the request's object, in the version of the request. A subresource such as `pods/eviction` has its
    /// own kind.
    pub kind: &'a GroupVersionKind,
    /// The version in the request's path.
    pub version: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// The object's namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty if the server generates it.
    pub name: &'a str,
    /// The operation.
    pub operation: Operation,
    /// The verb of the request for authorization.
    pub verb: &'a str,
    /// The stored object: the state before an update, or the object to delete.
    pub old: Option<&'a Object>,
    /// The options of the request.
    pub options: RequestOptions<'a>,
    /// The user that the request acts as.
    pub user: &'a UserInfo,
    /// The deadline of the request; a plugin that waits must stop by then.
    pub deadline: Instant,
    /// The warnings and audit annotations of the request.
    pub notes: &'a Notes,
}

/// The options of a request.
#[derive(Clone, Copy, Debug)]
pub enum RequestOptions<'a> {
    /// The options of a create, an update or a patch.
    Write(&'a CreateOptions),
    /// The options of a deletion.
    Delete(&'a DeleteOptions),
}

impl RequestOptions<'_> {
    /// Returns whether the request is a dry run.
    pub fn dry_run(self) -> bool {
        match self {
            Self::Write(options) => options.dry_run,
            Self::Delete(options) => options.dry_run,
        }
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// All operations, in declaration order.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Connect];

    /// The operation in upper case, as in webhooks and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Attributes<'_> {
    /// Returns whether the request is for this group and resource.
    pub fn is_resource(&self, group: &str, resource: &str) -> bool {
        self.def.group == group && self.def.resource == resource
    }

    /// The resource, in the version of the request.
    pub fn resource(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.def.group, self.version, &*self.def.resource)
    }

    /// Returns whether the request is for pods or one of their subresources.
    pub fn is_pods(&self) -> bool {
        self.is_resource("", "pods")
    }

    /// Returns whether the request is for the object itself, not a subresource.
    pub fn is_object(&self) -> bool {
        self.subresource.is_empty()
    }

    /// Returns the namespace that webhooks and policies see. For a namespace, it is the namespace itself (upstream:
    /// `GetNamespace`).
    pub fn request_namespace(&self) -> &str {
        if self.is_resource("", "namespaces") { self.name } else { self.namespace }
    }

    /// Returns whether the request's object is a `Scale`, a view of another object.
    pub fn is_scale(&self) -> bool {
        self.subresource == "scale" && self.kind.kind == "Scale"
    }

    /// Returns whether the operation is a create.
    pub fn is_create(&self) -> bool {
        self.operation == Operation::Create
    }

    /// Returns whether the operation is an update.
    pub fn is_update(&self) -> bool {
        self.operation == Operation::Update
    }

    /// Returns whether the operation is a create or an update.
    pub fn is_write(&self) -> bool {
        self.is_create() || self.is_update()
    }

    /// Returns whether the request is a dry run, which must not write or reserve anything.
    pub fn dry_run(&self) -> bool {
        self.options.dry_run()
    }

    /// The options of the request as an object: `CreateOptions`, `UpdateOptions` or `DeleteOptions`. A connection has
    /// none: its options are its object.
    pub fn options_object(&self) -> Value {
        match self.options {
            _ if self.operation == Operation::Connect => Value::Null,
            RequestOptions::Delete(options) => options.to_value(),
            RequestOptions::Write(options) if self.is_update() => options.to_value("UpdateOptions"),
            RequestOptions::Write(options) => options.to_value("CreateOptions"),
        }
    }

    /// Returns a 403 with this reason.
    ///
    /// `object` provides the name if the request has none.
    pub fn forbidden<'o>(&self, object: impl Into<Option<&'o Object>>, why: impl fmt::Display) -> Status {
        let name = self.object_name(object.into());
        Status::forbidden(&self.def.group_resource(), name, &why.to_string())
    }

    /// Returns a 404 for the object, because its namespace or another prerequisite does not exist.
    pub fn not_found<'o>(&self, object: impl Into<Option<&'o Object>>) -> Status {
        let name = self.object_name(object.into());
        Status::not_found(&self.def.group_resource(), name)
    }

    /// Returns the object's name as in upstream's refusals.
    pub(crate) fn object_name<'n>(&'n self, object: Option<&'n Object>) -> &'n str {
        let object_name = |object: &'n Object| [object.name(), object.generate_name()];
        let names = object.map_or([""; 2], object_name);
        let known = [self.name, names[0], names[1]].into_iter().find(|name| !name.is_empty());
        known.unwrap_or("Unknown")
    }
}
