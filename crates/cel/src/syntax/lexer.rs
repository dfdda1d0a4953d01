//! Tokens.

/// Kinds of tokens, in the order of the grammar and of error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    LeftParen,
    RightParen,
    Dot,
    Comma,
    Minus,
    Not,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Ident,
    EscapedIdent,
    End,
}

impl Token {
    /// Returns the name in lists of expected tokens.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Equals => "'=='",
            Self::NotEquals => "'!='",
            Self::In => "'in'",
            Self::Less => "'<'",
            Self::LessEquals => "'<='",
            Self::GreaterEquals => "'>='",
            Self::Greater => "'>'",
            Self::And => "'&&'",
            Self::Or => "'||'",
            Self::LeftBracket => "'['",
            Self::RightBracket => "']'",
            Self::LeftBrace => "'{'",
            Self::RightBrace => "'}'",
            Self::LeftParen => "'('",
            Self::RightParen => "')'",
            Self::Dot => "'.'",
            Self::Comma => "','",
            Self::Minus => "'-'",
            Self::Not => "'!'",
            Self::Question => "'?'",
            Self::Colon => "':'",
            Self::Plus => "'+'",
            Self::Star => "'*'",
            Self::Slash => "'/'",
            Self::Percent => "'%'",
            Self::True => "'true'",
            Self::False => "'false'",
            Self::Null => "'null'",
            Self::Float => "NUM_FLOAT",
            Self::Int => "NUM_INT",
            Self::Uint => "NUM_UINT",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Ident => "IDENTIFIER",
            Self::EscapedIdent => "ESC_IDENTIFIER",
            Self::End => "<EOF>",
        }
    }
}

/// A token and its position, in code points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A part of the text that is not a token. It is reported and skipped.
pub(super) struct Unrecognized {
    pub(super) start: u32,
    pub(super) text: String,
}

/// Splits the text into tokens, with an end token at the end.
pub(super) fn tokens(text: &[char]) -> (Vec<Lexeme>, Vec<Unrecognized>) {
    let (mut tokens, mut unrecognized) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < text.len() {
        let scanner = Scanner { text, at };
        let mut reach = at;
        match scanner.longest(&mut reach) {
            Some((token, end)) => {
                if let Some(token) = token {
                    tokens.push(Lexeme { token, start: at as u32, end: end as u32 });
                }
                at = end;
            }
            None => {
                // The text up to and including the first character that continues no token, as ANTLR reports it.
                let end = (reach + 1).min(text.len());
                let skipped = text.get(at..end).unwrap_or_default().iter().collect();
                unrecognized.push(Unrecognized { start: at as u32, text: skipped });
                at = end.max(at + 1);
            }
        }
    }
    let end = text.len() as u32;
    tokens.push(Lexeme { token: Token::End, start: end, end });
    (tokens, unrecognized)
}

