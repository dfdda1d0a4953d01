//! A bound on what an evaluation may cost: each list and map that is gone through is paid for by its elements, before.

use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr};
use cel::{Context, ExecutionError, IdedExpr, Value};

/// What is put around the range of each comprehension. No expression can say it itself: `@` is in no name.
const SPEND: &str = "@spend";

/// An expression that pays.
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

/// Lets the expressions of a context go through so many elements.
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
        // Without it nothing that goes through a list can be evaluated.
        tracing::error!(%error, "expressions cannot be charged");
    }
}
