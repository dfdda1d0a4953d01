//! Properties of the whole engine.

use proptest::prelude::*;
use serde_json::json;

use crate::rules::{Validator, check};
use crate::{Activation, Ast, Bounds, Decl, Env, Failure, PER_CALL_LIMIT, SizeEstimator, Type};

fn env() -> Env {
    Env::default()
        .with("x", Type::Dyn)
        .with("i", Type::Int)
        .with("s", Type::String)
        .with("l", Type::list(Type::Int))
        .with("m", Type::map(Type::String, Type::Int))
}

/// The sizes of the values that the tests use.
struct Sizes;

impl SizeEstimator for Sizes {
    fn estimate_size(&self, path: &[String], _: &Type) -> Option<Bounds> {
        let max = match path.join(".").as_str() {
            "s" => 5,
            "l" => 3,
            "m" => 2,
            "m.@keys" => 1,
            _ => return None,
        };
        Some(Bounds { min: 0, max })
    }
}

/// Generates expressions with typed parts only, so that estimates are bounds.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("i".to_owned()),
        Just("7".to_owned()),
        Just("l[0]".to_owned()),
        Just("size(s)".to_owned()),
        Just("l.size()".to_owned()),
        Just("m.a".to_owned()),
        Just("s.indexOf('b')".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} - {b} * 2)")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} < {b} && s.startsWith('a') ? {b} : {c})")),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| format!("l.map(e, e + {a}).filter(e, e > {b}).size()")),
            inner.clone().prop_map(|a| format!("(l.exists(e, e == {a}) || m.all(k, m[k] > {a}) ? 1 : 2)")),
            inner.prop_map(|a| format!("size(s.replace('a', 'xy') + string({a}))")),
        ]
    })
}

proptest! {
    #[test]
    fn typed_expressions_check_and_cost_no_more_than_estimated(text in expression()) {
        let ast = Ast::compile(&text, &env()).map_err(|issues| TestCaseError::fail(issues.to_string()))?;
        prop_assert_eq!(ast.output_type(), &Type::Int);
        let bounds = ast.estimate(&Sizes);
        let program = ast.program().map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        let (i, s, l, m) = (json!(3), json!("abcab"), json!([1, 2, 3]), json!({"a": 1, "b": 2}));
        let activation = Activation::new().with("i", &i).with("s", &s).with("l", &l).with("m", &m);
        let outcome = program.evaluate(&activation, PER_CALL_LIMIT);
        match outcome.json() {
            Ok(value) => prop_assert!(value.is_some_and(|it| it.is_i64())),
            Err(failure) => prop_assert!(!failure.to_string().contains("overload"), "{}: {}", text, failure),
        }
        prop_assert!(outcome.cost <= bounds.max, "{}: {} > {}", text, outcome.cost, bounds.max);
    }

    #[test]
    fn evaluation_ends_within_its_cost(text in expression(), limit in 0u64..40) {
        let ast = Ast::compile(&text, &env()).map_err(|issues| TestCaseError::fail(issues.to_string()))?;
        let program = ast.program().map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        let (i, s, l, m) = (json!(3), json!("abcab"), json!([1, 2, 3]), json!({"a": 1, "b": 2}));
        let activation = Activation::new().with("i", &i).with("s", &s).with("l", &l).with("m", &m);
        let full = program.evaluate(&activation, PER_CALL_LIMIT);
        let limited = program.evaluate(&activation, limit);
        if full.cost > limit {
            prop_assert_eq!(limited.json(), Err(Failure::Cost));
        } else {
            prop_assert_eq!(limited.json(), full.json());
            prop_assert_eq!(limited.cost, full.cost);
        }
    }

    #[test]
    fn any_text_parses_or_fails(text in "[ -~é\\n]{0,60}") {
        if let Err(issues) = Ast::compile(&text, &env()) {
            prop_assert!(!issues.list.is_empty());
        }
    }

    #[test]
    fn any_tokens_parse_or_fail(
        tokens in prop::collection::vec(
            prop_oneof![
                Just("("), Just(")"), Just("["), Just("]"), Just("{"), Just("}"), Just("."), Just(","), Just("?"),
                Just(":"), Just("-"), Just("!"), Just("=="), Just("in"), Just("&&"), Just("i"), Just("l"),
                Just("map"), Just("has"), Just("'a'"), Just("1"), Just("u"), Just("`a`"),
            ],
            0..20,
        )
    ) {
        let _ = Ast::compile(&tokens.join(" "), &env());
        let _ = Ast::compile(&tokens.concat(), &env());
    }
}

