//! Label and field selectors (upstream: `apimachinery/pkg/labels` and `fields`).

use std::fmt;

use serde_json::Value;

use crate::names;

/// Error of parsing a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A requirement in the text of a selector is invalid.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// The text is not a selector, or a key or a value is not valid for a label.
    #[error("{0}")]
    Invalid(String),
    /// A selector in a query has more than [`MAX_REQUIREMENTS`] requirements.
    #[error("a selector can have at most {MAX_REQUIREMENTS} requirements")]
    TooManyRequirements,
}

/// Maximum number of requirements of a selector in a query. A query could hold hundreds of thousands, and each is
/// evaluated for each object of a list and each event of a watch.
pub const MAX_REQUIREMENTS: usize = 256;

/// A conjunction of requirements on labels. An empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The operator.
    pub operator: Operator,
    /// The values of the operator, sorted.
    pub values: Vec<String>,
}

/// The operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Parses a selector such as `app=web,tier in (a,b),!old`.
    ///
    /// # Errors
    /// The text is not a selector, or a key or value is not valid for a label.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).requirements()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// Converts a `metav1.LabelSelector`. Returns an error for `null`, which selects nothing.
    ///
    /// # Errors
    /// An operator is unknown, or a key or value is not valid for a label.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        let invalid = |text: String| SelectorError::Invalid(text);
        let fields =
            selector.as_object().ok_or_else(|| invalid("a label selector must be an object".to_owned()))?;
        let mut requirements = Vec::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for (key, value) in fields.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![text(value)],
            });
        }
        for expression in fields.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| expression.get(name).map(text).unwrap_or_default();
            let operator = match part("operator").as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(invalid(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.get("values").and_then(Value::as_array);
            let mut values: Vec<String> = values.into_iter().flatten().map(text).collect();
            values.sort();
            requirements.push(Requirement { key: part("key"), operator, values });
        }
        for requirement in &requirements {
            requirement.check()?;
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// Returns whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Returns the requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Returns whether the selector matches the labels; `label` looks up a label's value.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl Requirement {
    /// Returns whether a label with this value satisfies the requirement; `None` is an absent label.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.binary_search_by(|wanted| wanted.as_str().cmp(value)).is_ok();
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |holds: fn(i64, i64) -> bool| {
            let wanted = self.values.first().and_then(|wanted| number(wanted));
            value.and_then(number).zip(wanted).is_some_and(|(value, wanted)| holds(value, wanted))
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|value, wanted| value > wanted),
            Operator::LessThan => compare(|value, wanted| value < wanted),
        }
    }

    fn check(&self) -> Result<(), SelectorError> {
        let mut found = Vec::new();
        let wrong = names::is_qualified_name(&self.key);
        if !wrong.is_empty() {
            found.push(format!("key: Invalid value: {:?}: {}", self.key, wrong.join("; ")));
        }
        match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => {
                let why = "for 'in', 'notin' operators, values set can't be empty";
                found.push(format!("values: Invalid value: null: {why}"));
            }
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => {
                let why = "values set must be empty for exists and does not exist";
                found.push(format!("values: Invalid value: {why}"));
            }
            Operator::GreaterThan | Operator::LessThan
                if self.values.iter().any(|value| value.parse::<i64>().is_err()) =>
            {
                let value = self.values.first().map_or("", String::as_str);
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                found.push(format!("values[0]: Invalid value: {value:?}: {why}"));
            }
            _ => {}
        }
        for (index, value) in self.values.iter().enumerate() {
            let wrong = names::is_valid_label_value(value);
            if !wrong.is_empty() {
                let why = wrong.join("; ");
                found.push(format!("values[{index}][{}]: Invalid value: {value:?}: {why}", self.key));
            }
        }
        match found.as_slice() {
            [] => Ok(()),
            [error] => Err(SelectorError::Invalid(error.clone())),
            errors => Err(SelectorError::Invalid(format!("[{}]", errors.join(", ")))),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let first = self.values.first().map_or("", String::as_str);
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={first}"),
            Operator::DoubleEquals => write!(f, "{key}=={first}"),
            Operator::NotEquals => write!(f, "{key}!={first}"),
            Operator::GreaterThan => write!(f, "{key}>{first}"),
            Operator::LessThan => write!(f, "{key}<{first}"),
            Operator::In if self.values.len() == 1 => write!(f, "{key}={first}"),
            Operator::In => write!(f, "{key} in ({})", self.values.join(",")),
            Operator::NotIn => write!(f, "{key} notin ({})", self.values.join(",")),
        }
    }
}

/// A recursive-descent parser of label selectors without backtracking.
struct Parser<'a> {
    rest: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

