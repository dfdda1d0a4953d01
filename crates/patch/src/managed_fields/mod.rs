//! Server-side apply: the managers of an object's fields (KEP-555; upstream: `structured-merge-diff` and
//! `apimachinery/pkg/util/managedfields`).
//!
//! | module | contents |
//! | --- | --- |
//! | `path`, `field_name`, `element_json`, `set`, `fields_v1` | paths to fields, sets of paths, and their `fieldsV1` form |
//! | `schema` | types as maps, lists and scalars; atomicity; keys of lists |
//! | `created` | the fields of a created object, as text |
//! | `field_set`, `compare`, `merge`, `remove`, `validate`, `conform` | operations on a value, or a set, of a type |
//! | `entries` | the entries of `metadata.managedFields` |
//! | `updater` | ownership during a change: take-over, conflicts, removal of released fields |
//! | `last_applied` | the annotation of client-side apply |
//! | `manager` | [`FieldManager`]: the entry point for writes |
//! | `visits` | a measure of cost, for tests |
//! | `scale` | [`ScaleFields`]: the managed fields of the scale subresource |
//!
//! Objects and types are borrowed; unchanged values are not copied. The depth of objects bounds all recursion. The cost
//! is linear in the sizes of object and sets, except for sorting list items.

mod compare;
mod configuration;
mod conflict;
mod conform;
mod created;
mod element_json;
mod entries;
mod field_name;
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

pub use configuration::{ConfigurationError, merge_configuration};
pub use conflict::Conflicts;
pub use entries::{EntriesError, validate};
pub use field_name::FieldName;
pub use fields_v1::FieldsError;
pub use manager::{ApplyError, FieldManager};
pub use path::PathElement;
pub use scale::{ReplicasOf, ScaleError, ScaleFields};
pub use schema::TypeRef;
pub use set::FieldSet;
pub use updater::Versions;
