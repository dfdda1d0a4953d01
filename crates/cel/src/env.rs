//! Environments: the names that expressions can use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use crate::kinds::{ObjectType, Type};
use crate::library::{self, Function, Overload};
use crate::messages;
use crate::schema::is_reserved;

/// The newest minor version of Kubernetes whose CEL libraries are supported.
pub const NEWEST: u32 = 36;

/// The variables, types and functions that expressions can use.
#[derive(Clone, Debug)]
pub struct Env {
    version: u32,
    patch: bool,
    bindings: bool,
    variables: HashMap<Arc<str>, (Arc<str>, Type)>,
    /// See [`Self::identity`]. Computed when it is first needed.
    identity: OnceLock<Arc<str>>,
}

impl Default for Env {
    fn default() -> Self {
        Self::new(NEWEST)
    }
}

impl Env {
    /// Creates an environment with the libraries of Kubernetes 1.VERSION and without variables.
    pub fn new(version: u32) -> Self {
        Self { version, patch: false, bindings: false, variables: HashMap::new(), identity: OnceLock::new() }
    }

    /// Adds the types and functions of mutating policies: the types `Object` and `JSONPatch`, and
    /// `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_patch_types(self) -> Self {
        Self { patch: true, identity: OnceLock::new(), ..self }
    }

    /// Adds the macro `cel.bind`.
    #[must_use]
    pub fn with_bindings(self) -> Self {
        Self { bindings: true, identity: OnceLock::new(), ..self }
    }

    /// Declares a variable.
    #[must_use]
    pub fn with(mut self, name: &str, ty: Type) -> Self {
        let name: Arc<str> = name.into();
        self.variables.insert(Arc::clone(&name), (name, ty));
        self.identity = OnceLock::new();
        self
    }

    /// Declares a field of a variable that is an object, for an expression of this type.
    pub(crate) fn declare_field(&mut self, variable: &str, field: &str, ty: &Type) {
        self.identity = OnceLock::new();
        if let Some((_, Type::Object(object))) = self.variables.get_mut(variable) {
            Arc::make_mut(object).fields.insert(field.into(), declared_type(ty));
        }
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self.identity = OnceLock::new();
        self
    }

    /// Returns a text that is equal for environments with the same names and types only.
    pub(crate) fn identity(&self) -> Arc<str> {
        let identity = self.identity.get_or_init(|| {
            let sorted: BTreeMap<_, _> = self.variables.iter().map(|(name, (_, ty))| (name, ty)).collect();
            format!("{} {} {} {sorted:?}", self.version, self.patch, self.bindings).into()
        });
        Arc::clone(identity)
    }

    /// Returns whether expressions can use `cel.bind`.
    pub(crate) fn has_bindings(&self) -> bool {
        self.bindings
    }

    /// Returns the minor version of Kubernetes.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn variable(&self, name: &str) -> Option<(&Arc<str>, &Type)> {
        self.variables.get(name).map(|(name, ty)| (name, ty))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Function> {
        let function = library::function(name)?;
        self.overloads(function).next().map(|_| function)
    }

    pub(crate) fn overloads(
        &self,
        function: &'static Function,
    ) -> impl Iterator<Item = &'static Overload> + use<> {
        let (version, patch) = (self.version, self.patch);
        function.overloads.iter().filter(move |it| it.since <= version && (patch || !it.patch))
    }

    /// Returns a field's type.
    pub(crate) fn field(&self, object: &ObjectType, field: &str) -> Option<Type> {
        if let Some(found) = object.fields.get(field) {
            return Some(found.clone());
        }
        // Reserved words can be selected with or without escaping.
        if let Some(found) = object.fields.get(&*format!("__{field}__")).filter(|_| is_reserved(field)) {
            return Some(found.clone());
        }
        if self.patch && is_patch_object(&object.name) {
            return Some(Type::Dyn);
        }
        (&*object.name == "JSONPatch").then_some(Type::Unspecified)
    }

    /// Returns the type that a name denotes.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(None),
            "optional_type" => Type::optional(Type::Dyn),
            "net.IP" => Type::Opaque("net.IP", None),
            "net.CIDR" => Type::Opaque("net.CIDR", None),
            "JSONPatch" if self.patch => {
                let texts = ["op", "path", "from"].map(|name| (name, Type::String));
                Type::object(name, texts.into_iter().chain([("value", Type::Dyn)]))
            }
            _ if self.patch && is_patch_object(name) => Type::object(name, []),
            _ => return messages::message_type(name),
        })
    }
}

/// Returns whether a name is an object type of mutating policies.
pub(crate) fn is_patch_object(name: &str) -> bool {
    name == "Object" || name.starts_with("Object.")
}

/// Returns the type that later expressions see. Only scalars, and lists and maps of them, keep their types.
fn declared_type(ty: &Type) -> Type {
    match ty {
        Type::Any
        | Type::Bool
        | Type::Bytes
        | Type::Double
        | Type::Duration
        | Type::Int
        | Type::Null
        | Type::String
        | Type::Timestamp
        | Type::Uint => ty.clone(),
        Type::List(of) => Type::list(declared_type(of)),
        Type::Map(from, to) => Type::map(declared_type(from), declared_type(to)),
        _ => Type::Dyn,
    }
}
