//! The input of every plugin beside the object itself.

use std::fmt;
use std::time::Instant;

use nave_machinery::options::{CreateOptions, DeleteOptions};
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionKind, Object, Status, Value};
use nave_resources::ResourceDef;

use crate::notes::Notes;

/// A request as admission plugins see it (upstream: `admission.Attributes`).
pub struct Attributes<'a> {
    /// The resource.
    pub def: &'a ResourceDef,
    /// The kind of the request's object, in the version of the request. It is not the resource's own kind for a
    /// subresource with one of its own, such as `pods/eviction`.
    pub kind: &'a GroupVersionKind,
    /// The version of the resource in the request's path.
    pub version: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// The object's namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty where the server generates it.
    pub name: &'a str,
    /// The operation.
    pub operation: Operation,
    /// The stored object: on an update before it, on a deletion the one to be deleted.
    pub old: Option<&'a Object>,
    /// The options of the request.
    pub options: RequestOptions<'a>,
    /// The user that the request acts as.
    pub user: &'a UserInfo,
    /// When the request must be answered; a plugin that waits gives up by then.
    pub deadline: Instant,
    /// The warnings and audit annotations of the request.
    pub notes: &'a Notes,
}

/// The options of a request.
#[derive(Clone, Copy, Debug)]
pub enum RequestOptions<'a> {
    /// Those of a create, an update or a patch.
    Write(&'a CreateOptions),
    /// Those of a deletion.
    Delete(&'a DeleteOptions),
}

impl RequestOptions<'_> {
    /// True for a dry run.
    pub fn dry_run(self) -> bool {
        match self {
            Self::Write(options) => options.dry_run,
            Self::Delete(options) => options.dry_run,
        }
    }
}

/// The operation that is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// All operations, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Connect];

    /// The operation in upper case, as webhooks and metrics name it.
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
    /// Whether the request is about this resource of a group.
    pub fn is_resource(&self, group: &str, resource: &str) -> bool {
        self.def.group == group && self.def.resource == resource
    }

    /// Whether the request is about pods themselves or one of their subresources.
    pub fn is_pods(&self) -> bool {
        self.is_resource("", "pods")
    }

    /// Whether the request is about the object itself and not a subresource.
    pub fn is_object(&self) -> bool {
        self.subresource.is_empty()
    }

    /// Whether an object is created.
    pub fn is_create(&self) -> bool {
        self.operation == Operation::Create
    }

    /// Whether an object is updated.
    pub fn is_update(&self) -> bool {
        self.operation == Operation::Update
    }

    /// Whether an object is created or updated.
    pub fn is_write(&self) -> bool {
        self.is_create() || self.is_update()
    }

    /// True for a dry run: nothing is written or reserved.
    pub fn dry_run(&self) -> bool {
        self.options.dry_run()
    }

    /// The options of the request as an object: `CreateOptions`, `UpdateOptions` or `DeleteOptions`.
    pub fn options_object(&self) -> Value {
        match self.options {
            RequestOptions::Delete(options) => options.to_value(),
            RequestOptions::Write(options) if self.is_update() => options.to_value("UpdateOptions"),
            RequestOptions::Write(options) => options.to_value("CreateOptions"),
        }
    }

    /// 403: the plugin does not admit the object, for this reason.
    ///
    /// The object gives the name where the request has none.
    pub fn forbidden<'o>(&self, object: impl Into<Option<&'o Object>>, why: impl fmt::Display) -> Status {
        let name = self.object_name(object.into());
        Status::forbidden(&self.def.group_resource(), name, &why.to_string())
    }

    /// 404: the object's namespace or another thing that it needs is not there, told as the object itself.
    pub fn not_found<'o>(&self, object: impl Into<Option<&'o Object>>) -> Status {
        let name = self.object_name(object.into());
        Status::not_found(&self.def.group_resource(), name)
    }

    fn object_name<'n>(&'n self, object: Option<&'n Object>) -> &'n str {
        let object_name = |object: &'n Object| [object.name(), object.generate_name()];
        let names = object.map_or([""; 2], object_name);
        let known = [self.name, names[0], names[1]].into_iter().find(|name| !name.is_empty());
        known.unwrap_or("Unknown!")
    }
}
