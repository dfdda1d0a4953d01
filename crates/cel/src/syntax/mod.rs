//! Parses text to a tree: tokens, grammar, error recovery, macros.
//!
//! The grammar and the error messages match cel-go. ANTLR generates cel-go's parser, so this parser recovers from
//! errors by ANTLR's default strategy.

pub(crate) mod ast;
mod lexer;
mod literal;
mod macros;
mod macros_two;
mod parser;
mod recovery;
mod source;

pub(crate) use parser::parse;
pub(crate) use source::Source;
pub use source::{Issue, Issues};

/// Maximum nesting of expressions.
pub(crate) const MAX_DEPTH: usize = 250;
/// Maximum length of an expression in code points.
pub(crate) const MAX_CODE_POINTS: usize = 100_000;