/// The symbols. Longer symbols precede their prefixes.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.look();
        self.rest = rest;
        token
    }

    fn peek(&self) -> Token<'a> {
        self.look().0
    }

    fn look(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return (Token::End, text);
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol)) {
            return (Token::Symbol(symbol), &text[symbol.len()..]);
        }
        let end = text.find(|c: char| "=!,()>< \t\r\n".contains(c)).unwrap_or(text.len());
        (Token::Word(&text[..end]), &text[end..])
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        match self.peek() {
            Token::End => return Ok(found),
            Token::Word(_) | Token::Symbol("!") => {}
            other @ Token::Symbol(_) => {
                return Err(unexpected(other, "!, identifier, or 'end of string'"));
            }
        }
        loop {
            if found.len() == MAX_REQUIREMENTS {
                return Err(SelectorError::TooManyRequirements);
            }
            let requirement = self.requirement().and_then(|it| it.check().map(|()| it));
            found.push(requirement.map_err(|error| match error {
                SelectorError::Invalid(why) => SelectorError::Requirement(why),
                other => other,
            })?);
            match self.next() {
                Token::End => return Ok(found),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => return Err(unexpected(other, "identifier after ','")),
                },
                other => return Err(unexpected(other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key.to_owned(),
            other => return Err(unexpected(other, "identifier")),
        };
        let wrong = names::is_qualified_name(&key);
        if !wrong.is_empty() {
            // Upstream's path of the key is nil here.
            let why = wrong.join("; ");
            return Err(SelectorError::Invalid(format!("<nil>: Invalid value: {key:?}: {why}")));
        }
        let bare = |operator| Ok(Requirement { key: key.clone(), operator, values: Vec::new() });
        if negated {
            return bare(Operator::DoesNotExist);
        }
        let operator = match self.peek() {
            Token::End | Token::Symbol(",") => return bare(Operator::Exists),
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            other => return Err(unexpected(other, "in, notin, =, ==, !=, gt, lt")),
        };
        self.next();
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Ok(Requirement { key, operator, values })
    }

    /// Parses the value after `=`, which may be empty.
    fn exact_value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(value) => {
                self.next();
                Ok(value.to_owned())
            }
            other @ Token::Symbol(_) => Err(unexpected(other, "identifier")),
        }
    }

    /// Parses the values after `in` or `notin`: `(a, b)`. Values may be empty.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            // Upstream's text has no comma here.
            other => return Err(SelectorError::Invalid(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = Vec::new();
        let mut after_comma = true;
        loop {
            match self.next() {
                Token::Word(value) if after_comma => {
                    values.push(value.to_owned());
                    after_comma = false;
                }
                Token::Symbol(",") => {
                    if after_comma {
                        values.push(String::new());
                    }
                    after_comma = true;
                }
                Token::Symbol(")") => {
                    if after_comma {
                        values.push(String::new());
                    }
                    values.sort();
                    values.dedup();
                    return Ok(values);
                }
                other => return Err(unexpected(other, "',' or ')'")),
            }
        }
    }
}

fn unexpected(found: Token<'_>, expected: &str) -> SelectorError {
    let found = found.text();
    SelectorError::Invalid(format!("found '{found}', expected: {expected}"))
}

/// A conjunction of requirements on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// A requirement on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, such as `spec.nodeName`.
    pub path: String,
    /// True if the requirement is "not equal".
    pub negated: bool,
    /// The value.
    pub value: String,
}

impl FieldSelector {
    /// Parses a selector such as `spec.nodeName=a,status.phase!=Failed`; `\` escapes `,`, `=` and `\` in values.
    ///
    /// # Errors
    /// A term has no operator or an invalid escape.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        let mut terms = split_terms(text);
        // As upstream, the first error in the order of the terms counts.
        terms.sort_unstable();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let bad =
                || SelectorError::Invalid(format!("invalid selector: '{text}'; can't understand '{term}'"));
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(SelectorError::TooManyRequirements);
            }
            let at = term.find('=').ok_or_else(bad)?;
            let (path, value) = (&term[..at], &term[at + 1..]);
            let (path, negated, value) = match path.strip_suffix('!') {
                Some(path) => (path, true, value),
                None => (path, false, value.strip_prefix('=').unwrap_or(value)),
            };
            let value = unescape(value)?;
            // As upstream, a term without a field and a value selects everything.
            if path.is_empty() && value.is_empty() {
                continue;
            }
            requirements.push(FieldRequirement { path: path.to_owned(), negated, value });
        }
        Ok(Self { requirements })
    }

    /// Returns whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Returns the requirements, sorted by their text.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Returns the value that the selector requires for the field, if any.
    pub fn exact(&self, path: &str) -> Option<&str> {
        let found =
            self.requirements.iter().find(|requirement| requirement.path == path && !requirement.negated)?;
        Some(&found.value)
    }

    /// Returns whether the selector matches the fields; `field` looks up a field's value. An absent field is empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            (field(&requirement.path).unwrap_or_default() == requirement.value) != requirement.negated
        })
    }
}

