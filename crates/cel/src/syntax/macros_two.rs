//! Macros of comprehensions with two variables: index or key, and value.

use std::sync::Arc;

use super::ast::{Comprehension, Expr, Kind, Literal};
use super::macros::{ACCUMULATOR, Builder, MacroError, check_variable};

/// Expands `all`, `exists` and `existsOne`.
pub(super) fn quantifier(
    builder: &mut Builder<'_>,
    function: &str,
    range: Expr,
    args: Vec<Expr>,
) -> Result<Expr, MacroError> {
    let (var, var2) = variables(&args)?;
    let predicate = last(args);
    let (accu_init, condition, step, result) = builder.quantifier_parts(function, predicate);
    let accu_var = ACCUMULATOR.into();
    let var2 = Some(var2);
    Ok(builder.comprehension(Comprehension {
        range,
        var,
        var2,
        accu_var,
        accu_init,
        condition,
        step,
        result,
    }))
}

/// Expands `transformList`, `transformMap` and `transformMapEntry`.
pub(super) fn transform(
    builder: &mut Builder<'_>,
    function: &str,
    range: Expr,
    mut args: Vec<Expr>,
) -> Result<Expr, MacroError> {
    let (var, var2) = variables(&args)?;
    let filter = (args.len() == 4).then(|| args.remove(2));
    let transform = last(args);
    if function == "transformList" {
        return Ok(builder.collect(range, var, Some(var2), filter, transform));
    }
    let accu_init = builder.node(Kind::Map(Vec::new()));
    let condition = builder.literal(Literal::Bool(true));
    let mut insert = vec![builder.accumulator()];
    if function == "transformMap" {
        insert.push(builder.ident(&var));
    }
    insert.push(transform);
    let step = builder.call("cel.@mapInsert", insert);
    let step = builder.only_if(filter, step);
    let result = builder.accumulator();
    let accu_var = ACCUMULATOR.into();
    let var2 = Some(var2);
    Ok(builder.comprehension(Comprehension {
        range,
        var,
        var2,
        accu_var,
        accu_init,
        condition,
        step,
        result,
    }))
}

fn last(mut args: Vec<Expr>) -> Expr {
    args.pop().unwrap_or(Expr { id: 0, kind: Kind::Error })
}

fn variables(args: &[Expr]) -> Result<(Arc<str>, Arc<str>), MacroError> {
    let [first, second, ..] = args else { return Err((0, "argument must be a simple name".to_owned())) };
    let name = |expr: &Expr| match &expr.kind {
        Kind::Ident(name) => Ok(Arc::clone(name)),
        _ => Err((expr.id, "argument must be a simple name".to_owned())),
    };
    let (var, var2) = (name(first)?, name(second)?);
    if var == var2 {
        return Err((second.id, format!("duplicate variable name: {var}")));
    }
    check_variable(first.id, &var)?;
    check_variable(second.id, &var2)?;
    Ok((var, var2))
}
