//! The mapping of claims to a user.

use nave_cel::{CompileError, EvaluationError, Expression, Input, Type};
use nave_machinery::user::UserInfo;
use nave_machinery::{Map, Value};
use serde_json::json;

use super::expression::{self, CLAIMS, USER};
use crate::config::{ClaimRule, JwtConfig, PrefixedClaim};
use crate::jwt::Claims;

/// The compiled claim mappings and rules of an issuer.
#[derive(Debug)]
pub(super) struct Mapping {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Expression),
}

#[derive(Debug)]
enum Rule {
    Claim { name: String, value: String },
    Expression(Expression, String),
}

impl Mapping {
    pub(super) fn new(config: &JwtConfig) -> Result<Self, CompileError> {
        let mappings = &config.claim_mappings;
        let uid = PrefixedClaim {
            claim: mappings.uid.claim.clone(),
            expression: mappings.uid.expression.clone(),
            prefix: None,
        };
        let extra = mappings.extra.iter().map(|extra| {
            Ok::<_, CompileError>((extra.key.clone(), compile_over_claims(&extra.value_expression)?))
        });
        let user = expression::user();
        let user_rules = config.user_validation_rules.iter().map(|rule| {
            let compiled = Expression::compile(&rule.expression, &user, &Type::Bool)?;
            Ok::<_, CompileError>(Rule::Expression(compiled, rule.message.clone()))
        });
        Ok(Self {
            username: Source::new(&mappings.username)?,
            groups: Source::new(&mappings.groups)?,
            uid: Source::new(&uid)?,
            extra: extra.collect::<Result<_, _>>()?,
            claim_rules: config.claim_validation_rules.iter().map(Rule::new).collect::<Result<_, _>>()?,
            user_rules: user_rules.collect::<Result<_, _>>()?,
        })
    }

    /// Maps the claims to a user.
    ///
    /// # Errors
    /// A claim is missing or has a wrong type, or a rule fails.
    pub(super) fn user(&self, claims: &Claims) -> Result<UserInfo, String> {
        let claims = claims.as_map();
        let all = Value::Object(claims.clone());
        let all = Input::new(CLAIMS, &all);
        let mut user = UserInfo {
            name: self.username(claims, &all)?,
            uid: single(self.uid.value(claims, &all)?, "uid")?,
            groups: several(self.groups.value(claims, &all)?, "groups")?,
            ..UserInfo::default()
        };
        for (key, expression) in &self.extra {
            let values = several(expression.evaluate(&all).map_err(error_message)?, "extra")?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        for rule in &self.claim_rules {
            rule.check(claims, &all)?;
        }
        if !self.user_rules.is_empty() {
            let value = json!({
                "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
            });
            let value = Input::new(USER, &value);
            for rule in &self.user_rules {
                rule.check(claims, &value)?;
            }
        }
        Ok(user)
    }

    fn username(&self, claims: &Map, all: &Input<'_>) -> Result<String, String> {
        // An email address that the token marks as unverified is refused as a user name.
        if let Source::Claim { name, .. } = &self.username
            && name == "email"
            && claims.get("email_verified").is_some_and(|verified| verified != &Value::Bool(true))
        {
            return Err("email not verified".to_owned());
        }
        let name = single(self.username.value(claims, all)?, "username")?;
        if name.is_empty() { Err("the username is empty".to_owned()) } else { Ok(name) }
    }
}

impl Source {
    fn new(mapping: &PrefixedClaim) -> Result<Self, CompileError> {
        if !mapping.expression.is_empty() {
            return Ok(Self::Expression(compile_over_claims(&mapping.expression)?));
        }
        if mapping.claim.is_empty() {
            return Ok(Self::Nothing);
        }
        let prefix = mapping.prefix.clone().unwrap_or_default();
        Ok(Self::Claim { name: mapping.claim.clone(), prefix })
    }

    /// Returns the value, with the prefix added to each string.
    fn value(&self, claims: &Map, all: &Input<'_>) -> Result<Value, String> {
        match self {
            Self::Nothing => Ok(Value::Null),
            Self::Expression(expression) => expression.evaluate(all).map_err(error_message),
            Self::Claim { name, prefix } => {
                let prefixed = |value: &Value| match value {
                    Value::String(text) if text.is_empty() => value.clone(),
                    Value::String(text) => format!("{prefix}{text}").into(),
                    other => other.clone(),
                };
                Ok(match claims.get(name) {
                    None => Value::Null,
                    Some(Value::Array(values)) => values.iter().map(prefixed).collect(),
                    Some(value) => prefixed(value),
                })
            }
        }
    }
}

impl Rule {
    fn new(rule: &ClaimRule) -> Result<Self, CompileError> {
        if rule.expression.is_empty() {
            return Ok(Self::Claim { name: rule.claim.clone(), value: rule.required_value.clone() });
        }
        let compiled = Expression::compile(&rule.expression, &expression::claims(), &Type::Bool)?;
        Ok(Self::Expression(compiled, rule.message.clone()))
    }

    /// Checks a required claim, or evaluates the expression.
    fn check(&self, claims: &Map, input: &Input<'_>) -> Result<(), String> {
        match self {
            Self::Claim { name, value: required } => match claims.get(name) {
                None => Err(format!("required claim {name} not present in ID token")),
                Some(Value::String(found)) if found == required => Ok(()),
                Some(_) => Err(format!("required claim {name} value does not match")),
            },
            Self::Expression(expression, message) => match expression
                .evaluate(input)
                .map_err(error_message)?
            {
                Value::Bool(true) => Ok(()),
                Value::Bool(false) if !message.is_empty() => Err(message.clone()),
                Value::Bool(false) => Err(format!("validation expression '{}' failed", expression.text())),
                _ => Err(format!("validation expression '{}' must return a bool", expression.text())),
            },
        }
    }
}

fn compile_over_claims(text: &str) -> Result<Expression, CompileError> {
    Expression::compile(text, &expression::claims(), &Type::Dyn)
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn error_message(error: EvaluationError) -> String {
    error.to_string()
}

/// Returns a string; empty for null.
fn single(value: Value, what: &str) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        _ => Err(format!("the {what} must be a string")),
    }
}

/// Returns a string or a list of strings as a list, without empty strings.
fn several(value: Value, what: &str) -> Result<Vec<String>, String> {
    let all = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text],
        Value::Array(values) => {
            let texts = values.into_iter().map(|value| single_text(value, what));
            texts.collect::<Result<_, _>>()?
        }
        _ => return Err(format!("the {what} must be a string or a list of strings")),
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

fn single_text(value: Value, what: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(format!("the {what} must be a string or a list of strings")),
    }
}
