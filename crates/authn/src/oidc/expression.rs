//! Expressions of the Common Expression Language over claims and users.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program};
use nave_machinery::Value;

/// The language as Kubernetes has it here: optionals and the functions of texts and lists.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists] {
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(%error, "an extension of the expression language is not there");
        }
    }
    Arc::new(env)
});

/// What expressions speak of: of a token's claims, or of the user made of them.
const VARIABLES: [&str; 2] = ["claims", "user"];

/// A parsed expression.
pub struct Expression {
    text: String,
    program: Program,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let program = ENVIRONMENT.compile(text).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it speaks of this variable and not of the other one there is. (The names that `map` and its like
    /// introduce cannot be told from undeclared ones here; a name that means nothing is an error when it is read.)
    ///
    /// # Errors
    /// The other one is read.
    pub fn check_variables(&self, variable: &str) -> Result<(), String> {
        let references = self.program.references();
        match VARIABLES.into_iter().find(|name| *name != variable && references.has_variable(name)) {
            Some(name) => Err(format!("undeclared reference to '{name}'")),
            None => Ok(()),
        }
    }

    /// Whether `claims.NAME` is read, in whatever way that is written.
    pub fn reads_claim(&self, name: &str) -> bool {
        let part = |at: usize| self.text.as_bytes().get(at).copied();
        let is_name =
            |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let mut places = self.text.match_indices(name);
        self.text.contains("claims")
            && places
                .any(|(at, _)| !is_name(at.checked_sub(1).and_then(part)) && !is_name(part(at + name.len())))
    }

    /// The value for one variable.
    ///
    /// # Errors
    /// It has none, or one that JSON cannot say.
    pub fn evaluate(&self, variable: &str, value: &Value) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable(variable, value).map_err(|error| error.to_string())?;
        let found = self.program.execute(&context).map_err(|error| error.to_string())?;
        found.json().map_err(|_| "the value of the expression is not of a kind that can be used".to_owned())
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Result<Value, String> {
        let claims = json!({
            "sub": "alice", "email": "a@b.c", "verified": true, "n": 7, "groups": ["dev", "ops"],
            "nested": {"a.b": "x"}, "nothing": null,
        });
        Expression::parse(text)?.evaluate("claims", &claims)
    }

    #[test]
    fn claims_are_read_and_combined() {
        for (text, expected) in [
            ("claims.sub", json!("alice")),
            ("'user:' + claims.sub", json!("user:alice")),
            ("claims.groups.map(g, 'x:' + g)", json!(["x:dev", "x:ops"])),
            ("claims.nested['a.b']", json!("x")),
            ("has(claims.absent) ? claims.absent : 'none'", json!("none")),
            ("claims.?absent.orValue('none')", json!("none")),
            ("claims.?sub.orValue('none')", json!("alice")),
            ("claims.verified == true && claims.n > 3", json!(true)),
            ("claims.email.split('@')[0].upperAscii()", json!("A")),
            ("claims.groups.exists(g, g == 'dev')", json!(true)),
            ("claims.sub.matches('^al')", json!(true)),
            ("claims.nothing == null", json!(true)),
        ] {
            assert_eq!(value(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_an_error() {
        for text in
            ["claims.absent", "claims.sub +", "claims.sub + 1", "nobody.sub", "claims.sub.unknown()", ""]
        {
            assert!(value(text).is_err(), "{text}: {:?}", value(text));
        }
    }

    #[test]
    fn what_is_read_is_known() {
        let parsed = |text| Expression::parse(text).unwrap();
        assert!(parsed("claims.a && has(claims.b)").check_variables("claims").is_ok());
        assert!(parsed("claims.groups.all(g, g != '')").check_variables("claims").is_ok());
        assert!(parsed("user.name").check_variables("claims").is_err());
        for text in ["claims.email", "claims['email']", "claims.?email.orValue('')"] {
            assert!(parsed(text).reads_claim("email"), "{text}");
        }
        for text in ["claims.email_verified", "claims.myemail", "claims.sub"] {
            assert!(!parsed(text).reads_claim("email"), "{text}");
        }
    }
}