/// Runs on a thread with the stack size of the server's threads.
fn on_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

#[test]
fn nested_expressions_are_bounded() {
    on_small_stack(|| {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("l.map(e, ", ")"), ("{1: ", "}"), ("dyn(", ")"), ("-(", ")")]
        {
            for depth in [50, 240, 300, 10_000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                if let Ok(ast) = Ast::compile(&text, &env()) {
                    let _ = ast.estimate(&Sizes);
                    let _ = ast.program().map(|program| program.evaluate(&Activation::new(), 1000).cost);
                }
            }
        }
        for (first, part) in
            [("i", " + i"), ("x", ".a"), ("x", "[0]"), ("true", " && true"), ("true", " ? true : true")]
        {
            for count in [100, 249, 260, 5_000] {
                let text = format!("{first}{}", part.repeat(count));
                let _ = Ast::compile(&text, &env()).map(|ast| ast.estimate(&Sizes));
            }
        }
    });
}

#[test]
fn copies_of_macros_are_bounded() {
    let text = format!("optional.of(1){}", ".optMap(v, v)".repeat(100));
    let error = Ast::compile(&text, &env()).map(drop).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn memory_is_bounded() {
    let text = "'aa'.replace('', s).replace('', s).replace('', s).replace('', s).replace('', s).size()";
    let ast = Ast::compile(text, &env()).unwrap();
    let (program, s) = (ast.program().unwrap(), json!("x".repeat(100)));
    let outcome = program.evaluate(&Activation::new().with("s", &s), u64::MAX);
    assert_eq!(outcome.json(), Err(Failure::Memory));
}

#[test]
fn policies_evaluate_variables_once_and_when_read() {
    use crate::policies::{PolicyCompiler, PolicyInput, PolicyRun};

    let mut compiler = PolicyCompiler::new(35, false);
    assert_eq!(compiler.declare("count", "object.items.size()"), Ok(Type::Int));
    assert_eq!(compiler.declare("double", "variables.count * 2"), Ok(Type::Int));
    assert_eq!(compiler.declare("broken", "object.absent.size()"), Ok(Type::Int));
    assert!(compiler.compile("variables.later", &[]).unwrap_err().contains("undefined field 'later'"));
    let unknown = compiler.compile("authorizer.later", &[]).unwrap_err();
    assert!(
        unknown.contains("unexpected failed resolution of 'kubernetes.authorization.Authorizer'"),
        "{unknown}"
    );
    assert!(compiler.compile("1", &[Type::Bool]).unwrap_err().contains("must evaluate to bool but got int"));
    let compile = |text| compiler.compile(text, &[Type::Bool]).unwrap();
    let [double, both, broken] =
        ["variables.double == 4", "variables.double == variables.count * 2", "variables.broken == 1"]
            .map(compile);
    let variables = compiler.into_variables();
    let (object, none) = (json!({"items": [1, 2]}), json!(null));
    let input =
        PolicyInput { object: &object, old_object: &none, request: &none, namespace: &none, params: None };
    let run = PolicyRun::new(&variables, &input, crate::ResourceCheck::default(), &crate::NoAuthorizer);
    assert_eq!(run.evaluate(&double), (Ok(Some(json!(true))), 9));
    assert_eq!(run.evaluate(&both), (Ok(Some(json!(true))), 6));
    let (result, _) = run.evaluate(&broken);
    assert!(result.unwrap_err().to_string().contains("\"broken\" fails to evaluate: no such key: absent"));
}

#[test]
fn creates_well_known_messages() {
    let json = |text: &str| {
        let ast = Ast::compile(text, &Env::default()).map_err(|issues| issues.to_string())?;
        let program = ast.program().map_err(|failure| failure.to_string())?;
        program.evaluate(&Activation::new(), PER_CALL_LIMIT).json().map_err(|failure| failure.to_string())
    };
    for (text, value) in [
        ("google.protobuf.Int32Value{value: 5} + 1", json!(6)),
        ("google.protobuf.StringValue{} == ''", json!(true)),
        ("google.protobuf.Duration{seconds: 90} == duration('90s')", json!(true)),
        ("google.protobuf.Value{list_value: [1]}", json!([1])),
        ("google.protobuf.NullValue.NULL_VALUE", json!(0)),
    ] {
        assert_eq!(json(text), Ok(Some(value)), "{text}");
    }
    for text in ["google.protobuf.Int32Value{value: 'a'}", "google.protobuf.Any{}", "google.protobuf.Nope{}"]
    {
        assert!(json(text).is_err(), "{text}");
    }
}

#[test]
fn checks_rules_of_definitions_and_objects() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer"}, "max": {"type": "integer"},
            "names": {"type": "array", "maxItems": 3, "items": {
                "type": "string", "maxLength": 5,
                "x-kubernetes-validations": [{"rule": "self != 'bad'", "reason": "FieldValueForbidden"}],
            }},
        },
        "x-kubernetes-validations": [
            {"rule": "self.replicas <= self.max", "messageExpression": "'at most ' + string(self.max)", "fieldPath": ".replicas"},
            {"rule": "self.max >= oldSelf.max"},
        ],
    }}});
    let report = check(&schema, "schema", false);
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert!(errors[0].contains("estimated messageExpression cost exceeds budget"), "{errors:?}");
    assert_eq!(
        report.rules.iter().map(|rule| rule.cost).collect::<Vec<_>>(),
        [6, 5, 5],
        "{:?}",
        report.rules
    );
    let validator = Validator::new(&schema);
    let shown = |object: &serde_json::Value, old: Option<&serde_json::Value>| {
        let validation = validator.validate(object, old);
        let show =
            |errors: &[crate::rules::RuleError]| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        (show(&validation.errors), show(&validation.warnings))
    };
    let object = json!({"spec": {"replicas": 5, "max": 3, "names": ["ok", "bad"]}});
    let (errors, warnings) = shown(&object, None);
    assert_eq!(
        errors,
        ["spec.replicas: Invalid value: at most 3", "spec.names[1]: Forbidden: failed rule: self != 'bad'"]
    );
    assert!(warnings.is_empty());
    let newer = json!({"spec": {"replicas": 5, "max": 2, "names": ["ok", "bad"]}});
    let (errors, warnings) = shown(&newer, Some(&object));
    assert_eq!(
        errors,
        [
            "spec.replicas: Invalid value: at most 2",
            "spec: Invalid value: failed rule: self.max >= oldSelf.max"
        ]
    );
    assert_eq!(warnings, ["spec.names[1]: Forbidden: failed rule: self != 'bad'"]);
}

