//! Which requests a webhook is asked about: expressions in CEL over the review that it would get (upstream:
//! `apiserver/pkg/authorization/cel`).

use nave_cel::{CompileError, Expression, Input, Type, Variable};
use serde_json::{Map, Value, json};

use super::review;
use crate::Attributes;

/// Expressions, all of which must hold.
#[derive(Default)]
pub struct Conditions {
    expressions: Vec<Expression>,
}

/// An expression that could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cel evaluation error: {expression}: {why}")]
pub struct ConditionError {
    /// The expression.
    pub expression: String,
    /// What went wrong.
    pub why: String,
}

/// The variable that expressions speak of: the `spec` of the review.
const REQUEST: &str = "request";

impl Conditions {
    /// Adds an expression.
    ///
    /// # Errors
    /// It is none about the request that is true or false.
    pub fn add(&mut self, expression: &str) -> Result<(), CompileError> {
        let variable = Variable { name: REQUEST, ty: request_type() };
        self.expressions.push(Expression::compile(expression, &variable, &Type::Bool)?);
        Ok(())
    }

    /// Whether there are none, so that all requests match.
    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Whether all hold. One that does not hold decides, whatever errors others have.
    ///
    /// # Errors
    /// The first expression's that cannot be evaluated.
    pub(super) fn match_request(&self, attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        let failed =
            |expression: &str, why: String| ConditionError { expression: expression.to_owned(), why };
        let input = Input::new(REQUEST, &request(attributes));
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

/// What is known of the request before there is one.
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
        assert_eq!(ask(&[fails], &path).unwrap_err().expression, fails);
        assert_eq!(ask(&[fails, "false"], &path), Ok(false));
        assert_eq!(ask(&["false", fails], &path), Ok(false));
    }

    #[test]
    fn what_is_no_condition_about_the_request_is_refused() {
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
