//! Server-side apply: who manages which fields of an object (KEP-555; upstream: `structured-merge-diff` and
//! `apimachinery/pkg/util/managedfields`).
//!
//! | module | what it holds |
//! | --- | --- |
//! | `path`, `set`, `fields_v1` | paths to fields, sets of them, and their form in `fieldsV1` |
//! | `schema` | types as this module sees them: maps, lists and scalars; atomic or not; keys of lists |
//! | `field_set`, `compare`, `merge`, `remove`, `validate`, `conform` | what is done with a value, or a set, of a type |
//! | `entries` | the entries of `metadata.managedFields` |
//! | `updater` | the owners of fields through a change: take-over, conflicts, removal of what was given up |
//! | `last_applied` | the annotation of client-side apply |
//! | `manager` | [`FieldManager`]: what a write calls |
//! | `visits` | a measure of cost, for tests |
//! | `scale` | [`ScaleFields`]: the owners of an object's replicas, as its scale shows them |
//!
//! Objects and types are borrowed; nothing is copied that does not change. All walks are bounded by the depth of an
//! object, and their cost is linear in the sizes of object and sets but for sorting the items of lists.

mod compare;
mod conflict;
mod conform;
mod entries;
mod field_set;
mod fields_v1;
mod last_applied;
mod manager;
mod merge;
mod path;
mod remove;
mod scale;
mod schema;
mod set;
mod updater;
mod validate;
mod value;
mod visits;

#[cfg(test)]
mod tests;

pub use conflict::Conflicts;
pub use entries::EntriesError;
pub use fields_v1::FieldsError;
pub use manager::{ApplyError, FieldManager};
pub use path::PathElement;
pub use scale::{ScaleError, ScaleFields};
pub use schema::TypeRef;
pub use set::FieldSet;
pub use updater::Versions;
