//! YAML, as sigs.k8s.io/yaml reads and writes it: one document, resolved by the rules of YAML 1.1 that Go's parser
//! keeps.
//!
//! | plain text | value |
//! | --- | --- |
//! | nothing, `~`, `null`, `Null`, `NULL` | null |
//! | `true`, `yes`, `on`, `false`, `no`, `off` (also `True`, `TRUE`, …) | a boolean |
//! | `12`, `0x1F`, `0o17`, `017`, `0b11`, `1_000`, `-3` | an integer, or a double beyond 64 bits |
//! | `1.5`, `1e3`, `.5` | a double, or an integer if it is whole |
//! | anything else, and all that is quoted | a string |
//!
//! Keys that are not strings become their text. Merge keys (`<<`) work. Not a number and infinity, which JSON does
//! not have, are errors. Depth, memory and what aliases add are bounded.

mod read;
mod resolve;
#[cfg(test)]
mod tests;
mod write;

pub use self::read::{YamlError, decode};
pub use self::write::encode;
