//! The grammar: one function per rule.

mod collections;
mod literals;
mod members;

use super::ast::{Expr, Id, Kind};
use super::lexer::Token;
use super::recovery::{Failure, Set, State, set};
use super::source::{Issue, Issues, Source};
use super::{MAX_DEPTH, macros};

/// Parses an expression.
///
/// # Errors
/// The text is not an expression.
pub(crate) fn parse(text: &str, bindings: bool) -> Result<(Expr, Source), Issues> {
    let mut parser = Parser { state: State::new(text), nesting: 0, bindings, issues: Vec::new() };
    if parser.state.issues.first().is_none_or(|issue| issue.line >= 0) {
        let node = parser.start();
        if let Ok(node) = node {
            if node.height > MAX_DEPTH {
                parser.state.abort("max recursion depth exceeded".to_owned());
            }
            if parser.state.issues.is_empty() && parser.issues.is_empty() {
                return Ok((node.expr, parser.state.source));
            }
        }
    }
    let State { source, mut issues, .. } = parser.state;
    issues.append(&mut parser.issues);
    Err(source.issues(issues))
}

/// A tree and its nesting of operators, selections and method calls.
struct Node {
    expr: Expr,
    height: usize,
}

struct Parser {
    state: State,
    nesting: usize,
    /// True if the macro `cel.bind` exists.
    bindings: bool,
    /// Errors other than syntax errors, which come first where both have one position.
    issues: Vec<Issue>,
}

const END: Set = set(&[]).or_end();
const MEMBER: Set = set(&[
    Token::LeftBracket,
    Token::LeftBrace,
    Token::LeftParen,
    Token::Dot,
    Token::Minus,
    Token::True,
    Token::False,
    Token::Null,
    Token::Float,
    Token::Int,
    Token::Uint,
    Token::String,
    Token::Bytes,
    Token::Ident,
]);
const START: Set = MEMBER.or(set(&[Token::Not]));
const OPTIONAL_START: Set = START.or(set(&[Token::Question]));
const RELATIONS: [Token; 7] = [
    Token::Equals,
    Token::NotEquals,
    Token::In,
    Token::Less,
    Token::LessEquals,
    Token::GreaterEquals,
    Token::Greater,
];
const SUMS: [Token; 2] = [Token::Plus, Token::Minus];
const PRODUCTS: [Token; 3] = [Token::Star, Token::Slash, Token::Percent];
const CALC: Set = set(&SUMS).or(set(&PRODUCTS)).or_end();
const MEMBER_LOOP: Set = set(&[Token::Dot, Token::LeftBracket]).or_end();
const NAMES: Set = set(&[Token::Ident, Token::EscapedIdent]);
const COMMA: Set = set(&[Token::Comma]).or_end();

impl Parser {
    fn start(&mut self) -> Result<Node, Failure> {
        self.state.enter(END);
        let node = self.expr(set(&[Token::End]))?;
        let end = self.state.expect(Token::End, END);
        if let Err(failure) = end {
            self.state.recover("start", failure)?;
        }
        Ok(node)
    }

    /// Runs a rule and recovers from an error in it.
    fn rule(
        &mut self,
        name: &'static str,
        follow: Set,
        body: impl FnOnce(&mut Self) -> Result<Node, Failure>,
    ) -> Result<Node, Failure> {
        let start = self.state.current().start;
        let node = self.recovered(name, follow, |parser| body(parser).map(Some))?;
        Ok(node.unwrap_or_else(|| self.node(start, Kind::Error, 0)))
    }

    /// Runs a rule. After an error in the rule, skips to a token that can follow and returns the default.
    fn recovered<T: Default>(
        &mut self,
        name: &'static str,
        follow: Set,
        body: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.state.enter(follow);
        let result = match body(self) {
            Ok(value) => Ok(value),
            Err(failure) => self.state.recover(name, failure).map(|()| T::default()),
        };
        self.state.leave();
        result
    }

    fn node(&mut self, offset: u32, kind: Kind, height: usize) -> Node {
        let id = self.state.source.create_id(offset);
        Node { expr: Expr { id, kind }, height }
    }

    fn report(&mut self, offset: u32, message: impl Into<String>) -> Node {
        let issue = self.state.source.issue_at_offset(offset, message);
        self.issues.push(issue);
        self.node(offset, Kind::Error, 0)
    }

