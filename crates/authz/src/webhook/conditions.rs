//! Which requests a webhook is asked about: expressions in CEL over the review that it would get (upstream:
//! `apiserver/pkg/authorization/cel`).

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, IdedExpr, Program, Value as CelValue};
use serde_json::{Map, Value, json};

use super::review;
use crate::Attributes;

/// Expressions, all of which must hold.
#[derive(Default)]
pub struct Conditions {
    programs: Vec<(String, Program)>,
}

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is not CEL.
    #[error("compilation failed: {0}")]
    Compilation(String),
    /// It speaks of something else than the request.
    #[error("compilation failed: undeclared reference to '{0}'")]
    Undeclared(String),
    /// Its evaluation failed.
    #[error("cel evaluation error: {expression}: {why}")]
    Evaluation {
        /// The expression.
        expression: String,
        /// What went wrong.
        why: String,
    },
}

/// The variable that expressions speak of: the `spec` of the review.
const REQUEST: &str = "request";

impl Conditions {
    /// Adds an expression.
    ///
    /// # Errors
    /// [`ConditionError`], but for evaluation.
    pub fn add(&mut self, expression: &str) -> Result<(), ConditionError> {
        let program = Program::compile(expression);
        let program = program.map_err(|error| ConditionError::Compilation(error.to_string()))?;
        if let Some(other) = undeclared(program.expression(), &mut vec![REQUEST]) {
            return Err(ConditionError::Undeclared(other.to_owned()));
        }
        self.programs.push((expression.to_owned(), program));
        Ok(())
    }

    /// Whether there are none, so that all requests match.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Whether all hold. One that does not hold decides, whatever errors others have.
    ///
    /// # Errors
    /// The first expression's that cannot be evaluated or is neither true nor false.
    pub(super) fn match_request(&self, attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        let mut context = Context::default();
        let failed = |expression: &str, why: String| ConditionError::Evaluation {
            expression: expression.to_owned(),
            why,
        };
        if let Err(error) = context.add_variable(REQUEST, request(attributes)) {
            return Err(failed(REQUEST, error.to_string()));
        }
        let mut error = None;
        for (expression, program) in &self.programs {
            match program.execute(&context) {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return Ok(false),
                Ok(_) => {
                    error.get_or_insert_with(|| failed(expression, "the outcome is no bool".to_owned()));
                }
                Err(why) => {
                    error.get_or_insert_with(|| failed(expression, why.to_string()));
                }
            }
        }
        error.map_or(Ok(true), Err)
    }
}

/// A variable that is used where it is not in `scope`.
fn undeclared<'e>(expression: &'e IdedExpr, scope: &mut Vec<&'e str>) -> Option<&'e str> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => None,
        Expr::Ident(name) => (!name.starts_with('@') && !scope.contains(&name.as_str())).then_some(name),
        Expr::Select(select) => undeclared(&select.operand, scope),
        Expr::Call(call) => any(call.target.as_deref().into_iter().chain(&call.args), scope),
        Expr::List(list) => any(&list.elements, scope),
        Expr::Map(map) => any(map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)), scope),
        Expr::Struct(fields) => any(fields.entries.iter().flat_map(|entry| entry_parts(&entry.expr)), scope),
        Expr::Comprehension(it) => {
            if let Some(name) = undeclared(&it.iter_range, scope).or_else(|| undeclared(&it.accu_init, scope))
            {
                return Some(name);
            }
            let depth = scope.len();
            scope.extend([it.iter_var.as_str(), it.accu_var.as_str()]);
            scope.extend(it.iter_var2.as_deref());
            let found = any([&it.loop_cond, &it.loop_step, &it.result], scope);
            scope.truncate(depth);
            found
        }
    }
}

fn any<'e>(parts: impl IntoIterator<Item = &'e IdedExpr>, scope: &mut Vec<&'e str>) -> Option<&'e str> {
    parts.into_iter().find_map(|part| undeclared(part, scope))
}

fn entry_parts(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let (key, value) = match entry {
        EntryExpr::StructField(field) => (None, &field.value),
        EntryExpr::MapEntry(entry) => (Some(&entry.key), &entry.value),
    };
    key.into_iter().chain([value])
}

/// The `spec` of a v1 review with all texts, empty ones too, so that expressions need not ask for their presence.
fn request(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    if attributes.is_resource_request() {
        let texts =
            review::parts(attributes).into_iter().map(|(field, text)| (field.to_owned(), json!(text)));
        let mut asked: Map<String, Value> = texts.collect();
        review::selectors(&mut asked, attributes);
        spec["resourceAttributes"] = Value::Object(asked);
    } else {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
    }
    spec
}

#[cfg(test)]
mod tests {
    use nave_machinery::user::UserInfo;

    use super::*;

    fn ask(expressions: &[&str], attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        let mut conditions = Conditions::default();
        for expression in expressions {
            conditions.add(expression).unwrap();
        }
        conditions.match_request(attributes)
    }

    #[test]
    fn all_conditions_must_hold() {
        let user = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
        let pods =
            Attributes { verb: "get", resource: "pods", namespace: "kube-system", ..Attributes::of(&user) };
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::of(&user) };
        for (expressions, on_pods, on_path) in [
            (&["has(request.resourceAttributes)"][..], true, false),
            (&["'g' in request.groups"], true, true),
            (&["!('system:masters' in request.groups)", "request.user == 'u'"], true, true),
            (&["request.user.startsWith('x')"], false, false),
            (
                &["has(request.resourceAttributes) && request.resourceAttributes.namespace == 'kube-system'"],
                true,
                false,
            ),
            (&["has(request.resourceAttributes) ? request.resourceAttributes.name == '' : true"], true, true),
            (&["request.uid == ''", "request.groups.exists(g, g.matches('^g$'))"], true, true),
            (&["size(request.groups) == 1"], true, true),
        ] {
            assert_eq!(ask(expressions, &pods), Ok(on_pods), "{expressions:?}");
            assert_eq!(ask(expressions, &path), Ok(on_path), "{expressions:?}");
        }
    }

    #[test]
    fn one_that_does_not_hold_decides_whatever_others_say() {
        let user = UserInfo::default();
        let path = Attributes { verb: "get", path: "/", ..Attributes::of(&user) };
        let fails = "request.resourceAttributes.verb == 'get'";
        assert!(matches!(ask(&[fails], &path), Err(ConditionError::Evaluation { .. })));
        assert!(matches!(ask(&["request.user"], &path), Err(ConditionError::Evaluation { .. })));
        assert_eq!(ask(&[fails, "false"], &path), Ok(false));
        assert_eq!(ask(&["false", fails], &path), Ok(false));
    }

    #[test]
    fn what_is_no_expression_about_the_request_is_refused() {
        let mut conditions = Conditions::default();
        assert!(matches!(conditions.add("request."), Err(ConditionError::Compilation(_))));
        for undeclared in
            ["object.user == ''", "request.groups.all(g, object.x == g)", "{'a': [object]} == {}"]
        {
            assert_eq!(conditions.add(undeclared), Err(ConditionError::Undeclared("object".into())));
        }
        assert!(conditions.is_empty());
    }
}
