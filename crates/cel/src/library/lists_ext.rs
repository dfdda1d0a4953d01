//! cel-go's list extension, version 3, and sets.

use std::cmp::Ordering;

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{List, Value, compare, equal, is_ordered};

/// The list extension.
pub(super) const LIBRARY: Library = Library {
    since: 34,
    patch: false,
    overloads: &[
        ("list_slice", "list(T)::slice(int, int) list(T)", Some(slice)),
        ("list_flatten", "list(list(T))::flatten() list(T)", Some(flatten)),
        ("list_flatten_int", "list(dyn)::flatten(int) list(dyn)", Some(flatten)),
        ("list_int_sort", "list(int)::sort() list(int)", None),
        ("list_uint_sort", "list(uint)::sort() list(uint)", None),
        ("list_double_sort", "list(double)::sort() list(double)", None),
        ("list_bool_sort", "list(bool)::sort() list(bool)", None),
        ("list_google.protobuf.Duration_sort", "list(duration)::sort() list(duration)", None),
        ("list_google.protobuf.Timestamp_sort", "list(timestamp)::sort() list(timestamp)", None),
        ("list_string_sort", "list(string)::sort() list(string)", None),
        ("list_bytes_sort", "list(bytes)::sort() list(bytes)", None),
        ("list_int_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(int)) list(T)", None),
        ("list_uint_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(uint)) list(T)", None),
        ("list_double_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(double)) list(T)", None),
        ("list_bool_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(bool)) list(T)", None),
        (
            "list_google.protobuf.Duration_sortByAssociatedKeys",
            "list(T)::@sortByAssociatedKeys(list(duration)) list(T)",
            None,
        ),
        (
            "list_google.protobuf.Timestamp_sortByAssociatedKeys",
            "list(T)::@sortByAssociatedKeys(list(timestamp)) list(T)",
            None,
        ),
        ("list_string_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(string)) list(T)", None),
        ("list_bytes_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(bytes)) list(T)", None),
        ("lists_range", "lists.range(int) list(int)", Some(range)),
        ("list_reverse", "list(T)::reverse() list(T)", Some(reverse)),
        ("list_distinct", "list(T)::distinct() list(T)", Some(distinct)),
    ],
    singletons: &[("sort", sort), ("@sortByAssociatedKeys", sort_by_keys)],
    unguarded: &["flatten"],
};

/// Functions on lists as sets.
pub(super) const SETS: Library = Library {
    since: 29,
    patch: false,
    overloads: &[
        ("list_sets_contains_list", "sets.contains(list(T), list(T)) bool", Some(sets_contains)),
        ("list_sets_equivalent_list", "sets.equivalent(list(T), list(T)) bool", Some(sets_equivalent)),
        ("list_sets_intersects_list", "sets.intersects(list(T), list(T)) bool", Some(sets_intersects)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// The cost of creating a list, plus the cost of a call.
const CREATION_COST: u64 = 11;

fn allocate(context: &Context<'_>, items: usize) -> Result<(), Failure> {
    context.allocate(items.saturating_mul(size_of::<Value<'_>>()))
}

fn slice<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(Failure::overload());
    };
    let fail = |why: String| Err(Failure::new(format!("cannot slice({start}, {end}), {why}")));
    if *start < 0 || *end < 0 {
        return fail("negative indexes not supported".to_owned());
    }
    if start > end {
        return fail("start index must be less than or equal to end index".to_owned());
    }
    if (list.len() as i64) < *end {
        return fail(format!("list is length {}", list.len()));
    }
    let (start, end) = (*start as usize, *end as usize);
    allocate(context, end - start)?;
    let items = (start..end).filter_map(|index| list.get(index)).collect::<Result<_, _>>()?;
    Ok(Value::list(items))
}

fn flatten<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        [Value::List(_), other] => {
            return Err(Failure::new(format!("no such overload: list.flatten({})", other.type_name())));
        }
        [other, ..] => {
            return Err(Failure::new(format!("no such overload: {}.flatten()", other.type_name())));
        }
        [] => return Err(Failure::overload()),
    };
    if depth < 0 {
        return Err(Failure::new("level must be non-negative"));
    }
    let mut items = Vec::new();
    flatten_into(context, list, depth.min(1000), &mut items)?;
    Ok(Value::list(items))
}

fn flatten_into<'a>(
    context: &Context<'a>,
    list: &List<'a>,
    depth: i64,
    items: &mut Vec<Value<'a>>,
) -> Result<(), Failure> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(context, &inner, depth - 1, items)?,
            item => {
                allocate(context, 1)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

fn sort<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::List(list)] => sorted(context, list, list),
        [other] => Err(Failure::new(match other {
            Value::String(_) | Value::Timestamp(_) | Value::Duration(_) => "no such overload",
            _ => "no such overload: sort",
        })),
        _ => Err(Failure::overload()),
    }
}

