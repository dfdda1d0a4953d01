//! Cost limit of evaluations: before each iteration over a list or map, the number of its elements is charged.

use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr};
use cel::{Context, ExecutionError, IdedExpr, Value};

/// Function that wraps the range of each comprehension. Expressions cannot call it: `@` is not allowed in names.
const SPEND: &str = "@spend";

/// Returns the expression with charges added.
pub(crate) fn charged(mut expression: IdedExpr) -> IdedExpr {
    charge(&mut expression);
    expression
}

fn charge(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select(select) => charge(&mut select.operand),
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| charge(target));
            call.args.iter_mut().for_each(charge);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(charge),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| charge_entry(&mut entry.expr)),
        Expr::Struct(of) => of.entries.iter_mut().for_each(|entry| charge_entry(&mut entry.expr)),
        Expr::Comprehension(it) => {
            for part in
                [&mut it.iter_range, &mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result]
            {
                charge(part);
            }
            let range = std::mem::take(&mut it.iter_range);
            let id = range.id;
            let call = CallExpr { func_name: SPEND.to_owned(), target: None, args: vec![range] };
            it.iter_range = IdedExpr { id, expr: Expr::Call(call) };
        }
    }
}

fn charge_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => charge(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            charge(&mut entry.key);
            charge(&mut entry.value);
        }
    }
}

/// Limits the number of elements that the expressions of a context may iterate over.
pub(crate) fn limit(context: &mut Context<'_, '_>, elements: u64) {
    let left = AtomicU64::new(elements);
    let spend = move |range: Value| -> Result<Value, ExecutionError> {
        let cost = match &range {
            Value::List(list) => list.len(),
            Value::Map(map) => map.map.len(),
            _ => 0,
        } as u64;
        let paid = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        match paid {
            Ok(_) => Ok(range),
            Err(_) => Err(ExecutionError::function_error(SPEND, "actual cost limit exceeded")),
        }
    };
    if let Err(error) = context.add_function(SPEND, spend) {
        // Without the function, every expression with a comprehension fails to evaluate.
        tracing::error!(%error, "cannot register the CEL cost function");
    }
}