/// Splits at unescaped commas.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let invalid = |why: String| SelectorError::Invalid(format!("invalid field selector: {why}"));
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence: String = [Some(c), other].into_iter().flatten().collect();
                    return Err(invalid(format!("invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => return Err(invalid(format!("unescaped character in value: {}", u32::from(c)))),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        LabelSelector::parse(selector).unwrap().matches(|key| labels.get(key).copied())
    }

    #[test]
    fn limits_the_number_of_requirements() {
        let labels = |count: usize| vec!["a=b"; count].join(",");
        for count in [MAX_REQUIREMENTS, MAX_REQUIREMENTS + 1, 200_000] {
            let outcome = match count {
                MAX_REQUIREMENTS => Ok(MAX_REQUIREMENTS),
                _ => Err(SelectorError::TooManyRequirements),
            };
            let parsed = LabelSelector::parse(&labels(count)).map(|selector| selector.requirements().len());
            assert_eq!(parsed, outcome);
            let parsed = FieldSelector::parse(&labels(count)).map(|selector| selector.requirements().len());
            assert_eq!(parsed, outcome);
        }
        let values = vec!["v"; 100_000].join(",");
        assert!(LabelSelector::parse(&format!("a in ({values})")).is_ok());
    }

    #[test]
    fn evaluates_each_operator() {
        let labels = [("a", "1"), ("b", "x"), ("empty", "")];
        let selected = [
            "",
            "a=1",
            "a==1",
            "a!=2",
            "a in (1,2)",
            "b notin (y)",
            "a",
            "!z",
            "a>0",
            "a<2",
            "z!=1",
            "empty=",
            " a = 1 , b ",
        ];
        for selector in selected {
            assert!(matches(selector, &labels), "{selector}");
        }
        for selector in ["a=2", "a!=1", "a in (2)", "b notin (x)", "z", "!a", "a>1", "b>0", "a=1,z", "z="] {
            assert!(!matches(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn rejects_invalid_selectors() {
        for text in [
            "a b", "=x", "n=3,", "n in (1", "x/y/z=1", "n in", "a=b=c", "!a=b", "(a)", "a in ((", "é=1",
            "a>x", "a=-", ",", "a,,b",
        ] {
            LabelSelector::parse(text).expect_err(text);
        }
        for (text, why) in [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            ("n=3,", "found '', expected: identifier after ','"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
            ("!(a", "unable to parse requirement: found '(', expected: identifier"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("-a", "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"),
            ("a=-", "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be"),
            ("a in (-,_)", "unable to parse requirement: [values[0][a]: Invalid value: \"-\": a valid label"),
        ] {
            let found = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(found.starts_with(why), "{text}: {found}");
        }
        let long = format!("{}=1", "a".repeat(64));
        LabelSelector::parse(&long).unwrap_err();
    }

    #[test]
    fn converts_selector_objects() {
        let object = json!({"matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["y", "x"]}, {"key": "d", "operator": "Exists"}]});
        assert_eq!(LabelSelector::from_value(&object).unwrap().to_string(), "a=1,b=2,c notin (x,y),d");
        LabelSelector::from_value(&json!({"matchExpressions": [{"key": "c", "operator": "Near"}]}))
            .unwrap_err();
        LabelSelector::from_value(&json!(null)).unwrap_err();
    }

    #[test]
    fn evaluates_field_selectors_with_escapes() {
        let selector = FieldSelector::parse(r"spec.nodeName=a,status.phase!=Failed,x==a\,b").unwrap();
        assert_eq!(selector.exact("spec.nodeName"), Some("a"));
        assert_eq!(selector.exact("status.phase"), None);
        assert_eq!(selector.exact("x"), Some("a,b"));
        let field = |path: &str| match path {
            "spec.nodeName" => Some("a"),
            "x" => Some("a,b"),
            _ => None,
        };
        assert!(selector.matches(field));
        for (text, why) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), why);
        }
        assert!(FieldSelector::parse("").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn formatted_selectors_round_trip(key in "[a-z]{1,5}", values in prop::collection::vec("[a-z0-9]{1,4}", 1..4), op in 0usize..6) {
            let list = values.join(",");
            let text = match op {
                0 => format!("{key}={}", values[0]),
                1 => format!("{key}!={}", values[0]),
                2 => format!("{key} in ({list})"),
                3 => format!("{key} notin ({list})"),
                4 => key.clone(),
                _ => format!("!{key}"),
            };
            let selector = LabelSelector::parse(&text).unwrap();
            let again = LabelSelector::parse(&selector.to_string()).unwrap();
            for value in values.iter().map(|value| Some(value.as_str())).chain([None, Some("zz")]) {
                prop_assert_eq!(selector.matches(|_| value), again.matches(|_| value));
            }
        }
    }
}
