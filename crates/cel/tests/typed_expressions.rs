//! Properties of expressions in which every part has a static type: the checker accepts them, they evaluate without type
//! errors, and they cost no more than estimated.

use nave_cel::{Activation, Ast, Bounds, Decl, DeclSizes, Env, Failure, PER_CALL_LIMIT, SizeEstimator, Type};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Templates by the kind of their result. `$` and a letter stand for a part of that kind: `i` int, `u` uint, `d` double,
/// `b` bool, `s` string, `y` bytes, `D` duration, `T` timestamp, `l` list of ints, `L` list of strings, `m` map from
/// strings to ints, `o` optional int, `q` quantity, `p` IP address, `c` network, `v` version, `U` URL. The first ones of a
/// kind have no parts.
///
/// Omits what costs more than estimated upstream: an index of a value that is not a variable, `distinct` of texts, and
/// prefixes of long texts.
const TEMPLATES: &[(char, &[&str])] = &[
    (
        'i',
        &[
            "self.n",
            "7",
            "-3",
            "self.list[0]",
            "$i + $i",
            "$i - $i",
            "$i * 2",
            "$i / $i",
            "$i % $i",
            "-$i",
            "size($s)",
            "$s.size()",
            "size($l)",
            "size($L)",
            "size($m)",
            "size($y)",
            "self.list[$i]",
            "self.m['a']",
            "$l.sum()",
            "$l.max()",
            "$l.min()",
            "$l.indexOf($i)",
            "$L.lastIndexOf($s)",
            "$s.indexOf($s)",
            "$s.lastIndexOf($s, $i)",
            "$b ? $i : $i",
            "int($u)",
            "int($d)",
            "int($T)",
            "$T.getFullYear()",
            "$T.getHours('America/New_York')",
            "$D.getMinutes()",
            "$o.orValue($i)",
            "$o.value()",
            "self.?n.orValue($i)",
            "$q.asInteger()",
            "$q.compareTo($q)",
            "sign($q)",
            "$p.family()",
            "$c.prefixLength()",
            "$v.major()",
            "$v.compareTo($v)",
            "$L.map(e, e.size()).sum()",
        ],
    ),
    ('u', &["3u", "uint($i)", "$u + $u", "$u * $u", "$b ? $u : $u"]),
    (
        'd',
        &[
            "self.ratio",
            "1.5",
            "$d + $d",
            "$d * $d",
            "$d / $d",
            "double($i)",
            "$q.asApproximateFloat()",
            "-$d",
        ],
    ),
    (
        'b',
        &[
            "self.on",
            "true",
            "$b && $b",
            "$b || $b",
            "!$b",
            "$i < $i",
            "$d >= $d",
            "$u != $u",
            "$s == $s",
            "$s < $s",
            "$y == $y",
            "$T < $T",
            "$D <= $D",
            "$l == $l",
            "$m == $m",
            "$i in $l",
            "$s in $L",
            "$s in $m",
            "self.s.startsWith($s)",
            "self.s.endsWith($s)",
            "$s.contains($s)",
            "$s.matches('^[a-z]+$')",
            "has(self.s)",
            "has(self.inner.a)",
            "$o.hasValue()",
            "$l.all(e, e > $i)",
            "$l.exists(e, e == $i)",
            "$L.exists_one(e, e == $s)",
            "$m.all(k, k.size() > 0)",
            "$m.exists(k, v, v > $i)",
            "$l.isSorted()",
            "$L.isSorted()",
            "sets.contains($l, $l)",
            "sets.equivalent($L, $L)",
            "sets.intersects($l, $l)",
            "isQuantity($s)",
            "$q.isLessThan($q)",
            "$q == $q",
            "isIP($s)",
            "$p.isLoopback()",
            "$c.containsIP($p)",
            "$c.containsIP('10.1.2.3')",
            "isCIDR($s)",
            "$p == $p",
            "isURL($s)",
            "isSemver($s)",
            "$v.isGreaterThan($v)",
            "$q.isInteger()",
            "type($i) == int",
            "ip.isCanonical('::1')",
        ],
    ),
    (
        's',
        &[
            "self.s",
            "'ab'",
            "self.texts[0]",
            "self.inner.a",
            "$s + $s",
            "string($i)",
            "string($b)",
            "string($d)",
            "string($T)",
            "string($D)",
            "$s.lowerAscii()",
            "$s.upperAscii()",
            "$s.trim()",
            "$s.replace('a', 'b')",
            "$s.replace($s, $s, 2)",
            "$s.substring(1)",
            "$s.charAt(0)",
            "$L.join(',')",
            "$L.join()",
            "$b ? $s : $s",
            "'%d-%s'.format([$i, $s])",
            "strings.quote($s)",
            "$s.find('[a-z]+')",
            "$U.getHost()",
            "$U.getScheme()",
            "self.texts[$i]",
            "string($p)",
        ],
    ),
    ('y', &["self.blob", "b'ab'", "bytes($s)", "$y + $y"]),
    ('D', &["self.wait", "duration('1h')", "$D + $D", "$D - $D", "$T - $T", "$b ? $D : $D"]),
    ('T', &["self.when", "timestamp('2024-02-29T12:00:00Z')", "$T + $D", "$T - $D", "timestamp($i)"]),
    (
        'l',
        &[
            "self.list",
            "[1, 2]",
            "[$i, $i]",
            "$l + $l",
            "$l.map(e, e * 2)",
            "$l.filter(e, e > $i)",
            "$l.map(e, e > $i, e + 1)",
            "$l.reverse()",
            "$l.distinct()",
            "$l.sort()",
            "$l.slice(0, 1)",
            "lists.range(3)",
            "$m.map(k, $i)",
            "[[$i], [2]].flatten()",
            "$l.sortBy(e, -e)",
            "$b ? $l : $l",
            "$l.transformList(i, e, i + e)",
            "$m.transformList(k, v, v)",
        ],
    ),
    (
        'L',
        &[
            "self.texts",
            "['a', 'b']",
            "[$s]",
            "$L + $L",
            "$s.split(',')",
            "$s.split(',', 2)",
            "$L.map(e, e + $s)",
            "$L.filter(e, e != $s)",
            "$s.findAll('[a-z]')",
            "$L.sort()",
            "$m.map(k, k)",
            "$L.reverse()",
        ],
    ),
    (
        'm',
        &[
            "self.m",
            "{'a': 1}",
            "{'a': $i, 'b': $i}",
            "{$s: $i}",
            "$m.transformMap(k, v, v + $i)",
            "$b ? $m : $m",
            "$l.transformMapEntry(i, e, {string(e): i})",
        ],
    ),
    (
        'o',
        &[
            "self.?n",
            "optional.of($i)",
            "self.list[?0]",
            "self.m[?'a']",
            "$l.first()",
            "$l.last()",
            "$o.or($o)",
            "optional.ofNonZeroValue($i)",
            "$o.optMap(x, x + $i)",
        ],
    ),
    ('q', &["quantity('1.5Ki')", "quantity('500m')", "$q.add($q)", "$q.sub($i)"]),
    ('p', &["ip('10.1.2.3')", "ip('::1')", "$c.ip()"]),
    ('c', &["cidr('10.1.0.0/16')", "$c.masked()"]),
    ('v', &["semver('1.2.3')", "semver('v2.0', true)"]),
    ('U', &["url('https://a.example:80/b?c=d')"]),
];

