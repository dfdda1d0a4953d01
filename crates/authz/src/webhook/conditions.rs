//! Match conditions of a webhook: CEL expressions over the review to be sent (upstream:
//! `apiserver/pkg/authorization/cel`).

use nave_cel::{CompileError, Expression, Input, Type, Variable};
use serde_json::{Map, Value, json};

use super::review;
use crate::Attributes;

/// CEL expressions. A request matches if all of them are true.
#[derive(Default)]
pub struct Conditions {
    expressions: Vec<Expression>,
}

/// The error for an expression that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cel evaluation error: {expression}: {why}")]
pub struct ConditionError {
    /// The expression.
    pub expression: String,
    /// The evaluation error.
    pub why: String,
}

/// The variable of the expressions: the `spec` of the review.
const REQUEST: &str = "request";

impl Conditions {
    /// Adds an expression.
    ///
    /// # Errors
    /// The expression does not compile, or is not a boolean.
    pub fn add(&mut self, expression: &str) -> Result<(), CompileError> {
        let variable = Variable { name: REQUEST, ty: request_type() };
        self.expressions.push(Expression::compile(expression, &variable, &Type::Bool)?);
        Ok(())
    }

    /// Returns whether the list of conditions is empty, so that all requests match.
    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Returns whether all conditions are true. If any condition is false, errors in other conditions are ignored.
    ///
    /// # Errors
    /// The first evaluation error, if no condition is false.
    pub(super) fn match_request(&self, attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        let failed =
            |expression: &str, why: String| ConditionError { expression: expression.to_owned(), why };
        let request = request(attributes);
        let input = Input::new(REQUEST, &request);
        let mut error = None;
        for expression in &self.expressions {
            match expression.evaluate(&input) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => {
                    error.get_or_insert_with(|| failed(expression.text(), "the outcome is no bool".into()));
                }
                Err(why) => {
                    error.get_or_insert_with(|| failed(expression.text(), why.to_string()));
                }
            }
        }
        error.map_or(Ok(true), Err)
    }
}

/// The static type of `request`.
fn request_type() -> Type {
    let texts = |names: &[&'static str]| names.iter().map(|name| (*name, Type::String)).collect::<Vec<_>>();
    let list = || Type::list(Type::String);
    let mut requirement = texts(&["key", "operator"]);
    requirement.push(("values", list()));
    let requirement = Type::object("kubernetes.SelectorRequirement", requirement);
    let selector = |name| {
        let fields = vec![("rawSelector", Type::String), ("requirements", Type::list(requirement.clone()))];
        Type::object(name, fields)
    };
    let mut resource = texts(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    resource.push(("fieldSelector", selector("kubernetes.FieldSelectorAttributes")));
    resource.push(("labelSelector", selector("kubernetes.LabelSelectorAttributes")));
    let mut spec = texts(&["user", "uid"]);
    spec.extend([
        ("groups", list()),
        ("extra", Type::map(Type::String, list())),
        ("resourceAttributes", Type::object("kubernetes.ResourceAttributes", resource)),
        ("nonResourceAttributes", Type::object("kubernetes.NonResourceAttributes", texts(&["path", "verb"]))),
    ]);
    Type::object("kubernetes.SubjectAccessReviewSpec", spec)
}

/// Returns the `spec` of a v1 review. It includes empty strings, so that expressions need no presence checks.
fn request(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    if attributes.is_resource_request() {
        let texts =
            review::parts(attributes).into_iter().map(|(field, text)| (field.to_owned(), json!(text)));
        let mut fields: Map<String, Value> = texts.collect();
        review::selectors(&mut fields, attributes);
        spec["resourceAttributes"] = Value::Object(fields);
    } else {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
    }
    spec
}

#[cfg(test)]
mod tests {
    use nave_machinery::user::UserInfo;

    use super::*;

    fn matches(expressions: &[&str], attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        let mut conditions = Conditions::default();
        for expression in expressions {
            conditions.add(expression).unwrap();
        }
        conditions.match_request(attributes)
    }

    #[test]
    fn all_conditions_must_hold() {
        let user = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
        let pods = Attributes {
            verb: "get",
            resource: "pods",
            namespace: "kube-system",
            ..Attributes::for_user(&user)
        };
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::for_user(&user) };
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
            assert_eq!(matches(expressions, &pods), Ok(on_pods), "{expressions:?}");
            assert_eq!(matches(expressions, &path), Ok(on_path), "{expressions:?}");
        }
    }

    #[test]
    fn false_condition_decides_despite_errors() {
        let user = UserInfo::default();
        let path = Attributes { verb: "get", path: "/", ..Attributes::for_user(&user) };
        let fails = "request.resourceAttributes.verb == 'get'";
        assert_eq!(matches(&[fails], &path).unwrap_err().expression, fails);
        assert_eq!(matches(&[fails, "false"], &path), Ok(false));
        assert_eq!(matches(&["false", fails], &path), Ok(false));
    }

    #[test]
    fn rejects_invalid_conditions() {
        let mut conditions = Conditions::default();
        for (expression, why) in [
            ("request.", "compilation failed: ERROR"),
            ("object.user == ''", "undeclared reference to 'object'"),
            ("request.groups.all(g, object.x == g)", "undeclared reference to 'object'"),
            ("request.username == ''", "undefined field 'username'"),
            (
                "request.resourceAttributes.fieldSelector.requirements.exists(r, r.value == '')",
                "undefined field",
            ),
            ("request.user", "must evaluate to bool but got string"),
            ("request.user == 1", "no matching overload for '_==_' applied to '(string, int)'"),
        ] {
            let error = conditions.add(expression).unwrap_err().to_string();
            assert!(error.contains(why), "{expression}: {error}");
        }
        assert!(conditions.is_empty());
    }
}
