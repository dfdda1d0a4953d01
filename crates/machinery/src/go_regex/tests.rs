use proptest::prelude::*;

use super::*;

fn error(pattern: &str) -> String {
    compile(pattern).unwrap_err().to_string().replace("error parsing regexp: ", "")
}

#[test]
fn expressions_match_as_in_go() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r"^\d+$", &["12"], &["١", ""]),
        (r"^\w$", &["a", "_"], &["ä", "-"]),
        (r"^[\w.-]+$", &["a.b-c"], &["a b"]),
        (r"^\s$", &[" ", "\t"], &["\u{a0}", "\x0b"]),
        (r"\bx\b", &["a x b", "äx"], &["ax"]),
        (r"^\Bx", &[], &["x"]),
        (r"^[a[]$", &["a", "["], &["b"]),
        (r"^[]a]+$", &["]a"], &["b"]),
        (r"^[^]]$", &["a"], &["]"]),
        (r"^[a&&b]+$", &["a&b"], &["c"]),
        (r"^[a-]$", &["-"], &["b"]),
        (r"^[a~~b&&c]+$", &["~"], &["d"]),
        (r"^[[:alpha:][:^ascii:]]$", &["a", "ä"], &["1"]),
        (r"^x{$", &["x{"], &["x"]),
        (r"^x{,2}$", &["x{,2}"], &["xx"]),
        (r"^{x}$", &["{x}"], &["x"]),
        (r"^x{2}$", &["xx"], &["x"]),
        (r"^x{01}$", &["x{01}"], &["x"]),
        (r"^\Q.*\E$", &[".*"], &["ab"]),
        (r"^\<\>\_\-$", &["<>_-"], &[""]),
        (r"^\x41\x{1F600}\101$", &["A😀A"], &["A"]),
        (r"^\pL\p{Greek}\P{L}\p{^L}$", &["aα11"], &["aa11"]),
        (r"(?i)^straße$", &["STRAßE"], &["x"]),
        (r"(?i)^[^a]$", &["b"], &["a", "A"]),
        (r"(?i)^[k-l]$", &["K", "\u{212a}", "L"], &["m"]),
        (r"(?i)^[^\W]$", &["\u{212a}", "\u{17f}", "k"], &["-"]),
        (r"(?i)^\p{Lu}$", &["a", "A"], &["1"]),
        (r"(?i)^[\PL]$", &["1"], &["a", "ι"]),
        (r"(?i)^[[:^upper:]]$", &["1"], &["a", "A"]),
        (r"^(?P<a>x)(?<b>y)$", &["xy"], &["x"]),
        (r"^(?P<a>x)(?P<a>y)$", &["xy"], &["x"]),
        (r"(?s:^.$)|^(?-s).$", &["\n"], &["ab"]),
        (r"^a$", &["a"], &["a\n"]),
        (r"^(a|)$", &["", "a"], &["b"]),
        (r"^^*$", &[""], &["a"]),
        (r"^ a#b$", &[" a#b"], &["ab"]),
        (r"()", &["", "x"], &[]),
    ];
    for (pattern, good, bad) in cases {
        let regex = compile(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
        for text in *good {
            assert_eq!(regex.is_match(text), Ok(true), "{pattern} refuses {text:?}");
        }
        for text in *bad {
            assert_eq!(regex.is_match(text), Ok(false), "{pattern} accepts {text:?}");
        }
    }
}

