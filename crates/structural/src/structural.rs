//! The schema of a custom resource in one version.

use nave_machinery::limits::{Budget, LimitError};
use nave_machinery::{FieldError, Value};

use crate::compile::{self, CompileError};
use crate::metadata::{self, Malformed};
use crate::node::{Node, NodeRef};
use crate::validate::{self, Findings};
use crate::{defaulting, prune};

/// The compiled schema of a custom resource in one version. Clones share the nodes.
#[derive(Clone, Debug)]
pub struct Structural {
    root: NodeRef,
}

impl Structural {
    /// Compiles `openAPIV3Schema`.
    ///
    /// Does not check the rules of [`rules`](crate::rules). The schema of a definition that passed validation is
    /// structural.
    ///
    /// # Errors
    /// The schema has a keyword that structural schemas do not support, or is too deep or too large.
    pub fn compile(schema: &Value) -> Result<Self, CompileError> {
        compile::root(schema).map(|root| Self { root })
    }

    /// Returns the node of the root.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Drops unknown fields and returns their paths (`spec.list[0].field`), sorted, at most 100. Leaves `apiVersion`,
    /// `kind` and `metadata` unchanged, at the root and in embedded resources.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Drops each `null` that the schema neither allows nor replaces by a default. Runs on decoding, after pruning.
    pub fn drop_nulls(&self, object: &mut Value) {
        defaulting::drop_nulls(&self.root, object);
    }

    /// Coerces `apiVersion`, `kind` and `metadata` of embedded resources. Drops unknown fields of their metadata and
    /// returns the paths. The caller handles the root's metadata.
    ///
    /// # Errors
    /// The first malformed field, unless malformed fields are dropped.
    pub fn coerce_metadata(
        &self,
        object: &mut Value,
        malformed: Malformed,
    ) -> Result<Vec<String>, FieldError> {
        metadata::coerce(&self.root, object, malformed)
    }

    /// Returns the size of the JSON of all defaults. Defaults in lists and maps, which apply to each item, count once.
    pub fn size_of_defaults(&self) -> usize {
        self.root.size_of_defaults()
    }

    /// Sets the defaults of absent fields, and of `null` where it is not allowed. Idempotent.
    ///
    /// # Errors
    /// The defaults exceed the memory limit of an object.
    pub fn default(&self, object: &mut Value) -> Result<(), LimitError> {
        defaulting::apply(&self.root, object, &mut Budget::default())
    }

    /// Validates an object: the schema, the metadata of embedded resources, and the uniqueness of list items. With
    /// `old`, errors in unchanged parts become [`Findings::ratcheted`] (KEP-4008).
    ///
    /// Does not validate the root's metadata, the paths of the `scale` subresource, and CEL rules.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Findings {
        validate::object(&self.root, object, old)
    }

    /// Validates an update of the `status` subresource: the schema of `status`, and the uniqueness of list items in the
    /// whole object.
    pub fn validate_status(&self, object: &Value, old: &Value) -> Findings {
        validate::status(&self.root, object, old)
    }
}
