//! The parts of a definition that are the same in all versions. Upstream keeps them once, beside the versions, so that
//! errors about them point there.

use nave_machinery::Value;

use crate::validate::At;

/// The parts of a version.
const PARTS: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

/// The parts of a version, seen over all versions.
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
    /// Each version has its own.
    Differs,
    /// All versions have the same, or none.
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

    /// Returns the schemas of all versions; equal ones of neighbours once.
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

/// Returns a part that is there and no empty list.
pub(super) fn present<'v>(version: &'v Value, part: &str) -> Option<&'v Value> {
    version.get(part).filter(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
}
