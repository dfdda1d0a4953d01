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
            assert!(regex.is_match(text), "{pattern} refuses {text:?}");
        }
        for text in *bad {
            assert!(!regex.is_match(text), "{pattern} accepts {text:?}");
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
fn large_expressions_are_refused() {
    assert!(error(&"(".repeat(2000)).starts_with("expression nests too deeply"));
    assert!(error(&"\\pL{1000}".repeat(100)).starts_with("expression too large"));
    assert!(error(&"a".repeat(MAX_LENGTH + 1)).starts_with("expression too large"));
}