/// A rule that is not well-formed keeps the rules beside it and above it from being reported and counted.
#[test]
fn counts_no_costs_above_malformed_rules() {
    let expensive = json!({"rule": "self.names.all(x, self.names.all(y, x.contains(y)))"});
    let broken = json!({"rule": "true ||\nfalse"});
    let names = json!({"type": "array", "items": {"type": "string"}});
    let cases = [
        (json!([expensive]), json!([]), 3),
        (json!([expensive, broken]), json!([]), 1),
        (json!([expensive]), json!([broken]), 1),
    ];
    for (rules, inner, errors) in cases {
        let mut names = names.clone();
        names["x-kubernetes-validations"] = inner;
        let schema =
            json!({"type": "object", "properties": {"names": names}, "x-kubernetes-validations": rules});
        let report = check(&schema, "schema", false);
        assert_eq!(report.errors.len(), errors, "{rules}: {:?}", report.errors);
        assert_eq!(report.cost == 0, errors == 1, "{rules}");
    }
}

/// Details of a real server that the recorded cases do not show.
#[test]
fn follows_details_of_the_libraries() {
    let cases = [
        ("dyn(3) in [5.0, 3.0]", Ok(json!(true))),
        ("dyn(3.0) in [3u]", Ok(json!(true))),
        ("dyn(b'a') in ['a']", Ok(json!(false))),
        ("{[1]: 1}.size()", Ok(json!(1))),
        ("[1].existsOne(x, x == 1)", Err("undeclared reference to 'existsOne'")),
        ("quantity('0.3').asApproximateFloat() == 0.3", Ok(json!(false))),
        ("quantity('0.0').add(quantity('0')).isInteger()", Ok(json!(false))),
        (
            "quantity('9223372036854775807').add(1).asApproximateFloat()",
            Ok(json!(9_223_372_036_854_775_808.0)),
        ),
        ("string(duration('100000000.123456789s'))", Ok(json!("100000000.12345679s"))),
        ("timestamp('2024-01-01T00:00:00Z').getHours('+30:00')", Ok(json!(6))),
        ("timestamp('2024-01-01T00:00:00Z').getHours('../UTC')", Err("time: invalid location name")),
        ("timestamp('2024-02-29T1:02:03Z').getHours()", Ok(json!(1))),
        ("double('0x_1p2')", Ok(json!(4.0))),
        ("'%.3e'.format([-12345.678])", Ok(json!("-1.234568×10⁰⁴"))),
        ("'%.15e'.format([1.5])", Ok(json!("  1.500000×10⁰⁰"))),
        ("format.byte().validate('QR==').hasValue()", Ok(json!(false))),
        ("format.datetime().validate('2024-02-29T00:00:00+99:99').hasValue()", Ok(json!(false))),
        ("optional.ofNonZeroValue(optional.none()).hasValue()", Ok(json!(true))),
        ("google.protobuf.Struct{fields: {'a': 1}}.a == 1.0", Ok(json!(true))),
        ("l[dyn(1u)]", Ok(json!(2))),
        ("'%b'.format([1.5])", Err("only integers and bools can be formatted as binary, was given double")),
        (
            "'%X'.format([true])",
            Err("only integers, byte buffers, and strings can be formatted as hex, was given bool"),
        ),
        ("'%s'.format([{1.5: optional.none()}])", Err("1:33: error during formatting: string clause")),
        ("'%s'.format([{optional.none(): 1}])", Err("1:28: error during formatting: string clause")),
        ("'%s'.format([{1.5: 1}])", Err("no formatting function for map key of type double")),
        ("1 + .nobody(1)", Err("undeclared reference to '.nobody' (in container '')")),
        ("'%d'.format([google.protobuf.Int32Value{value: 1}])", Ok(json!("1"))),
        ("l.?", Err("1:4: Syntax error: mismatched input '<EOF>' expecting {IDENTIFIER, ESC_IDENTIFIER}")),
        ("l.?", Err(" | ...^\nERROR: <input>:1:4: unsupported ident kind\n")),
    ];
    let list = json!([1, 2, 3]);
    let activation = Activation::new().with("l", &list);
    for (text, wanted) in cases {
        let program = Ast::compile(text, &env()).map_err(|issues| issues.to_string());
        let program = program.and_then(|ast| ast.program().map_err(|failure| failure.to_string()));
        let found = program.as_ref().map_err(Clone::clone).and_then(|program| {
            program.evaluate(&activation, PER_CALL_LIMIT).json().map_err(|failure| failure.to_string())
        });
        match (found, wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, Some(wanted), "{text}"),
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{text}: {found}"),
            (found, wanted) => panic!("{text}: {found:?} instead of {wanted:?}"),
        }
    }
}

