//! Turning an object from one version into another.

use nave_machinery::{GroupVersion, Value};

use crate::def::ResourceDef;

/// Why an object cannot be turned into another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// What is to be converted is not an object.
    #[error("only objects can be converted")]
    NotAnObject,
    /// A field or annotation that carries another version's data cannot be read.
    #[error("{0}")]
    Invalid(String),
}

/// Turns `object` from one version of `def` into another; both may also be the storage version.
pub fn convert(
    def: &ResourceDef,
    object: &mut Value,
    from: &GroupVersion,
    to: &GroupVersion,
) -> Result<(), ConversionError> {
    if from == to { Ok(()) } else { def.strategy.convert(object, from, to) }
}

/// The conversion between versions that differ in nothing but their name.
pub fn relabel(object: &mut Value, _from: &GroupVersion, to: &GroupVersion) -> Result<(), ConversionError> {
    let object = object.as_object_mut().ok_or(ConversionError::NotAnObject)?;
    object.insert("apiVersion".to_owned(), Value::String(to.to_string()));
    Ok(())
}
