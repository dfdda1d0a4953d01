//! Error recovery by ANTLR's default strategy: skips or inserts one token, or skips to a token that can follow.

use super::MAX_CODE_POINTS;
use super::lexer::{Lexeme, Token, tokens};
use super::source::{Issue, Source};

/// A set of tokens. The bit above the last token means that the rule can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set(u64);

const RULE_END: u64 = 1 << 63;

/// Builds a set.
pub(super) const fn set(tokens: &[Token]) -> Set {
    let (mut bits, mut index) = (0, 0);
    while index < tokens.len() {
        bits |= 1 << tokens[index] as u64;
        index += 1;
    }
    Set(bits)
}

impl Set {
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the set with the mark that the rule can also end here.
    pub(super) const fn or_end(self) -> Self {
        Self(self.0 | RULE_END)
    }

    pub(super) fn contains(self, token: Token) -> bool {
        self.0 & (1 << token as u64) != 0
    }

    fn ends_rule(self) -> bool {
        self.0 & RULE_END != 0
    }

    fn names(self) -> String {
        let named: Vec<&str> =
            ALL.iter().filter(|token| self.contains(**token)).map(|token| token.name()).collect();
        match named.as_slice() {
            [one] => (*one).to_owned(),
            _ => format!("{{{}}}", named.join(", ")),
        }
    }
}

/// Reasons to leave a rule.
#[derive(Clone, Copy)]
pub(super) enum Failure {
    /// An unexpected token. The error is reported at the end of the rule, and parsing continues.
    Mismatch(Set),
    /// No alternative matches the tokens from the current token to the token at this index.
    NoAlternative(usize),
    /// Parsing ends.
    Abort,
}

pub(super) struct State {
    text: Vec<char>,
    lexemes: Vec<Lexeme>,
    /// The positions of text that is not a token.
    skipped: Vec<(u32, u32)>,
    at: usize,
    pub(super) source: Source,
    pub(super) issues: Vec<Issue>,
    syntax_errors: usize,
    recovering: bool,
    /// Tokens that can follow each open rule.
    follow: Vec<Set>,
    attempts: usize,
    last_recovery: Option<(usize, &'static str)>,
}

impl State {
    /// Splits the text into tokens.
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().take(MAX_CODE_POINTS + 1).collect();
        let mut state = Self {
            source: Source::new(text),
            lexemes: Vec::new(),
            skipped: Vec::new(),
            at: 0,
            issues: Vec::new(),
            syntax_errors: 0,
            recovering: false,
            follow: Vec::new(),
            attempts: 0,
            last_recovery: None,
            text: Vec::new(),
        };
        if chars.len() > MAX_CODE_POINTS {
            let size = text.chars().count();
            let message =
                format!("expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}");
            state.issues.push(Issue { line: -1, column: -1, message });
            return state;
        }
        let (lexemes, unrecognized) = tokens(&chars);
        for part in unrecognized {
            let message = format!("token recognition error at: '{}'", part.text);
            let end = part.start + part.text.chars().count() as u32;
            if state.skipped.len() < MAX_REPORTS {
                state.skipped.push((part.start, end));
            }
            // Ignores the result. The next reported error checks the limit again.
            let _ = state.report(part.start, &message);
        }
        state.lexemes = lexemes;
        state.text = chars;
        state
    }

    pub(super) fn current(&self) -> Lexeme {
        self.lexeme(self.at)
    }

    pub(super) fn token(&self) -> Token {
        self.current().token
    }

    /// Returns the token `count` tokens after the current token.
    pub(super) fn ahead(&self, count: usize) -> Token {
        self.lexeme(self.at + count).token
    }

    fn lexeme(&self, index: usize) -> Lexeme {
        let end = Lexeme { token: Token::End, start: 0, end: 0 };
        self.lexemes.get(index).or(self.lexemes.last()).copied().unwrap_or(end)
    }

    pub(super) fn text(&self, lexeme: Lexeme) -> String {
        self.text.get(lexeme.start as usize..lexeme.end as usize).unwrap_or_default().iter().collect()
    }

