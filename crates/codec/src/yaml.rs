//! YAML as in sigs.k8s.io/yaml: one document, with the YAML 1.1 rules that Go's parser supports.
//!
//! | plain text | value |
//! | --- | --- |
//! | empty, `~`, `null`, `Null`, `NULL` | null |
//! | `true`, `yes`, `y`, `on`, `false`, `no`, `n`, `off` (also `True`, `TRUE`, …) | a boolean |
//! | `12`, `0x1F`, `0o17`, `017`, `0b11`, `1_000`, `-3` | an integer, or a double beyond 64 bits |
//! | `1.5`, `1e3`, `.5` | a double, or an integer if it has no fraction |
//! | anything else, and quoted text | a string |
//!
//! Keys that are not strings are converted to strings. Merge keys (`<<`) are supported. NaN and infinity are errors,
//! because JSON cannot express them. Depth, memory and the expansion of aliases are limited.

mod read;
mod resolve;
#[cfg(test)]
mod tests;
mod write;

pub use self::read::{YamlError, decode};
pub use self::write::encode;
