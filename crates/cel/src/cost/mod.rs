//! The cost of calls at evaluation, and its estimate at compilation.

mod bounds;
mod coster;
mod estimate;

use crate::failure::Failure;
use crate::value::Value;
pub use bounds::Bounds;
pub(crate) use coster::estimate;
pub use estimate::{NodePath, SizeEstimator, Unlimited};

/// The cost of each traversed code point or byte of text.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// The cost of each code point of a pattern.
pub(crate) const REGEX: f64 = 0.25;
/// The cost of a check by the authorizer.
pub(crate) const AUTHORIZER_CHECK: u64 = 350_000;

/// The formula for the cost of a call. Upstream: `library.CostEstimator.CallCost` and cel-go's tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Fixed(u64),
    Selector,
    Traversal,
    /// The size of the first argument, times this number of tenths.
    First(u64),
    Join,
    Matches,
    Contains,
    /// The size of the second argument.
    Second,
    /// The smaller size of the two arguments.
    Smaller,
    Both,
    ContainsIp {
        text: bool,
    },
    ContainsCidr {
        text: bool,
    },
    Validate,
    Equality,
    /// The size of the created list.
    Output,
    Flatten,
    /// Comparison of all pairs of items in the argument at this index.
    Pairs(usize),
    /// The product of the two arguments' sizes, times this factor.
    Product(u64),
}

impl Rule {
    /// Returns the rule for a function and, if known, the overload.
    pub(crate) fn new(function: &str, overload: Option<&str>) -> Self {
        if let Some(rule) = overload.and_then(by_extension) {
            return rule;
        }
        if let Some(rule) = by_function(function, overload) {
            return rule;
        }
        match overload {
            Some("starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string") => {
                Self::First(1)
            }
            Some("strings_quote" | "string_format") => Self::First(1),
            Some("in_list") => Self::Second,
            Some("add_string" | "add_bytes") => Self::Both,
            Some("matches_string") => Self::Matches,
            Some("contains_string") => Self::Contains,
            Some("not_equals") => Self::Smaller,
            Some(id)
                if ["less_", "greater_"].iter().any(|prefix| id.starts_with(prefix))
                    && (id.ends_with("_string") || id.ends_with("_bytes")) =>
            {
                Self::Smaller
            }
            _ if function == "_!=_" => Self::Smaller,
            _ => Self::Fixed(1),
        }
    }