    pub(super) fn consume(&mut self) -> Lexeme {
        let lexeme = self.current();
        self.at = (self.at + 1).min(self.lexemes.len().saturating_sub(1));
        lexeme
    }

    /// Consumes the current token, whose kind the caller has checked.
    pub(super) fn accept(&mut self) -> Lexeme {
        self.matched();
        self.consume()
    }

    fn matched(&mut self) {
        self.recovering = false;
        self.last_recovery = None;
    }

    /// Consumes a token of this kind. If the current token has another kind, recovers by skipping or inserting one
    /// token if possible.
    pub(super) fn expect(&mut self, token: Token, next: Set) -> Result<Lexeme, Failure> {
        if self.token() == token {
            return Ok(self.accept());
        }
        self.count_attempt()?;
        let expected = set(&[token]);
        if self.ahead(1) == token {
            self.skip_unwanted(expected)?;
            return Ok(self.accept());
        }
        if self.in_context(next).contains(self.token()) {
            if !self.recovering {
                self.recovering = true;
                let here = self.current();
                let message = format!("missing {} at {}", token.name(), self.quoted(here));
                self.report(here.start, &message)?;
            }
            return Ok(self.current());
        }
        Err(Failure::Mismatch(expected))
    }

    /// Checks that the current token is expected. Otherwise recovers by skipping one token if possible.
    pub(super) fn sync(&mut self, expected: Set) -> Result<(), Failure> {
        if self.recovering || expected.contains(self.token()) || expected.ends_rule() {
            return Ok(());
        }
        if expected.contains(self.ahead(1)) {
            self.skip_unwanted(expected)?;
            self.matched();
            return Ok(());
        }
        Err(Failure::Mismatch(expected))
    }

    /// Checks that a loop can continue or end at the current token. Otherwise skips to a token where it can.
    pub(super) fn sync_loop(&mut self, expected: Set) -> Result<(), Failure> {
        if self.recovering || expected.contains(self.token()) || expected.ends_rule() {
            return Ok(());
        }
        self.report_unwanted(expected)?;
        self.skip_until(expected.or(self.recovery_set()));
        Ok(())
    }

    fn skip_unwanted(&mut self, expected: Set) -> Result<(), Failure> {
        self.report_unwanted(expected)?;
        self.consume();
        Ok(())
    }

    fn report_unwanted(&mut self, expected: Set) -> Result<(), Failure> {
        if self.recovering {
            return Ok(());
        }
        self.recovering = true;
        let here = self.current();
        let message = format!("extraneous input {} expecting {}", self.quoted(here), expected.names());
        self.report(here.start, &message)
    }

    /// Opens a rule that these tokens can follow.
    pub(super) fn enter(&mut self, follow: Set) {
        self.follow.push(follow);
    }

    pub(super) fn leave(&mut self) {
        self.follow.pop();
    }

    /// Reports an error of a rule and skips to a token that can follow.
    pub(super) fn recover(&mut self, rule: &'static str, failure: Failure) -> Result<(), Failure> {
        let (here, message) = match failure {
            Failure::Abort => return Err(Failure::Abort),
            Failure::Mismatch(expected) => {
                let here = self.current();
                (here, format!("mismatched input {} expecting {}", self.quoted(here), expected.names()))
            }
            Failure::NoAlternative(last) => {
                let (first, last) = (self.current(), self.lexeme(last));
                let end = if last.token == Token::End { self.text.len() as u32 } else { last.end };
                let all = self.recognized(first.start, end);
                let input = escape(if first.token == Token::End { "<EOF>" } else { &all });
                let message = format!("no viable alternative at input {input}");
                let message = match all.strip_prefix('.') {
                    Some(word @ ("true" | "false" | "null")) => {
                        format!("mismatched input '{word}' expecting IDENTIFIER")
                    }
                    _ => message,
                };
                (last, message)
            }
        };
        if !self.recovering {
            self.recovering = true;
            self.report(here.start, &message)?;
        }
        self.count_attempt()?;
        if self.last_recovery == Some((self.at, rule)) {
            self.consume();
        }
        self.last_recovery = Some((self.at, rule));
        self.skip_until(self.recovery_set());
        Ok(())
    }