struct Scanner<'a> {
    text: &'a [char],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, at: usize) -> Option<char> {
        self.text.get(at).copied()
    }

    fn while_(&self, mut at: usize, accepts: impl Fn(char) -> bool) -> usize {
        while self.peek(at).is_some_and(&accepts) {
            at += 1;
        }
        at
    }

    /// Returns the longest token at the current position; the token is `None` for white space and comments. Sets
    /// `reach` to the farthest position that a token could have matched.
    fn longest(&self, reach: &mut usize) -> Option<(Option<Token>, usize)> {
        let at = self.at;
        let first = self.peek(at)?;
        let one = |token| Some((Some(token), at + 1));
        let pair =
            |next: char, both: Token| (self.peek(at + 1) == Some(next)).then_some((Some(both), at + 2));
        match first {
            '\t' | ' ' | '\r' | '\n' | '\u{c}' => {
                Some((None, self.while_(at, |it| matches!(it, '\t' | ' ' | '\r' | '\n' | '\u{c}'))))
            }
            '/' if self.peek(at + 1) == Some('/') => Some((None, self.while_(at, |it| it != '\n'))),
            '=' | '&' | '|' => {
                let both = match first {
                    '=' => Token::Equals,
                    '&' => Token::And,
                    _ => Token::Or,
                };
                *reach = at + 1;
                pair(first, both)
            }
            '!' => pair('=', Token::NotEquals).or_else(|| one(Token::Not)),
            '<' => pair('=', Token::LessEquals).or_else(|| one(Token::Less)),
            '>' => pair('=', Token::GreaterEquals).or_else(|| one(Token::Greater)),
            '[' => one(Token::LeftBracket),
            ']' => one(Token::RightBracket),
            '{' => one(Token::LeftBrace),
            '}' => one(Token::RightBrace),
            '(' => one(Token::LeftParen),
            ')' => one(Token::RightParen),
            ',' => one(Token::Comma),
            '-' => one(Token::Minus),
            '?' => one(Token::Question),
            ':' => one(Token::Colon),
            '+' => one(Token::Plus),
            '*' => one(Token::Star),
            '/' => one(Token::Slash),
            '%' => one(Token::Percent),
            '.' => match self.peek(at + 1) {
                Some('0'..='9') => self.number(),
                _ => one(Token::Dot),
            },
            '0'..='9' => self.number(),
            '`' => self.escaped_ident(reach),
            '"' | '\'' => self.string(at, false, Token::String, reach),
            'a'..='z' | 'A'..='Z' | '_' => self.word(reach),
            _ => None,
        }
    }

    fn number(&self) -> Option<(Option<Token>, usize)> {
        let digit = |it: char| it.is_ascii_digit();
        let unsigned = |end: usize| match self.peek(end) {
            Some('u' | 'U') => Some((Some(Token::Uint), end + 1)),
            _ => Some((Some(Token::Int), end)),
        };
        if self.peek(self.at) == Some('0') && self.peek(self.at + 1) == Some('x') {
            let end = self.while_(self.at + 2, |it| it.is_ascii_hexdigit());
            if end > self.at + 2 {
                return unsigned(end);
            }
        }
        let whole = self.while_(self.at, digit);
        let mut end = whole;
        if self.peek(whole) == Some('.') && self.peek(whole + 1).is_some_and(digit) {
            end = self.while_(whole + 1, digit);
        }
        if matches!(self.peek(end), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(end + 1), Some('+' | '-')));
            if self.peek(end + 1 + sign).is_some_and(digit) {
                return Some((Some(Token::Float), self.while_(end + 1 + sign, digit)));
            }
        }
        if end > whole { Some((Some(Token::Float), end)) } else { unsigned(whole) }
    }

    fn escaped_ident(&self, reach: &mut usize) -> Option<(Option<Token>, usize)> {
        let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-' | '/' | ' ');
        let end = self.while_(self.at + 1, allowed);
        *reach = end;
        (end > self.at + 1 && self.peek(end) == Some('`')).then_some((Some(Token::EscapedIdent), end + 1))
    }

    /// Scans a keyword, an identifier, or a string with a prefix.
    fn word(&self, reach: &mut usize) -> Option<(Option<Token>, usize)> {
        let end = self.while_(self.at, |it| it.is_ascii_alphanumeric() || it == '_');
        let word: String = self.text.get(self.at..end)?.iter().collect();
        if matches!(self.peek(end), Some('"' | '\'')) {
            let found = match word.as_str() {
                "r" | "R" => self.string(end, true, Token::String, reach),
                "b" | "B" => self.string(end, false, Token::Bytes, reach),
                "br" | "bR" | "Br" | "BR" => self.string(end, true, Token::Bytes, reach),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        let token = match word.as_str() {
            "in" => Token::In,
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            _ => Token::Ident,
        };
        Some((Some(token), end))
    }

    /// Scans a string whose quote is at `quote`. The longest match wins, so `''` may begin a triple quote.
    fn string(
        &self,
        quote: usize,
        raw: bool,
        token: Token,
        reach: &mut usize,
    ) -> Option<(Option<Token>, usize)> {
        let mark = self.peek(quote)?;
        let triple = self.peek(quote + 1) == Some(mark) && self.peek(quote + 2) == Some(mark);
        if triple {
            let mut at = quote + 3;
            while let Some(next) = self.peek(at) {
                if next == mark && self.peek(at + 1) == Some(mark) && self.peek(at + 2) == Some(mark) {
                    return Some((Some(token), at + 3));
                }
                match self.step(at, raw) {
                    Ok(after) => at = after,
                    Err(failed) => {
                        *reach = (*reach).max(failed);
                        break;
                    }
                }
            }
            *reach = (*reach).max(at);
            return Some((Some(token), quote + 2));
        }
        let mut at = quote + 1;
        loop {
            match self.peek(at) {
                Some(next) if next == mark => return Some((Some(token), at + 1)),
                None | Some('\n' | '\r') => break,
                Some(_) => match self.step(at, raw) {
                    Ok(after) => at = after,
                    Err(failed) => {
                        *reach = (*reach).max(failed);
                        return None;
                    }
                },
            }
        }
        *reach = (*reach).max(at);
        None
    }

    /// Returns the position after one character or escape. The error is the position of the invalid character of an
    /// escape.
    fn step(&self, at: usize, raw: bool) -> Result<usize, usize> {
        if raw || self.peek(at) != Some('\\') {
            return Ok(at + 1);
        }
        let hex = |count: usize| {
            let end = self.while_(at + 2, |it| it.is_ascii_hexdigit()).min(at + 2 + count);
            if end == at + 2 + count { Ok(end) } else { Err(end) }
        };
        match self.peek(at + 1) {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => Ok(at + 2),
            Some('x' | 'X') => hex(2),
            Some('u') => hex(4),
            Some('U') => hex(8),
            Some('0'..='3') => {
                let end = self.while_(at + 2, |it| ('0'..='7').contains(&it)).min(at + 4);
                if end == at + 4 { Ok(end) } else { Err(end) }
            }
            _ => Err(at + 1),
        }
    }
}
