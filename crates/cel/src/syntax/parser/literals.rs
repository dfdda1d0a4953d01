//! Literals.

use super::{Node, Parser};
use crate::syntax::ast::{Kind, Literal};
use crate::syntax::lexer::Token;
use crate::syntax::literal;
use crate::syntax::recovery::Failure;

impl Parser {
    pub(super) fn literal(&mut self) -> Result<Node, Failure> {
        let first = self.state.current();
        let negative = first.token == Token::Minus;
        let token = match (negative, self.state.ahead(1)) {
            (true, Token::Int | Token::Float) => {
                self.state.accept();
                self.state.accept()
            }
            (true, _) => return Err(Failure::NoAlternative(self.state.index_ahead(1))),
            (false, _) => self.state.accept(),
        };
        let text = self.state.text(token);
        let sign = if negative { "-" } else { "" };
        let value = match token.token {
            Token::True => Ok(Literal::Bool(true)),
            Token::False => Ok(Literal::Bool(false)),
            Token::Null => Ok(Literal::Null),
            Token::Int => literal_int(sign, &text).ok_or("invalid int literal"),
            Token::Uint => literal_uint(&text).ok_or("invalid uint literal"),
            Token::Float => literal_double(sign, &text).ok_or("invalid double literal"),
            Token::String => literal::string(&text).map(|it| Literal::String(it.into())),
            Token::Bytes => literal::bytes(&text).map(|it| Literal::Bytes(it.into())),
            _ => Err("unknown parse element encountered"),
        };
        Ok(match value {
            Ok(value) => self.node(first.start, Kind::Literal(value), 0),
            Err(message) => self.report(first.start, message),
        })
    }
}

fn literal_int(sign: &str, text: &str) -> Option<Literal> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Literal::Int)
}

fn literal_uint(text: &str) -> Option<Literal> {
    let text = text.get(..text.len().saturating_sub(1))?;
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    u64::from_str_radix(digits, radix).ok().map(Literal::Uint)
}

fn literal_double(sign: &str, text: &str) -> Option<Literal> {
    let value: f64 = format!("{sign}{text}").parse().ok()?;
    value.is_finite().then_some(Literal::Double(value))
}
