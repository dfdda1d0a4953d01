//! Lists and maps.

use super::{COMMA, END, Node, OPTIONAL_START, Parser, START};
use crate::syntax::ast::{Expr, Kind, MapEntry};
use crate::syntax::lexer::Token;
use crate::syntax::recovery::{Failure, set};

impl Parser {
    pub(super) fn optional_mark(&mut self) -> Result<bool, Failure> {
        self.state.sync(OPTIONAL_START)?;
        let optional = self.state.token() == Token::Question;
        if optional {
            self.state.accept();
        }
        Ok(optional)
    }

    /// Parses an optional comma and the closing token.
    pub(super) fn close(&mut self, token: Token) -> Result<(), Failure> {
        self.state.sync(set(&[token, Token::Comma]))?;
        if self.state.token() == Token::Comma {
            self.state.accept();
        }
        self.state.expect(token, END).map(|_| ())
    }

    pub(super) fn list(&mut self) -> Result<Node, Failure> {
        let open = self.state.accept();
        let id = self.state.source.create_id(open.start);
        self.state.sync(OPTIONAL_START.or(set(&[Token::RightBracket, Token::Comma])))?;
        let (mut elements, mut optional, mut height) = (Vec::new(), Vec::new(), 0);
        if OPTIONAL_START.contains(self.state.token()) {
            self.recovered("elements", set(&[Token::Comma, Token::RightBracket]), |parser| {
                loop {
                    optional.push(parser.optional_mark()?);
                    let node = parser.expr(COMMA)?;
                    height = height.max(node.height);
                    elements.push(node.expr);
                    if parser.state.token() != Token::Comma || !OPTIONAL_START.contains(parser.state.ahead(1))
                    {
                        return Ok(());
                    }
                    parser.state.accept();
                }
            })?;
        }
        self.close(Token::RightBracket)?;
        Ok(Node { expr: Expr { id, kind: Kind::List { elements, optional } }, height })
    }

    pub(super) fn map(&mut self) -> Result<Node, Failure> {
        let open = self.state.accept();
        let id = self.state.source.create_id(open.start);
        self.state.sync(OPTIONAL_START.or(set(&[Token::RightBrace, Token::Comma])))?;
        let (mut entries, mut height) = (Vec::new(), 0);
        if OPTIONAL_START.contains(self.state.token()) {
            self.recovered("entries", set(&[Token::Comma, Token::RightBrace]), |parser| {
                loop {
                    let optional = parser.optional_mark()?;
                    let key = parser.expr(set(&[Token::Colon]))?;
                    parser.state.expect(Token::Colon, START)?;
                    let value = parser.expr(COMMA)?;
                    height = height.max(key.height).max(value.height);
                    entries.push(MapEntry { key: key.expr, value: value.expr, optional });
                    if parser.state.token() != Token::Comma || !OPTIONAL_START.contains(parser.state.ahead(1))
                    {
                        return Ok(());
                    }
                    parser.state.accept();
                }
            })?;
        }
        self.close(Token::RightBrace)?;
        Ok(Node { expr: Expr { id, kind: Kind::Map(entries) }, height })
    }
}