    /// Returns a part of the text, without the parts that are not tokens.
    fn recognized(&self, start: u32, end: u32) -> String {
        let skipped = |at: u32| self.skipped.iter().any(|(from, to)| (*from..*to).contains(&at));
        let kept = (start..end).filter(|at| !skipped(*at));
        kept.filter_map(|at| self.text.get(at as usize)).collect()
    }

    fn recovery_set(&self) -> Set {
        self.follow.iter().fold(Set(0), |all, follow| all.or(*follow))
    }

    fn skip_until(&mut self, until: Set) {
        while self.token() != Token::End && !until.contains(self.token()) {
            self.consume();
        }
    }

    /// Adds the tokens that can follow the open rules, as long as the rules can end.
    fn in_context(&self, mut expected: Set) -> Set {
        for follow in self.follow.iter().rev() {
            if !expected.ends_rule() {
                return expected;
            }
            expected = Set(expected.0 & !RULE_END).or(*follow);
        }
        expected
    }

    /// Returns the index of the token `count` tokens ahead, for [`Failure::NoAlternative`].
    pub(super) fn index_ahead(&self, count: usize) -> usize {
        self.at + count
    }

    fn count_attempt(&mut self) -> Result<(), Failure> {
        self.attempts += 1;
        if self.attempts <= MAX_RECOVERIES {
            return Ok(());
        }
        let message = format!("error recovery attempt limit exceeded: {MAX_RECOVERIES}");
        self.report(self.current().start, &message)?;
        Err(Failure::Abort)
    }

    fn report(&mut self, start: u32, message: &str) -> Result<(), Failure> {
        self.syntax_errors += 1;
        let too_many = self.syntax_errors > MAX_REPORTS;
        let text =
            if too_many { format!("More than {MAX_REPORTS} syntax errors") } else { message.to_owned() };
        let mut issue = self.source.issue_at_offset(start, format!("Syntax error: {text}"));
        if self.text.is_empty() && self.lexemes.len() == 1 {
            // As in cel-go, the end of an empty text has the column -1.
            issue.column = -1;
        }
        if self.syntax_errors <= MAX_REPORTS + 1 {
            self.issues.push(issue);
        }
        if too_many { Err(Failure::Abort) } else { Ok(()) }
    }

    /// Reports an error without a position that ends the parse.
    pub(super) fn abort(&mut self, message: String) -> Failure {
        self.issues.push(Issue { line: -1, column: -1, message });
        Failure::Abort
    }

    fn quoted(&self, lexeme: Lexeme) -> String {
        let text = self.text(lexeme);
        escape(if lexeme.token == Token::End { "<EOF>" } else { &text })
    }
}

fn escape(text: &str) -> String {
    format!("'{}'", text.replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r"))
}

const MAX_RECOVERIES: usize = 30;
const MAX_REPORTS: usize = 100;

const ALL: [Token; 36] = [
    Token::Equals,
    Token::NotEquals,
    Token::In,
    Token::Less,
    Token::LessEquals,
    Token::GreaterEquals,
    Token::Greater,
    Token::And,
    Token::Or,
    Token::LeftBracket,
    Token::RightBracket,
    Token::LeftBrace,
    Token::RightBrace,
    Token::LeftParen,
    Token::RightParen,
    Token::Dot,
    Token::Comma,
    Token::Minus,
    Token::Not,
    Token::Question,
    Token::Colon,
    Token::Plus,
    Token::Star,
    Token::Slash,
    Token::Percent,
    Token::True,
    Token::False,
    Token::Null,
    Token::Float,
    Token::Int,
    Token::Uint,
    Token::String,
    Token::Bytes,
    Token::Ident,
    Token::EscapedIdent,
    Token::End,
];
