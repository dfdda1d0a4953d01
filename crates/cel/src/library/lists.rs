//! Kubernetes' functions on lists: sums, extremes, order, positions.

use super::Library;
use super::operators::add;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{List, Value, compare, equal, is_ordered};

/// Kubernetes' functions on lists.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("list_int_is_sorted_bool", "list(int)::isSorted() bool", Some(is_sorted)),
        ("list_uint_is_sorted_bool", "list(uint)::isSorted() bool", Some(is_sorted)),
        ("list_double_is_sorted_bool", "list(double)::isSorted() bool", Some(is_sorted)),
        ("list_bool_is_sorted_bool", "list(bool)::isSorted() bool", Some(is_sorted)),
        ("list_duration_is_sorted_bool", "list(duration)::isSorted() bool", Some(is_sorted)),
        ("list_timestamp_is_sorted_bool", "list(timestamp)::isSorted() bool", Some(is_sorted)),
        ("list_string_is_sorted_bool", "list(string)::isSorted() bool", Some(is_sorted)),
        ("list_bytes_is_sorted_bool", "list(bytes)::isSorted() bool", Some(is_sorted)),
        ("list_int_sum_int", "list(int)::sum() int", Some(sum_int)),
        ("list_uint_sum_uint", "list(uint)::sum() uint", Some(sum_uint)),
        ("list_double_sum_double", "list(double)::sum() double", Some(sum_double)),
        ("list_duration_sum_duration", "list(duration)::sum() duration", Some(sum_duration)),
        ("list_int_max_int", "list(int)::max() int", Some(max)),
        ("list_uint_max_uint", "list(uint)::max() uint", Some(max)),
        ("list_double_max_double", "list(double)::max() double", Some(max)),
        ("list_bool_max_bool", "list(bool)::max() bool", Some(max)),
        ("list_duration_max_duration", "list(duration)::max() duration", Some(max)),
        ("list_timestamp_max_timestamp", "list(timestamp)::max() timestamp", Some(max)),
        ("list_string_max_string", "list(string)::max() string", Some(max)),
        ("list_bytes_max_bytes", "list(bytes)::max() bytes", Some(max)),
        ("list_int_min_int", "list(int)::min() int", Some(min)),
        ("list_uint_min_uint", "list(uint)::min() uint", Some(min)),
        ("list_double_min_double", "list(double)::min() double", Some(min)),
        ("list_bool_min_bool", "list(bool)::min() bool", Some(min)),
        ("list_duration_min_duration", "list(duration)::min() duration", Some(min)),
        ("list_timestamp_min_timestamp", "list(timestamp)::min() timestamp", Some(min)),
        ("list_string_min_string", "list(string)::min() string", Some(min)),
        ("list_bytes_min_bytes", "list(bytes)::min() bytes", Some(min)),
        ("list_a_index_of_int", "list(A)::indexOf(A) int", Some(index_of)),
        ("list_a_last_index_of_int", "list(A)::lastIndexOf(A) int", Some(last_index_of)),
    ],
    singletons: &[],
    unguarded: &[],
};

fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, Failure> {
    match args {
        [Value::List(list), ..] => Ok(list),
        _ => Err(Failure::overload()),
    }
}

fn is_sorted<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let mut previous: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        if !is_ordered(&item) {
            return Err(Failure::overload());
        }
        if let Some(previous) = &previous {
            // As upstream, values that cannot be compared count as sorted.
            if compare(previous, &item).is_ok_and(std::cmp::Ordering::is_gt) {
                return Ok(Value::Bool(false));
            }
        }
        previous = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(context: &Context<'a>, args: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>, Failure> {
    let mut total = zero;
    for item in list(args)?.iter() {
        total = add(context, &total, &item?)?;
    }
    Ok(total)
}

fn sum_int<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    sum(context, args, Value::Int(0))
}

fn sum_uint<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    sum(context, args, Value::Uint(0))
}

fn sum_double<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    sum(context, args, Value::Double(0.0))
}

fn sum_duration<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    sum(context, args, Value::Duration(0))
}

fn extreme<'a>(
    args: &[Value<'a>],
    name: &str,
    replaces: fn(std::cmp::Ordering) -> bool,
) -> Result<Value<'a>, Failure> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        if !is_ordered(&item) {
            return Err(Failure::overload());
        }
        match &best {
            Some(best) if !compare(best, &item).is_ok_and(replaces) => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| Failure::new(format!("{name} called on empty list")))
}

fn max<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    extreme(args, "max", std::cmp::Ordering::is_lt)
}

fn min<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    extreme(args, "min", std::cmp::Ordering::is_gt)
}

fn positions<'a>(args: &[Value<'a>], mut places: impl Iterator<Item = usize>) -> Result<Value<'a>, Failure> {
    let [Value::List(list), wanted] = args else { return Err(Failure::overload()) };
    let found = places.find(|index| {
        list.get(*index).is_some_and(|item| item.and_then(|item| equal(&item, wanted)).unwrap_or_default())
    });
    Ok(Value::Int(found.map_or(-1, |index| index as i64)))
}

fn index_of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    positions(args, 0..list(args)?.len())
}

fn last_index_of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    positions(args, (0..list(args)?.len()).rev())
}
