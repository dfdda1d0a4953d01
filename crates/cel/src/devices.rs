//! Selectors of devices, in the kinds of dynamic resource allocation. Upstream: `dynamic-resource-allocation/cel`.

use crate::cost::{Bounds, SizeEstimator};
use crate::env::Env;
use crate::kinds::Type;
use crate::program::Ast;

/// Maximum estimated cost of a selector.
const MAX_COST: u64 = 1_000_000;

/// Maximum numbers of code points or entries in a device.
const DRIVER_MAX: u64 = 63;
const DOMAIN_MAX: u64 = 63;
const ID_MAX: u64 = 32;
const ENTRIES_MAX: u64 = 32;
const ATTRIBUTE_MAX: u64 = 64;

/// The reason for refusing a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceSelectorError {
    /// The expression cannot be compiled, or has the wrong type.
    #[error("{0}")]
    Invalid(String),
    /// A constant part of the expression fails.
    #[error("program instantiation failed: {0}")]
    Program(String),
    /// The estimated cost is too high.
    #[error("too complex, exceeds cost limit")]
    TooComplex,
}

/// Checks a selector. `version` is the minor version of Kubernetes whose libraries it can use.
///
/// # Errors
/// The reason for refusing the selector.
pub fn check_device_selector(text: &str, version: u32) -> Result<(), DeviceSelectorError> {
    let env = Env::new(version).with_bindings().with("device", device_type());
    let ast = Ast::compile(text, &env)
        .map_err(|issues| DeviceSelectorError::Invalid(format!("compilation failed: {issues}")))?;
    let found = ast.output_type();
    if !matches!(found, Type::Bool | Type::Any) {
        let why = format!("must evaluate to bool or the unknown type, not {}", found.long_name());
        return Err(DeviceSelectorError::Invalid(why));
    }
    ast.program().map_err(|failure| DeviceSelectorError::Program(failure.to_string()))?;
    if ast.estimate(&DeviceSizes).max > MAX_COST {
        return Err(DeviceSelectorError::TooComplex);
    }
    Ok(())
}

fn device_type() -> Type {
    let by_name = |ty| Type::map(Type::String, Type::map(Type::String, ty));
    Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_name(Type::Any)),
            ("capacity", by_name(Type::object("kubernetes.Quantity", []))),
        ],
    )
}

/// The sizes of the parts of a device.
struct DeviceSizes;

impl SizeEstimator for DeviceSizes {
    fn estimate_size(&self, path: &[String], _: &Type) -> Option<Bounds> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let max = match path.as_slice() {
            ["device"] => 0,
            ["device", "driver"] => DRIVER_MAX,
            ["device", "allowMultipleAllocations"] => 1,
            ["device", maps @ ("attributes" | "capacity"), rest @ ..] => {
                // The attributes of a domain can also be selected as fields.
                let is_item = |part: &str| matches!(part, "@items" | "@values");
                match *rest {
                    [] => ENTRIES_MAX,
                    ["@keys"] => DOMAIN_MAX,
                    [domain] if is_item(domain) => ENTRIES_MAX,
                    [domain, "@keys"] if is_item(domain) => ID_MAX,
                    [domain, _] if is_item(domain) && *maps == "attributes" => ATTRIBUTE_MAX,
                    [domain, name] if is_item(domain) && is_item(name) => 0,
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(Bounds { min: 0, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_selectors() {
        for text in [
            r#"device.driver == "dra.example.com""#,
            r#"device.attributes["dra.example.com"].model.startsWith("x")"#,
            r#"device.attributes["dra.example.com"].healthy"#,
            r#"cel.bind(dra, device.attributes["dra.example.com"], dra.one && dra.two == 3)"#,
            r#"device.capacity["dra.example.com"].memory.compareTo(quantity("1Gi")) >= 0"#,
            "device.allowMultipleAllocations",
        ] {
            assert_eq!(check_device_selector(text, 35), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_selectors_with_upstreams_texts() {
        let many = format!("{}{}", "device.attributes.all(a, ".repeat(5), "true").to_owned() + &")".repeat(5);
        for (text, start) in [
            ("nope", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope'"),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            (
                "device.attributes",
                "must evaluate to bool or the unknown type, not map(string, map(string, google.protobuf.Any))",
            ),
            ("1", "must evaluate to bool or the unknown type, not int"),
            (
                r#"device.attributes["a"].b.exists(x, x == 1)"#,
                "compilation failed: ERROR: <input>:1:23: expression of type 'any' cannot be range of a comprehension",
            ),
            (
                "cel.bind(a.b, 1, true)",
                "compilation failed: ERROR: <input>:1:11: cel.bind() variable names must be simple identifiers",
            ),
            (&many, "too complex, exceeds cost limit"),
        ] {
            let why = check_device_selector(text, 35).unwrap_err().to_string();
            assert!(why.starts_with(start), "{text}: {why}");
        }
    }
}