    /// Returns the cost of a call. The size of an argument with an error is 1.
    pub(crate) fn cost<'a>(
        self,
        args: &[Result<Value<'a>, Failure>],
        result: &Result<Value<'a>, Failure>,
    ) -> u64 {
        let arg = |index: usize| args.get(index).and_then(|arg| arg.as_ref().ok());
        let size = |index: usize| arg(index).map_or(1, Value::size);
        let inner = |index: usize| arg(index).map_or(1, Value::inner_size);
        match self {
            Self::Fixed(cost) => cost,
            Self::Selector => {
                let length = size(1);
                let requirements = scaled(length, 0.5);
                10 + scaled(length, TRAVERSAL) + scaled(requirements, 50.0)
            }
            Self::Traversal => arg(0).map_or(1, traversal),
            Self::First(tenths) => scaled(inner(0), TRAVERSAL * tenths as f64),
            Self::Join => scaled(result.as_ref().map_or(1, Value::size), 2.0 * TRAVERSAL),
            Self::Matches => {
                let text = scaled(inner(0).saturating_add(1), TRAVERSAL);
                text.saturating_mul(scaled(inner(1), REGEX))
            }
            Self::Contains => scaled(inner(0), TRAVERSAL).saturating_mul(scaled(inner(1), TRAVERSAL)),
            Self::Second => inner(1),
            Self::Smaller => scaled(inner(0).min(inner(1)), TRAVERSAL),
            Self::Both => scaled(inner(0).saturating_add(inner(1)), TRAVERSAL),
            Self::ContainsIp { text } => {
                let network = scaled(2 * size(0), TRAVERSAL);
                network + if text { scaled(size(1), TRAVERSAL) } else { 0 }
            }
            Self::ContainsCidr { text } => {
                let network = scaled(2 * size(0), TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1;
                network + if text { scaled(size(1), TRAVERSAL) } else { 0 }
            }
            Self::Validate => match arg(0) {
                Some(Value::Format(format)) => {
                    scaled(size(1) + 1, TRAVERSAL).saturating_mul(scaled(format.regex_size, REGEX))
                }
                _ => 1,
            },
            Self::Equality => match arg(0) {
                Some(
                    Value::Quantity(_)
                    | Value::Ip(_)
                    | Value::Cidr(_)
                    | Value::Format(_)
                    | Value::Url(_)
                    | Value::Semver(_)
                    | Value::Authorizer(_)
                    | Value::PathCheck(_)
                    | Value::GroupCheck(_)
                    | Value::ResourceCheck(_)
                    | Value::Decision(_),
                ) => 1,
                _ => scaled(inner(0).min(inner(1)), TRAVERSAL),
            },
            Self::Output => result.as_ref().map_or(1, Value::size).saturating_add(11),
            Self::Flatten => {
                let depth = match arg(1) {
                    Some(Value::Int(depth)) => *depth as f64,
                    _ => 1.0,
                };
                (size(0) as f64 * depth) as u64 + 11
            }
            Self::Pairs(index) => match arg(index) {
                Some(Value::List(list)) => {
                    let text = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
                    let factor = if text { 2.0 + TRAVERSAL } else { 2.0 };
                    let size = list.len() as u64;
                    (size.saturating_mul(size) as f64 * factor) as u64 + 11
                }
                _ => 11,
            },
            Self::Product(factor) => size(0).saturating_mul(size(1)).saturating_mul(factor).saturating_add(1),
        }
    }
}

/// Returns the rule of cel-go's extensions for an overload.
fn by_extension(overload: &str) -> Option<Rule> {
    Some(match overload {
        "list_slice" | "lists_range" | "list_reverse" => Rule::Output,
        "list_flatten" | "list_flatten_int" => Rule::Flatten,
        "list_distinct" => Rule::Pairs(0),
        "list_sets_contains_list" | "list_sets_intersects_list" => Rule::Product(1),
        "list_sets_equivalent_list" => Rule::Product(2),
        id if id.starts_with("list_") && id.ends_with("_sort") => Rule::Pairs(0),
        id if id.starts_with("list_") && id.ends_with("_sortByAssociatedKeys") => Rule::Pairs(1),
        _ => return None,
    })
}

/// Returns Kubernetes' rule for a function.
fn by_function(function: &str, overload: Option<&str>) -> Option<Rule> {
    Some(match function {
        "check" => Rule::Fixed(AUTHORIZER_CHECK),
        "fieldSelector" | "labelSelector" => Rule::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Rule::Traversal,
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => Rule::First(1),
        "replace" | "split" | "ip.isCanonical" => Rule::First(2),
        "join" => Rule::Join,
        "find" | "findAll" => Rule::Matches,
        "ip" if overload == Some("cidr_ip") => Rule::Fixed(1),
        "ip" => Rule::First(1),
        "containsIP" => Rule::ContainsIp { text: overload == Some("cidr_contains_ip_string") },
        "containsCIDR" => Rule::ContainsCidr { text: overload == Some("cidr_contains_cidr_string") },
        "validate" => Rule::Validate,
        "_==_" => Rule::Equality,
        "getEscapedPath" | "getQuery" => Rule::Fixed(1),
        name if estimate::COST_ONE.contains(&name) => Rule::Fixed(1),
        _ => return None,
    })
}

/// Multiplies and rounds up.
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    if product >= u64::MAX as f64 { u64::MAX } else { product as u64 }
}

/// Returns the cost of traversing all elements.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().map(|item| item.map_or(1, |item| traversal(&item))).sum(),
        Value::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            entries.iter().map(|(key, value)| traversal(key) + traversal(value)).sum()
        }
        _ => 1,
    }
}