/// Builds an expression from a sequence of choices. Without choices left, takes templates without parts.
struct Builder {
    choices: std::vec::IntoIter<u16>,
}

impl Builder {
    fn expression(&mut self, kind: char, depth: usize) -> String {
        let known = TEMPLATES.iter().find(|(known, _)| *known == kind);
        let templates = known.map_or(&["unknown kind"][..], |(_, templates)| templates);
        let plain = templates.iter().take_while(|it| !it.contains('$')).count();
        let count = if depth == 0 { plain } else { templates.len() };
        let choice = self.choices.next().map_or(0, usize::from);
        let template = templates[choice % count];
        let mut text = String::from("(");
        let mut letters = template.chars().peekable();
        while let Some(letter) = letters.next() {
            match letters.peek() {
                Some(part) if letter == '$' && TEMPLATES.iter().any(|(known, _)| known == part) => {
                    let part = *part;
                    letters.next();
                    text.push_str(&self.expression(part, depth - 1));
                }
                _ => text.push(letter),
            }
        }
        text.push(')');
        text
    }
}

/// The sizes of the schema, without those of scalars, which upstream estimates as 0 and counts as 1.
struct Sizes<'d>(DeclSizes<'d>);

impl SizeEstimator for Sizes<'_> {
    fn estimate_size(&self, path: &[String], ty: &Type) -> Option<Bounds> {
        let is_scalar =
            matches!(ty, Type::Int | Type::Double | Type::Bool | Type::Duration | Type::Timestamp);
        if is_scalar { None } else { self.0.estimate_size(path, ty) }
    }
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "ratio": {"type": "number"}, "on": {"type": "boolean"},
        "s": {"type": "string", "maxLength": 5}, "blob": {"type": "string", "format": "byte", "maxLength": 8},
        "wait": {"type": "string", "format": "duration"}, "when": {"type": "string", "format": "date-time"},
        "list": {"type": "array", "maxItems": 4, "items": {"type": "integer"}},
        "texts": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 4}},
        "m": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer"}},
        "inner": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}},
    }})
}

