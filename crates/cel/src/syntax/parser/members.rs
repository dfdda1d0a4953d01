//! Selections, calls and messages.

use std::sync::Arc;

use super::{COMMA, MEMBER_LOOP, NAMES, Node, Parser, START};
use crate::syntax::ast::{Expr, Kind, Literal, StructField};
use crate::syntax::lexer::{Lexeme, Token};
use crate::syntax::recovery::{Failure, set};

impl Parser {
    pub(super) fn selection(&mut self, operand: Node) -> Result<Node, Failure> {
        match (self.state.ahead(1), self.state.ahead(2)) {
            (Token::Ident, Token::LeftParen) => {
                self.state.accept();
                let name = self.state.accept();
                let open = self.state.accept();
                let name = self.state.text(name);
                let id = self.state.source.create_id(open.start);
                let (args, height) = self.arguments()?;
                let height = height.max(operand.height) + 1;
                Ok(self.call(id, &name, Some(operand.expr), args, height))
            }
            (Token::Ident | Token::EscapedIdent | Token::Question, _) => {
                let dot = self.state.accept();
                let optional = self.state.token() == Token::Question;
                if optional {
                    self.state.accept();
                }
                let place = self.state.current().start;
                if let Err(failure) = self.state.sync(NAMES) {
                    self.report(place, "unsupported ident kind");
                    return Err(failure);
                }
                let name = self.name()?;
                let height = operand.height + 1;
                if optional {
                    let id = self.state.source.create_id(dot.start);
                    let field = self.node(name.0, Kind::Literal(Literal::String(name.1)), 0);
                    return Ok(self.call(id, "_?._", None, vec![operand.expr, field.expr], height));
                }
                let kind = Kind::Select { operand: Box::new(operand.expr), field: name.1, test: false };
                Ok(self.node(dot.start, kind, height))
            }
            _ => Err(Failure::NoAlternative(self.state.index_ahead(1))),
        }
    }

    /// Parses a name. Reports escaped names, which Kubernetes does not enable.
    pub(super) fn name(&mut self) -> Result<(u32, Arc<str>), Failure> {
        let name = self.state.current();
        if !NAMES.contains(name.token) {
            return Err(Failure::NoAlternative(self.state.index_ahead(0)));
        }
        self.state.accept();
        if name.token == Token::EscapedIdent {
            self.report(name.start, "unsupported syntax: '`'");
        }
        Ok((name.start, self.state.text(name).into()))
    }

    pub(super) fn index(&mut self, target: Node) -> Result<Node, Failure> {
        let open = self.state.accept();
        let id = self.state.source.create_id(open.start);
        let optional = self.optional_mark()?;
        let index = self.expr(set(&[Token::RightBracket]))?;
        self.state.expect(Token::RightBracket, MEMBER_LOOP)?;
        let height = target.height.max(index.height) + 1;
        let function = if optional { "_[?_]" } else { "_[_]" };
        Ok(self.call(id, function, None, vec![target.expr, index.expr], height))
    }

    /// Parses arguments and the closing parenthesis.
    pub(super) fn arguments(&mut self) -> Result<(Vec<Expr>, usize), Failure> {
        self.state.sync(START.or(set(&[Token::RightParen])))?;
        let (mut args, mut height) = (Vec::new(), 0);
        if START.contains(self.state.token()) {
            self.recovered("arguments", set(&[Token::RightParen]), |parser| {
                loop {
                    let node = parser.expr(COMMA)?;
                    height = height.max(node.height);
                    args.push(node.expr);
                    if parser.state.token() != Token::Comma {
                        return Ok(());
                    }
                    parser.state.accept();
                }
            })?;
        }
        self.state.expect(Token::RightParen, MEMBER_LOOP)?;
        Ok((args, height))
    }

    /// Parses an identifier, a call or a message.
    pub(super) fn named(&mut self, first: Lexeme) -> Result<Node, Failure> {
        let dot = usize::from(first.token == Token::Dot);
        if dot == 1 && self.state.ahead(1) != Token::Ident {
            return Err(Failure::NoAlternative(self.state.index_ahead(1)));
        }
        let mut names = 1;
        while self.state.ahead(dot + 2 * names - 1) == Token::Dot
            && self.state.ahead(dot + 2 * names) == Token::Ident
        {
            names += 1;
        }
        if self.state.ahead(dot + 2 * names - 1) == Token::LeftBrace {
            return self.message(dot + 2 * names - 1);
        }
        if dot == 1 {
            self.state.accept();
        }
        let name = self.state.accept();
        let text = self.state.text(name);
        let reserved = RESERVED.contains(&text.as_str());
        let full = if dot == 1 { format!(".{text}") } else { text.clone() };
        if self.state.token() == Token::LeftParen {
            let open = self.state.accept();
            if reserved {
                self.arguments()?;
                return Ok(self.report(first.start, format!("reserved identifier: {text}")));
            }
            let id = self.state.source.create_id(open.start);
            let (args, height) = self.arguments()?;
            return Ok(self.call(id, &full, None, args, height));
        }
        if reserved {
            return Ok(self.report(first.start, format!("reserved identifier: {text}")));
        }
        Ok(self.node(name.start, Kind::Ident(full.into()), 0))
    }

    /// Parses a message whose name has this many tokens.
    pub(super) fn message(&mut self, tokens: usize) -> Result<Node, Failure> {
        let mut name = String::new();
        for _ in 0..tokens {
            let part = self.state.accept();
            name.push_str(&self.state.text(part));
        }
        let open = self.state.accept();
        let id = self.state.source.create_id(open.start);
        let first = NAMES.or(set(&[Token::Question]));
        self.state.sync(first.or(set(&[Token::RightBrace, Token::Comma])))?;
        let (mut fields, mut height) = (Vec::new(), 0);
        if first.contains(self.state.token()) {
            self.recovered("fields", set(&[Token::Comma, Token::RightBrace]), |parser| {
                loop {
                    let optional = parser.state.token() == Token::Question;
                    if optional {
                        parser.state.accept();
                    }
                    parser.state.sync(NAMES)?;
                    let (_, name) = parser.name()?;
                    let colon = parser.state.expect(Token::Colon, START)?;
                    let id = parser.state.source.create_id(colon.start);
                    let node = parser.expr(COMMA)?;
                    height = height.max(node.height);
                    fields.push(StructField { id, name, value: node.expr, optional });
                    if parser.state.token() != Token::Comma || !first.contains(parser.state.ahead(1)) {
                        return Ok(());
                    }
                    parser.state.accept();
                }
            })?;
        }
        self.close(Token::RightBrace)?;
        Ok(Node { expr: Expr { id, kind: Kind::Struct { name: name.into(), fields } }, height })
    }
}

const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];
