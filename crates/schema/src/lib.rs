//! The structure of API types, for built-in and custom kinds alike.
//!
//! A [`SchemaSet`] holds struct types by their OpenAPI definition name; [`Shape`] is what a field holds.
pub mod builtin;
pub mod normalize;
pub mod types;

pub use builtin::builtin;
pub use types::{
    AnyForm, Default, Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType, TypeId, Wire,
    WirePlan,
};