fn sort_by_keys<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::List(list), Value::List(keys)] => sorted(context, list, keys),
        _ => Err(Failure::new("no such overload: @sortByAssociatedKeys")),
    }
}

fn sorted<'a>(context: &Context<'a>, list: &List<'a>, keys: &List<'a>) -> Result<Value<'a>, Failure> {
    if list.len() != keys.len() {
        return Err(Failure::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, \
             but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    allocate(context, list.len() * 2)?;
    let keys = keys.values()?;
    let Some(first) = keys.first() else { return Ok(Value::List(list.clone())) };
    if !is_ordered(first) {
        return Err(Failure::new("list elements must be comparable"));
    }
    if keys.iter().any(|key| key.type_name() != first.type_name()) {
        return Err(Failure::new("list elements must have the same type"));
    }
    let mut items: Vec<_> = keys.into_iter().zip(list.values()?).collect();
    items.sort_by(|(a, _), (b, _)| compare(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(items.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Int(count)] = args else { return Err(Failure::overload()) };
    // The cost of the call is the number of items, so the call ends early if they would exceed the limit.
    context.reserve_cost(((*count).max(0) as u64).saturating_add(CREATION_COST))?;
    allocate(context, usize::try_from(*count).unwrap_or_default())?;
    Ok(Value::list((0..*count).map(Value::Int).collect()))
}

fn reverse<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::List(list)] = args else { return Err(Failure::overload()) };
    allocate(context, list.len())?;
    let mut items = list.values()?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::List(list)] = args else { return Err(Failure::overload()) };
    // The call costs at least twice the square of the size.
    let size = list.len() as u64;
    context.reserve_cost(size.saturating_mul(size).saturating_mul(2).saturating_add(CREATION_COST))?;
    allocate(context, list.len())?;
    let mut unique: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !unique.iter().any(|seen| equal(&item, seen).unwrap_or_default()) {
            unique.push(item);
        }
    }
    Ok(Value::list(unique))
}

fn two<'v, 'a>(
    context: &Context<'a>,
    args: &'v [Value<'a>],
) -> Result<(&'v List<'a>, &'v List<'a>), Failure> {
    match args {
        [Value::List(a), Value::List(b)] => {
            context.reserve_cost((a.len() as u64).saturating_mul(b.len() as u64).saturating_add(1))?;
            Ok((a, b))
        }
        _ => Err(Failure::overload()),
    }
}

fn contains_all<'a>(list: &List<'a>, wanted: &List<'a>) -> Result<bool, Failure> {
    for item in wanted.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sets_contains<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (list, wanted) = two(context, args)?;
    contains_all(list, wanted).map(Value::Bool)
}

fn sets_equivalent<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (a, b) = two(context, args)?;
    Ok(Value::Bool(contains_all(a, b)? && contains_all(b, a)?))
}

fn sets_intersects<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (a, b) = two(context, args)?;
    for item in a.iter() {
        if b.contains(&item?).unwrap_or_default() {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