    fn expr(&mut self, follow: Set) -> Result<Node, Failure> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(self.state.abort(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        let node = self.rule("expr", follow, Self::conditional);
        self.nesting -= 1;
        node
    }

    fn conditional(&mut self) -> Result<Node, Failure> {
        let test = self.or(set(&[Token::Question]).or_end())?;
        if self.state.token() != Token::Question {
            return Ok(test);
        }
        let operator = self.state.accept();
        let yes = self.or(set(&[Token::Colon]))?;
        self.state.expect(Token::Colon, START)?;
        let no = self.expr(END)?;
        let height = test.height.max(yes.height).max(no.height) + 1;
        let id = self.state.source.create_id(operator.start);
        Ok(self.call(id, "_?_:_", None, vec![test.expr, yes.expr, no.expr], height))
    }

    fn or(&mut self, follow: Set) -> Result<Node, Failure> {
        self.rule("or", follow, |parser| {
            parser.chain(Token::Or, "_||_", |parser| parser.and(set(&[Token::Or]).or_end()))
        })
    }

    fn and(&mut self, follow: Set) -> Result<Node, Failure> {
        self.rule("and", follow, |parser| {
            parser.chain(Token::And, "_&&_", |parser| {
                let follow = set(&[Token::And]).or_end();
                parser.rule("relation", follow, Self::relation)
            })
        })
    }

    /// Parses terms joined by `&&` or `||` into a balanced tree.
    fn chain(
        &mut self,
        token: Token,
        function: &str,
        mut term: impl FnMut(&mut Self) -> Result<Node, Failure>,
    ) -> Result<Node, Failure> {
        let first = term(self)?;
        let (mut height, mut terms, mut operators) = (first.height, vec![first.expr], Vec::new());
        while self.state.token() == token {
            let operator = self.state.accept();
            let next = term(self)?;
            height = height.max(next.height);
            terms.push(next.expr);
            operators.push(self.state.source.create_id(operator.start));
        }
        let mut terms = terms.into_iter();
        let expr = balance(function, &operators, &mut terms);
        match expr {
            Some(expr) => Ok(Node { expr, height }),
            None => Err(Failure::Abort),
        }
    }

    fn relation(&mut self) -> Result<Node, Failure> {
        let follow = set(&RELATIONS).or_end();
        let mut left = self.rule("calc", follow, Self::sum)?;
        while RELATIONS.contains(&self.state.token()) {
            left = self.binary(left, |parser| {
                parser.rule("relation", follow, |parser| parser.rule("calc", follow, Self::sum))
            })?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Node, Failure> {
        let mut left = self.product()?;
        while SUMS.contains(&self.state.token()) {
            left = self.binary(left, |parser| parser.rule("calc", CALC, Self::product))?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, Failure> {
        let mut left = self.rule("unary", CALC, Self::unary)?;
        while PRODUCTS.contains(&self.state.token()) {
            left = self.binary(left, |parser| {
                parser.rule("calc", CALC, |parser| parser.rule("unary", CALC, Self::unary))
            })?;
        }
        Ok(left)
    }

    fn binary(
        &mut self,
        left: Node,
        right: impl FnOnce(&mut Self) -> Result<Node, Failure>,
    ) -> Result<Node, Failure> {
        let operator = self.state.accept();
        let id = self.state.source.create_id(operator.start);
        let right = right(self)?;
        let function = match operator.token {
            Token::Equals => "_==_",
            Token::NotEquals => "_!=_",
            Token::In => "@in",
            Token::Less => "_<_",
            Token::LessEquals => "_<=_",
            Token::GreaterEquals => "_>=_",
            Token::Greater => "_>_",
            Token::Plus => "_+_",
            Token::Minus => "_-_",
            Token::Star => "_*_",
            Token::Slash => "_/_",
            _ => "_%_",
        };
        let height = left.height.max(right.height) + 1;
        Ok(self.call(id, function, None, vec![left.expr, right.expr], height))
    }

    fn unary(&mut self) -> Result<Node, Failure> {
        self.state.sync(START)?;
        let operator = self.state.current();
        let function = match operator.token {
            Token::Not => "!_",
            Token::Minus if matches!(self.state.ahead(1), Token::Int | Token::Float) => {
                return self.member();
            }
            Token::Minus if MEMBER.contains(self.state.ahead(1)) => "-_",
            Token::Minus => return Err(Failure::NoAlternative(self.state.index_ahead(1))),
            _ => return self.member(),
        };
        let mut count = 0;
        while self.state.token() == operator.token {
            self.state.accept();
            count += 1;
            self.state.sync_loop(MEMBER.or(set(&[operator.token])))?;
        }
        if count % 2 == 0 {
            return self.member();
        }
        let id = self.state.source.create_id(operator.start);
        let target = self.member()?;
        Ok(self.call(id, function, None, vec![target.expr], target.height))
    }

    fn member(&mut self) -> Result<Node, Failure> {
        self.rule("member", END, |parser| {
            let mut node = parser.rule("primary", MEMBER_LOOP, Self::primary)?;
            loop {
                node = match parser.state.token() {
                    Token::Dot => parser.selection(node)?,
                    Token::LeftBracket => parser.index(node)?,
                    _ => return Ok(node),
                };
            }
        })
    }

    fn primary(&mut self) -> Result<Node, Failure> {
        self.state.sync(MEMBER)?;
        let first = self.state.current();
        match first.token {
            Token::Dot | Token::Ident => self.named(first),
            Token::LeftParen => {
                self.state.accept();
                let node = self.expr(set(&[Token::RightParen]))?;
                self.state.expect(Token::RightParen, END)?;
                Ok(node)
            }
            Token::LeftBracket => self.list(),
            Token::LeftBrace => self.map(),
            _ => self.rule("literal", END, Self::literal),
        }
    }

    /// Creates a call, or expands the macro of this name.
    fn call(&mut self, id: Id, function: &str, target: Option<Expr>, args: Vec<Expr>, height: usize) -> Node {
        let mut builder = macros::Builder { source: &mut self.state.source, id, bindings: self.bindings };
        match macros::expand(&mut builder, function, target, args) {
            macros::Expanded::Expr(expr) => Node { expr, height },
            macros::Expanded::Error(at, message) => {
                let offset = self.state.source.offset(at);
                self.report(offset, message)
            }
            macros::Expanded::Call(target, args) => {
                let target = target.map(Box::new);
                Node {
                    expr: Expr { id, kind: Kind::Call { function: function.into(), target, args } },
                    height,
                }
            }
        }
    }
}

/// Joins terms into a balanced tree, so that long chains are not deep.
fn balance(function: &str, operators: &[Id], terms: &mut std::vec::IntoIter<Expr>) -> Option<Expr> {
    if operators.is_empty() {
        return terms.next();
    }
    let middle = operators.len() / 2;
    let left = balance(function, operators.get(..middle)?, terms)?;
    let right = balance(function, operators.get(middle + 1..)?, terms)?;
    let kind = Kind::Call { function: function.into(), target: None, args: vec![left, right] };
    Some(Expr { id: *operators.get(middle)?, kind })
}