fn object() -> Value {
    json!({
        "n": 3, "ratio": 0.5, "on": true, "s": "a,b c", "blob": "AAECAw==", "wait": "90m", "when": "2024-02-29T12:30:00Z",
        "list": [3, 1, 2, 4], "texts": ["b", "abc", "a,c"], "m": {"a": 1, "b": 2}, "inner": {"a": "xyz"},
    })
}

/// Kinds of results, with their types.
fn kinds() -> Vec<(char, Type)> {
    vec![
        ('i', Type::Int),
        ('u', Type::Uint),
        ('d', Type::Double),
        ('b', Type::Bool),
        ('s', Type::String),
        ('y', Type::Bytes),
        ('D', Type::Duration),
        ('T', Type::Timestamp),
        ('l', Type::list(Type::Int)),
        ('L', Type::list(Type::String)),
        ('m', Type::map(Type::String, Type::Int)),
    ]
}

fn build(choices: Vec<u16>, kind: usize) -> (String, Type) {
    let kinds = kinds();
    let (letter, ty) = kinds[kind % kinds.len()].clone();
    let text = Builder { choices: choices.into_iter() }.expression(letter, 4);
    (text, ty)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn typed_expressions_evaluate_without_type_errors_within_their_estimate(
        choices in vec(any::<u16>(), 1..24),
        kind in 0usize..11,
    ) {
        let decl = Decl::from_schema(&schema(), true).unwrap();
        let env = Env::default().with("self", decl.to_type("selfType"));
        let (text, ty) = build(choices, kind);
        let ast = Ast::compile(&text, &env).map_err(|issues| TestCaseError::fail(format!("{text}: {issues}")))?;
        prop_assert_eq!(ast.output_type(), &ty, "{}", text);
        let bounds = ast.estimate(&Sizes(DeclSizes(vec![("self", &decl)])));
        prop_assert!(bounds.min <= bounds.max, "{}: {:?}", text, bounds);
        // Building a program fails only for constants out of range.
        let program = match ast.program() {
            Ok(program) => program,
            Err(failure) => return check(&text, &failure),
        };
        let object = object();
        let activation = Activation::new().with_typed("self", &object, &decl);
        let outcome = program.evaluate(&activation, PER_CALL_LIMIT);
        if let Err(failure) = outcome.json() {
            check(&text, &failure)?;
        }
        prop_assert!(outcome.cost <= bounds.max, "{}: {} > {}", text, outcome.cost, bounds.max);
    }

    #[test]
    fn evaluation_ends_within_its_cost(choices in vec(any::<u16>(), 1..24), kind in 0usize..11, limit in 0u64..60) {
        let decl = Decl::from_schema(&schema(), true).unwrap();
        let env = Env::default().with("self", decl.to_type("selfType"));
        let (text, _) = build(choices, kind);
        let ast = Ast::compile(&text, &env).map_err(|issues| TestCaseError::fail(format!("{text}: {issues}")))?;
        let Ok(program) = ast.program() else { return Ok(()) };
        let object = object();
        let activation = Activation::new().with_typed("self", &object, &decl);
        let whole = program.evaluate(&activation, PER_CALL_LIMIT);
        let limited = program.evaluate(&activation, limit);
        if whole.cost <= limit {
            prop_assert_eq!(limited.cost, whole.cost, "{}", text);
            prop_assert_eq!(limited.json(), whole.json(), "{}", text);
        } else {
            prop_assert_eq!(limited.json(), Err(Failure::Cost), "{}", text);
        }
    }
}

/// Fails for errors that a checked expression must not have.
fn check(text: &str, failure: &Failure) -> Result<(), TestCaseError> {
    let message = failure.to_string();
    for wrong in ["overload", "attribute", "unsupported", "invalid qualifier"] {
        prop_assert!(!message.contains(wrong), "{}: {}", text, message);
    }
    Ok(())
}