#[test]
fn errors_have_the_texts_of_go() {
    for (pattern, expected) in [
        ("(", "missing closing ): `(`"),
        ("a(b", "missing closing ): `a(b`"),
        ("(?i", "missing closing ): `(?i`"),
        (")", "unexpected ): `)`"),
        ("a)b", "unexpected ): `a)b`"),
        ("[", "missing closing ]: `[`"),
        ("a[b", "missing closing ]: `[b`"),
        ("[a-", "missing closing ]: `[a-`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\p{Foo}x", r"invalid character class range: `\p{Foo}`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\xg", r"invalid escape sequence: `\x`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000}`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        ("*", "missing argument to repetition operator: `*`"),
        ("(+)", "missing argument to repetition operator: `+`"),
        ("a|?", "missing argument to repetition operator: `?`"),
        ("{2}", "missing argument to repetition operator: `{2}`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*?+b", "invalid nested repetition operator: `*?+`"),
        ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("((a{100}){100}){100}", "invalid repeat count: `{100}`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?<=a)", "invalid named capture: `(?<=a)`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?P<1!>a)", "invalid named capture: `(?P<1!>`"),
    ] {
        assert_eq!(error(pattern), expected, "{pattern}");
    }
}

#[test]
fn accepts_sizes_up_to_the_limits_of_go() {
    let nested = |depth: usize| "(".repeat(depth) + "x" + &")".repeat(depth);
    for pattern in [r"^\pL{400}$", r"\pL{1000}\PL{1000}", "a{1000}", "(a{10}){100}", &nested(999)] {
        assert!(compile(pattern).is_ok(), "{}", clipped(pattern));
    }
    let letters = compile(r"^\pL{400}$").unwrap();
    assert_eq!(letters.is_match(&"é".repeat(400)), Ok(true));
    assert_eq!(letters.is_match(&"é".repeat(399)), Ok(false));
    assert_eq!(letters.is_match(&"é".repeat(401)), Ok(false));
}

#[test]
fn refuses_large_expressions_without_compiling_them() {
    for (pattern, expected) in [
        ("(".repeat(2000), "expression nests too deeply"),
        ("a{1000}".repeat(300), "expression too large"),
        (format!("(?:{}){{1000}}", r"\pL".repeat(300)), "expression too large"),
        ("a".repeat(MAX_LENGTH + 1), "expression too large"),
    ] {
        assert!(check(&pattern).unwrap_err().to_string().contains(expected), "{}", clipped(&pattern));
        assert!(error(&pattern).starts_with(expected));
    }
}

#[test]
fn programs_are_small_whatever_the_class() {
    for class in [r"\pL", r"\p{Greek}", r"[^a]", r"(?i)\pL", r"[\pL\pN]", "."] {
        for count in [1, 50, 1000] {
            let bytes = compile(&format!("^{class}{{{count}}}$")).unwrap().bytes();
            assert!(bytes < 12_000 + 12 * count, "{class}{{{count}}}: {bytes}");
        }
    }
}

#[test]
fn equal_classes_are_stored_once() {
    let one = compile(r"\pL").unwrap().bytes();
    let many = compile(&r"\pLx".repeat(1000)).unwrap().bytes();
    assert!(many < one + 2000 * 16, "{many}");
    // Classes that differ each time stay within the limit.
    for part in [r"[\pL", r"(?i:[\PL", r"(?i:[\x{0}-\x{10FFFF}"] {
        let end = if part.contains('(') { "])" } else { "]" };
        let parts: Vec<String> = ('\u{4e00}'..'\u{5600}').map(|it| format!("{part}{it}{end}")).collect();
        let distinct = parts.concat();
        assert!(error(&distinct).starts_with("expression too large"), "{part}");
    }
}

#[test]
fn a_search_ends_at_its_limit_of_steps() {
    let costly = compile("(x?){500}y").unwrap();
    let text = "x".repeat(100_000);
    assert_eq!(costly.is_match_within(&text, &mut 1_000_000), Err(OutOfSteps));
    assert_eq!(costly.find_within(&text, 1, &mut 1_000_000), Err(OutOfSteps));
    // Steps grow linearly with the text.
    let steps = |length: usize| {
        let mut steps = MAX_STEPS;
        compile("^(a|b|ab)*c$").unwrap().is_match_within(&"ab".repeat(length), &mut steps).unwrap();
        MAX_STEPS - steps
    };
    assert!(steps(2000) < 3 * steps(1000));
}

#[test]
fn finds_the_leftmost_match_that_go_prefers() {
    for (pattern, text, expected) in [
        ("a|ab", "ab", vec!["a"]),
        ("ab|a", "abxa", vec!["ab", "a"]),
        ("a*", "baac", vec!["", "aa", ""]),
        ("a*?", "aa", vec!["", "", ""]),
        ("a+?", "aa", vec!["a", "a"]),
        ("(?U)a+", "aa", vec!["a", "a"]),
        ("(?U)a+?", "aa", vec!["aa"]),
        ("a{2,3}", "aaaaa", vec!["aaa", "aa"]),
        ("a{2,3}?", "aaaaa", vec!["aa", "aa"]),
        ("^a", "aa", vec!["a"]),
        ("(?m)^a", "aa\na", vec!["a", "a"]),
        ("(|a)*", "aa", vec!["", "", ""]),
        ("(|a)+", "aa", vec!["", "", ""]),
        ("(a|b)*?c", "abcabc", vec!["abc", "abc"]),
        ("é", "éaé", vec!["é", "é"]),
        ("", "é", vec!["", ""]),
    ] {
        let found = compile(pattern).unwrap().find_within(text, usize::MAX, &mut { MAX_STEPS });
        assert_eq!(found.unwrap(), expected, "{pattern} on {text}");
    }
}

/// Patterns with the same meaning in the `regex` crate.
fn shared_pattern() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "é",
        ".",
        "^",
        "$",
        "[ab]",
        "[^a]",
        r"\pL",
        "(?i:A)",
        "(?i:é)",
        r"\n",
        "(?s:.)",
        "(?m:^)",
        "(?m:$)",
        "()",
        "[[:upper:]]",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let repeat = prop::sample::select(vec![
            "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{2,3}?", "{0}",
        ]);
        prop_oneof![
            (inner.clone(), repeat).prop_map(|(part, repeat)| format!("({part}){repeat}")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner, 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn matches_as_the_regex_crate(pattern in shared_pattern(), text in "[abcABé\n]{0,8}") {
        let ours = compile(&pattern).unwrap();
        let theirs = regex::Regex::new(&pattern).unwrap();
        prop_assert_eq!(ours.is_match(&text), Ok(theirs.is_match(&text)));
        let found = ours.find_within(&text, usize::MAX, &mut { MAX_STEPS }).unwrap();
        let expected: Vec<&str> = theirs.find_iter(&text).map(|it| it.as_str()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn never_panics(pattern in r"[ab^$.|*+?(){}0-9,\\\[\]:pLQEdiU-]{0,24}", text in ".{0,8}") {
        if let Ok(regex) = compile(&pattern) {
            prop_assert!(regex.is_match(&text).is_ok());
        }
        prop_assert_eq!(check(&pattern).is_ok(), compile(&pattern).is_ok());
    }
}