/// Lists with a schema take only integers as an index, and bytes have the alphabet of URLs.
#[test]
fn follows_details_of_typed_values() {
    let schema = json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "integer"}}, "blob": {"type": "string", "format": "byte"},
        "bad": {"type": "string", "format": "byte"},
    }});
    let value = json!({"list": [], "blob": "_-8=", "bad": "/+8="});
    let decl = Decl::from_schema(&schema, false).unwrap();
    let env = Env::default().with("self", decl.to_type("selfType"));
    let activation = Activation::new().with_typed("self", &value, &decl);
    let evaluate = |text: &str| {
        let program = Ast::compile(text, &env).unwrap().program().unwrap();
        program.evaluate(&activation, PER_CALL_LIMIT).json().map_err(|failure| failure.to_string())
    };
    assert_eq!(evaluate("self.blob == b'\\xff\\xef'"), Ok(Some(json!(true))));
    let error = "Invalid byte formatted string /+8=: illegal base64 data at input byte 0";
    assert_eq!(evaluate("self.bad == b''"), Err(error.to_owned()));
    assert_eq!(evaluate("optional.ofNonZeroValue(self.list).hasValue()"), Ok(Some(json!(true))));
}

#[test]
fn limits_the_patterns_that_an_evaluation_compiles() {
    let evaluate = |text: &str| {
        let program = Ast::compile(text, &env()).unwrap().program().unwrap();
        program.evaluate(&Activation::new(), PER_CALL_LIMIT).json()
    };
    let all = |count: usize, pattern: &str| {
        evaluate(&format!("lists.range({count}).all(i, !'ab'.matches('{pattern}' + string(i)))"))
    };
    assert_eq!(all(10_000, "^"), Ok(Some(json!(true))));
    assert_eq!(all(200, r"^\\pL{60}"), Ok(Some(json!(true))));
    // Repetitions make short patterns large.
    assert_eq!(all(10_000, "^(?:a{500}){2}"), Err(Failure::Memory));
}
