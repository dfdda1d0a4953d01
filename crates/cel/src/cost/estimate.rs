//! Estimates of calls. Upstream: `library.CostEstimator.EstimateCallCost`, and cel-go's estimates of its extensions.

use super::bounds::Bounds;
use super::{AUTHORIZER_CHECK, REGEX, TRAVERSAL};
use crate::kinds::Type;

/// The path of a value: the variable, then the selections. `@items`, `@keys` and `@values` select elements.
pub type NodePath = Vec<String>;

/// Estimates the sizes of variables and of the values inside them.
pub trait SizeEstimator {
    /// Returns the size of the value at a path, in code points, bytes, items or entries.
    fn estimate_size(&self, path: &[String], ty: &Type) -> Option<Bounds>;
}

/// An estimator without any sizes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl SizeEstimator for Unlimited {
    fn estimate_size(&self, _: &[String], _: &Type) -> Option<Bounds> {
        None
    }
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) path: Option<NodePath>,
    pub(super) ty: Type,
    pub(super) size: Option<Bounds>,
    /// The value of an integer literal.
    pub(super) literal: Option<i64>,
    pub(super) is_literal: bool,
}

/// The estimate of a call without its arguments, and the size of the result.
pub(super) type CallEstimate = (Bounds, Option<Bounds>);

/// Functions whose calls cost 1.
pub(super) const COST_ONE: [&str; 36] = [
    "serviceAccount",
    "path",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "allowed",
    "reason",
    "error",
    "errored",
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
];

pub(super) struct Estimator<'e> {
    pub(super) sizes: &'e dyn SizeEstimator,
}

