//! Conversion of objects between versions.

use nave_machinery::{GroupVersion, Value};

use crate::def::ResourceDef;

/// The error of a conversion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The value is not an object.
    #[error("only objects can be converted")]
    NotAnObject,
    /// A field or annotation that holds data of another version cannot be decoded.
    #[error("{0}")]
    Invalid(String),
}

/// Converts `object` between two versions of `def`, including its storage version.
pub fn convert(
    def: &ResourceDef,
    object: &mut Value,
    from: &GroupVersion,
    to: &GroupVersion,
) -> Result<(), ConversionError> {
    if from == to { Ok(()) } else { def.strategy.convert(object, from, to) }
}

/// Converts between versions that differ only in name.
pub fn relabel(object: &mut Value, _from: &GroupVersion, to: &GroupVersion) -> Result<(), ConversionError> {
    let object = object.as_object_mut().ok_or(ConversionError::NotAnObject)?;
    object.insert("apiVersion".to_owned(), Value::String(to.to_string()));
    Ok(())
}
