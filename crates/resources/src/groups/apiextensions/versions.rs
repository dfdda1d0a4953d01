//! The parts of a definition that are equal in all versions. Upstream's internal type moves them out of the versions,
//! and error paths follow it.

use nave_machinery::Value;

use crate::validate::At;

/// The parts of a version.
const PARTS: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

/// Each part of a version, compared over all versions.
#[derive(Clone, Copy)]
pub(super) struct Parts<'v> {
    /// `spec.validation`.
    pub(super) schema: Part<'v>,
    /// `spec.subresources`.
    pub(super) subresources: Part<'v>,
    /// `spec.additionalPrinterColumns`.
    pub(super) columns: Part<'v>,
    /// `spec.selectableFields`.
    pub(super) selectable: Part<'v>,
}

/// A part of the versions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'v> {
    /// The versions differ in this part.
    Differs,
    /// The part is equal in all versions; `None` if all versions lack it.
    Shared(Option<&'v Value>),
}

impl<'v> Part<'v> {
    pub(super) fn differs(self) -> bool {
        self == Self::Differs
    }

    /// Returns the value that all versions have.
    pub(super) fn shared(self) -> Option<&'v Value> {
        match self {
            Self::Differs => None,
            Self::Shared(value) => value,
        }
    }
}

impl<'v> Parts<'v> {
    /// Returns the shared parts of the versions in a spec.
    pub(super) fn shared(spec: At<'_, 'v>) -> Self {
        let versions =
            spec.field("versions").value().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let [schema, subresources, columns, selectable] = PARTS.map(|part| {
            let mut values = versions.iter().map(|version| present(version, part));
            let Some(first) = values.next() else { return Part::Shared(None) };
            if values.all(|value| value == first) { Part::Shared(first) } else { Part::Differs }
        });
        Self { schema, subresources, columns, selectable }
    }

    /// Returns the schemas of all versions, without consecutive duplicates.
    pub(super) fn schemas(definition: &Value) -> Vec<&Value> {
        let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
        let mut schemas: Vec<&Value> = Vec::new();
        for version in versions.into_iter().flatten() {
            if let Some(schema) =
                version.pointer("/schema/openAPIV3Schema").filter(|schema| !schema.is_null())
                && schemas.last() != Some(&schema)
            {
                schemas.push(schema);
            }
        }
        schemas
    }
}

/// Returns a part unless it is absent or an empty list.
pub(super) fn present<'v>(version: &'v Value, part: &str) -> Option<&'v Value> {
    version.get(part).filter(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
}