impl Estimator<'_> {
    pub(super) fn size(&self, operand: &Operand) -> Bounds {
        operand.size.or_else(|| self.at(operand.path.as_ref(), &operand.ty)).unwrap_or(Bounds::UNKNOWN)
    }

    fn at(&self, path: Option<&NodePath>, ty: &Type) -> Option<Bounds> {
        self.sizes.estimate_size(path.map_or(&[], Vec::as_slice), ty)
    }

    /// Returns the type and the size of the items of a list.
    fn items(&self, list: &Operand) -> Option<(Type, Bounds)> {
        let ty = (*list.ty.parameters().first()?).clone();
        let path = list.path.clone().map(|mut path| {
            path.push("@items".to_owned());
            path
        });
        let size = self.at(path.as_ref(), &ty).unwrap_or(Bounds::UNKNOWN);
        Some((ty, size))
    }

    /// Estimates a call of Kubernetes' libraries or cel-go's extensions.
    pub(super) fn call(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Operand>,
        args: &[Operand],
    ) -> Option<CallEstimate> {
        self.extension(overload, target, args).or_else(|| self.kubernetes(function, overload, target, args))
    }

    fn extension(&self, overload: &str, target: Option<&Operand>, args: &[Operand]) -> Option<CallEstimate> {
        let first = args.first();
        let number = |arg: &Operand, default: u64| match (arg.is_literal, arg.literal) {
            (true, Some(value)) => u64::try_from(value).unwrap_or(0),
            _ => default,
        };
        match (overload, target, args) {
            ("list_slice", Some(target), [start, end]) => {
                let end = number(end, self.size(target).max);
                Some(allocating(1.0, Bounds::fixed(end.wrapping_sub(number(start, 0)))))
            }
            ("lists_range", None, [count]) => Some(allocating(1.0, Bounds::fixed(number(count, u64::MAX)))),
            ("list_reverse", Some(target), []) => Some(allocating(1.0, self.size(target))),
            ("list_flatten" | "list_flatten_int", Some(target), [] | [_]) => {
                let depth = first.map_or(1, |depth| number(depth, u64::MAX));
                Some(allocating(depth as f64, self.size(target)))
            }
            ("list_distinct", Some(target), []) => {
                let size = self.size(target);
                Some(allocating(2.0, size.multiply(size)))
            }
            (
                "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list",
                _,
                [left, right],
            ) => {
                let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let cost = self.size(left).multiply(self.size(right)).scale(factor).add(Bounds::ONE);
                Some((cost, None))
            }
            (id, Some(target), []) if id.starts_with("list_") && id.ends_with("_sort") => {
                Some(self.sort(id, target))
            }
            (id, Some(_), [keys]) if id.starts_with("list_") && id.ends_with("_sortByAssociatedKeys") => {
                Some(self.sort(id, keys))
            }
            _ => None,
        }
    }

    fn sort(&self, overload: &str, list: &Operand) -> CallEstimate {
        let text = overload.starts_with("list_string_") || overload.starts_with("list_bytes_");
        let size = self.size(list);
        allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, size.multiply(size))
    }

    fn kubernetes(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Operand>,
        args: &[Operand],
    ) -> Option<CallEstimate> {
        let network = Bounds { min: 4, max: 16 };
        let cost = |cost: Bounds| Some((cost, None));
        match (function, target, args) {
            ("check", ..) => cost(Bounds::fixed(AUTHORIZER_CHECK)),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let length = self.size(selector);
                let requirements = length.scale(0.5).scale(50.0);
                cost(Bounds::fixed(10).add(length.scale(TRAVERSAL)).add(requirements))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                let size = self.size(target);
                match self.items(target) {
                    Some((Type::String | Type::Bytes, item)) => {
                        cost(size.multiply(Bounds::ONE.add(item.scale(TRAVERSAL))))
                    }
                    Some(_) => cost(size),
                    None => cost(size.scale(TRAVERSAL)),
                }
            }
            ("url" | "jsonpatch.escapeKey", _, [text]) => {
                let size = self.size(text);
                Some((size.scale(TRAVERSAL), Some(size)))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
                let size = self.size(target);
                Some((size.scale(TRAVERSAL), Some(size)))
            }
            ("replace", Some(target), [old, new, ..]) => {
                let size = self.size(target);
                let result = replaced(size, self.size(old), self.size(new));
                Some((size.scale(2.0 * TRAVERSAL), Some(result)))
            }
            ("split", Some(target), _) => {
                let size = self.size(target);
                let max = match args.get(1) {
                    Some(Operand { literal: Some(limit), .. }) => *limit as u64,
                    _ => size.max,
                };
                Some((size.scale(2.0 * TRAVERSAL), Some(Bounds { min: 0, max })))
            }
            ("join", Some(target), _) => {
                let list = self.size(target);
                let mut size = self.items(target).map_or(Bounds::ZERO, |(_, item)| list.multiply(item));
                if let Some(separator) = args.first() {
                    let count = Bounds { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                    size = size.add(self.size(separator).multiply(count));
                }
                Some((size.scale(TRAVERSAL), Some(size)))
            }
            ("find" | "findAll", Some(target), [pattern, ..]) => {
                let size = self.size(target);
                let text = size.add(Bounds::ONE).scale(TRAVERSAL);
                let found = Bounds { min: 0, max: size.max };
                Some((text.multiply(self.size(pattern).scale(REGEX)), Some(found)))
            }
            ("ip", ..) if overload == "cidr_ip" => cost(Bounds::ONE),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                _,
                [text, ..],
            ) => cost(self.size(text).scale(TRAVERSAL)),
            ("ip.isCanonical", _, [text, ..]) => cost(self.size(text).scale(2.0 * TRAVERSAL)),
            ("containsIP", _, [other, ..]) => {
                let compared = network.add(network).scale(TRAVERSAL);
                let text = overload == "cidr_contains_ip_string";
                cost(if text { compared.add(self.size(other).scale(TRAVERSAL)) } else { compared })
            }
            ("containsCIDR", _, [other, ..]) => {
                let compared =
                    network.add(network).scale(TRAVERSAL).add(network.scale(TRAVERSAL)).add(Bounds::ONE);
                let text = overload == "cidr_contains_cidr_string";
                cost(if text { compared.add(self.size(other).scale(TRAVERSAL)) } else { compared })
            }
            ("validate", _, [text, ..]) => {
                cost(self.size(text).scale(TRAVERSAL).scale(MAX_FORMAT_REGEX as f64 * REGEX))
            }
            ("getEscapedPath" | "getQuery", ..) => cost(Bounds::ONE),
            ("_==_", _, [left, right]) if left.ty == right.ty => match left.ty.runtime_name() {
                "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => cost(Bounds::ONE),
                name if name.starts_with("kubernetes.authorization.") => cost(Bounds::ONE),
                "kubernetes.NamedFormat" => cost(Bounds { min: 1, max: MAX_FORMAT }.scale(TRAVERSAL)),
                "kubernetes.URL" => {
                    let size = right.size.unwrap_or(Bounds::ONE);
                    cost(Bounds { min: 1, max: size.max }.scale(TRAVERSAL))
                }
                _ => None,
            },
            (name, ..) if COST_ONE.contains(&name) => cost(Bounds::ONE),
            _ => None,
        }
    }
}

const MAX_FORMAT: u64 = 64;
const MAX_FORMAT_REGEX: u64 = 128;

/// Returns the estimate of a call that creates a list.
fn allocating(factor: f64, size: Bounds) -> CallEstimate {
    (size.scale(factor).add(Bounds::fixed(11)), Some(size))
}

/// Returns the size of a text after replacements.
fn replaced(size: Bounds, old: Bounds, new: Bounds) -> Bounds {
    let (mut count, mut retained) = (Bounds::ZERO, Bounds::ZERO);
    if old.min == 0 {
        count.max = size.max.saturating_add(1);
        retained.max = size.max;
    } else if new.max <= old.min {
        retained.max = size.max;
    } else {
        count.max = ceil_div(size.max, old.min);
    }
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        retained.min = size.min;
    } else if old.max <= new.min {
        retained.min = size.min;
    } else {
        count.min = ceil_div(size.min, old.max);
    }
    count.multiply(new).add(retained)
}

/// Divides and rounds up, in floating point as upstream does.
fn ceil_div(a: u64, b: u64) -> u64 {
    (a as f64 / b as f64).ceil() as u64
}
