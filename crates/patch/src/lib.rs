//! To be written.
#![allow(missing_docs, unused)]
use nave_machinery::{Status, Value}; use nave_schema::{SchemaSet, TypeId};
pub struct PatchError; impl PatchError { pub fn into_status(self) -> Status { Status::bad_request("patch") } }
pub mod json_patch { use super::*; pub fn apply(_: &mut Value, _: &Value) -> Result<(), PatchError> { Err(PatchError) } }
pub mod merge { use super::*; pub fn apply(_: &mut Value, _: &Value) {} }
pub mod strategic { use super::*; pub fn apply(_: &SchemaSet, _: TypeId, _: &mut Value, _: &Value) -> Result<(), PatchError> { Err(PatchError) } }
