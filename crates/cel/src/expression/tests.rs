use serde_json::{Value, json};

use super::*;

fn claims() -> Variable {
    Variable { name: "claims", ty: Type::map(Type::String, Type::Dyn) }
}

fn user() -> Variable {
    let texts = Type::list(Type::String);
    let extra = Type::map(Type::String, texts.clone());
    let fields = vec![("username", Type::String), ("groups", texts), ("extra", extra)];
    Variable { name: "user", ty: Type::object("kubernetes.UserInfo", fields) }
}

fn value(text: &str) -> Result<Value, String> {
    let input = json!({
        "sub": "alice", "email": "a@b.c", "verified": true, "n": 7, "half": 0.5, "groups": ["dev", "ops"],
        "nested": {"a.b": "x"}, "nothing": null,
    });
    let expression = Expression::compile(text, &claims(), &Type::Dyn).map_err(|error| error.to_string())?;
    let input = Input::new("claims", &input);
    expression.evaluate(&input).map_err(|error| error.to_string())
}

#[test]
fn evaluates_expressions_on_claims() {
    for (text, expected) in [
        ("claims.sub", json!("alice")),
        ("'user:' + claims.sub", json!("user:alice")),
        ("claims.groups.map(g, 'x:' + g)", json!(["x:dev", "x:ops"])),
        ("claims.groups.filter(g, g != 'dev')", json!(["ops"])),
        ("claims.nested['a.b']", json!("x")),
        ("has(claims.absent) ? claims.absent : 'none'", json!("none")),
        ("claims.?absent.orValue('none')", json!("none")),
        ("claims.?sub.orValue('none')", json!("alice")),
        ("claims[?'absent'].orValue('none')", json!("none")),
        ("claims.?nested['a.b'].hasValue()", json!(true)),
        ("optional.of(claims.sub).value()", json!("alice")),
        ("claims.verified == true && claims.n > 3", json!(true)),
        ("claims.email.split('@')[0].upperAscii()", json!("A")),
        ("claims.groups.exists(g, g == 'dev')", json!(true)),
        ("claims.groups.exists_one(g, g == 'dev') && claims.groups.all(g, size(g) == 3)", json!(true)),
        ("claims.sub.matches('^al')", json!(true)),
        ("claims.nothing == null", json!(true)),
        ("type(claims.groups) == list", json!(true)),
        ("claims.groups.join(',')", json!("dev,ops")),
        ("'%s-%d'.format([claims.sub, claims.n])", json!("alice-7")),
        ("string(claims.n) + 'x'", json!("7x")),
        ("{'a': claims.n}", json!({"a": 7})),
        ("claims.nested.all(key, key != '')", json!(true)),
        ("[claims.groups, dyn(['c'])].flatten()", json!(["dev", "ops", "c"])),
        ("-claims.n + 1 < 0", json!(true)),
        ("1 - claims.n", json!(-6)),
        ("claims.half + 0.5", json!(1.0)),
    ] {
        assert_eq!(value(text).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn fails_to_evaluate_without_a_value() {
    for text in ["claims.absent", "claims.sub + 1", "claims.sub.foo", "claims.n.exists(x, x == 1)"] {
        assert!(Expression::compile(text, &claims(), &Type::Dyn).is_ok(), "{text}");
        assert!(value(text).is_err(), "{text}: {:?}", value(text));
    }
}

#[test]
fn rejects_undeclared_names_and_mismatched_types() {
    for (variable, text, why) in [
        (claims(), "", "compilation failed: ERROR: <input>"),
        (claims(), "claims.sub +", "compilation failed: ERROR: <input>:1:"),
        (
            claims(),
            "nobody.sub",
            "<input>:1:1: undeclared reference to 'nobody' (in container '')\n | nobody.sub\n | ^",
        ),
        (claims(), "'a' == claims.foo()", "undeclared reference to 'foo' (in container '')"),
        (claims(), "claims.groups.all(g, g == h)", "<input>:1:27: undeclared reference to 'h'"),
        (claims(), "claims.groups.all(g, g == 'a') && g == 'b'", "undeclared reference to 'g'"),
        (
            claims(),
            "claims.sub.startsWith(1)",
            "found no matching overload for 'startsWith' applied to 'dyn.(int)'",
        ),
        (claims(), "'a' + 1", "found no matching overload for '_+_' applied to '(string, int)'"),
        (claims(), "'a'.size() == 'b'", "found no matching overload for '_==_' applied to '(int, string)'"),
        (claims(), "size(claims, 1)", "found no matching overload for 'size'"),
        (claims(), "startsWith('a')", "found no matching overload for 'startsWith' applied to '(string)'"),
        (claims(), "'a'.exists(x, true)", "expression of type 'string' cannot be range of a comprehension"),
        (claims(), "Thing{a: 1}", "undeclared reference to 'Thing'"),
        (claims(), "@spend(claims)", "compilation failed"),
        (user(), "claims.sub", "undeclared reference to 'claims'"),
        (user(), "user.name == ''", "undefined field 'name'"),
        (user(), "has(user.name)", "undefined field 'name'"),
        (user(), "user.?name.hasValue()", "undefined field 'name'"),
        (user(), "user.username.first", "type 'string' does not support field selection"),
        (user(), "1 in user.groups", "found no matching overload for '@in' applied to '(int, list(string))'"),
        (
            user(),
            "user.groups.exists(g, g > 1)",
            "found no matching overload for '_>_' applied to '(string, int)'",
        ),
        (user(), "user.extra['a'] == 'b'", "applied to '(list(string), string)'"),
    ] {
        let error = Expression::compile(text, &variable, &Type::Dyn).map(drop).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn checks_the_result_type() {
    let compile = |text| Expression::compile(text, &claims(), &Type::Bool).map(drop);
    for text in [
        "claims.verified == true",
        "!claims.verified",
        "claims.groups.all(g, g.startsWith('x'))",
        "claims.groups.exists(g, g == 'x') || has(claims.x)",
        "claims.exp - claims.nbf <= 86400",
        "claims.verified ? true : 'a' in claims.groups",
        "claims.?verified.orValue(false) == true",
        "true",
    ] {
        assert_eq!(compile(text), Ok(()), "{text}");
    }
    for (text, found) in [
        ("claims.verified", "dyn"),
        ("claims.verified ? true : claims.x", "dyn"),
        ("'a'", "string"),
        ("claims.groups.map(g, 'a')", "list(string)"),
        ("claims", "map(string, dyn)"),
        ("size(claims.groups)", "int"),
    ] {
        let error = compile(text).unwrap_err().to_string();
        assert_eq!(error, format!("must evaluate to bool but got {found}"), "{text}");
    }
}

#[test]
fn detects_fields_that_are_read() {
    let reads =
        |text, field| Expression::compile(text, &claims(), &Type::Dyn).unwrap().reads("claims", field);
    for text in [
        "claims.email",
        "claims['email']",
        "claims[?'email'].orValue('')",
        "claims.?email.orValue('')",
        "has(claims.email) ? 'a' : 'b'",
        "['a'].map(x, x + claims.email)[0]",
        "{'a': claims.email}.a",
    ] {
        assert!(reads(text, "email"), "{text}");
    }
    for text in
        ["claims.email_verified", "claims.my.email", "claims.sub + 'claims.email'", "claims['email' + 'x']"]
    {
        assert!(!reads(text, "email"), "{text}");
    }
}

#[test]
fn enforces_the_cost_limit() {
    let list: Vec<usize> = (0..2_000).collect();
    let input = json!({"l": list});
    let input = Input::new("claims", &input);
    let evaluate = |text| Expression::compile(text, &claims(), &Type::Dyn).unwrap().evaluate(&input);
    assert_eq!(evaluate("claims.l.all(x, x >= 0)").unwrap(), json!(true));
    assert_eq!(evaluate("claims.l.map(x, x + 1).filter(x, x > 1999)").unwrap(), json!([2000]));
    for text in [
        "claims.l.all(x, claims.l.all(y, claims.l.all(z, true)))",
        "claims.l.exists(x, claims.l.exists(y, x == -1))",
        "claims.l.map(x, claims.l.map(y, x + y)).size()",
        "claims.l.filter(x, claims.l.exists(y, y > 5000)).size()",
    ] {
        let error = evaluate(text).unwrap_err().to_string();
        assert!(error.contains("cost limit exceeded"), "{text}: {error}");
    }
}
