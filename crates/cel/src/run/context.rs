//! The inputs, limits and consumption of an evaluation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::go_regex;
use regex::Regex;

use crate::authorizer::Authorizer;
use crate::failure::Failure;
use crate::value::Value;

/// Variables that are evaluated when they are read.
pub(crate) trait Lazy<'a>: Send + Sync {
    /// Returns the value of a variable, or `None` if it is not declared.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>>;
}

/// The inputs, limits and consumption of an evaluation.
pub(crate) struct Context<'a> {
    authorizer: &'a dyn Authorizer,
    pub(super) lazy: Option<Arc<dyn Lazy<'a> + 'a>>,
    pub(super) variables: Vec<Option<Result<Value<'a>, Failure>>>,
    pub(super) names: &'a [Arc<str>],
    regexes: &'a HashMap<String, Regex>,
    patterns: RefCell<HashMap<String, Regex>>,
    cost: Cell<u64>,
    limit: u64,
    memory: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        authorizer: &'a dyn Authorizer,
        names: &'a [Arc<str>],
        variables: Vec<Option<Result<Value<'a>, Failure>>>,
        regexes: &'a HashMap<String, Regex>,
        limit: u64,
    ) -> Self {
        let patterns = RefCell::default();
        let (cost, memory) = (Cell::new(0), Cell::new(0));
        Self { authorizer, lazy: None, variables, names, regexes, patterns, cost, limit, memory }
    }

    /// Adds variables that are evaluated when they are read.
    pub(crate) fn with_lazy(self, lazy: Option<Arc<dyn Lazy<'a> + 'a>>) -> Self {
        Self { lazy, ..self }
    }

    pub(crate) fn authorizer(&self) -> &'a dyn Authorizer {
        self.authorizer
    }

    /// Returns the cost so far.
    pub(crate) fn cost(&self) -> u64 {
        self.cost.get()
    }

    pub(super) fn charge(&self, cost: u64) -> Result<(), Failure> {
        let total = self.cost.get().saturating_add(cost);
        self.cost.set(total);
        if total > self.limit { Err(Failure::Cost) } else { Ok(()) }
    }

    /// Returns an error if `cost`, which is charged after the work, would exceed the limit.
    pub(crate) fn reserve_cost(&self, cost: u64) -> Result<(), Failure> {
        let total = self.cost.get().saturating_add(cost);
        if total > self.limit {
            self.cost.set(total);
            return Err(Failure::Cost);
        }
        Ok(())
    }

    /// Counts bytes that are about to be allocated.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<(), Failure> {
        let total = self.memory.get().saturating_add(bytes);
        self.memory.set(total);
        if total > MAX_MEMORY { Err(Failure::Memory) } else { Ok(()) }
    }

    /// Returns a compiled pattern. The inner error is Go's message.
    ///
    /// # Errors
    /// The evaluation compiles too many patterns. Compilation takes far longer than its cost.
    pub(crate) fn regex(&self, pattern: &str) -> Result<Result<Regex, String>, Failure> {
        if let Some(regex) = self.regexes.get(pattern) {
            return Ok(Ok(regex.clone()));
        }
        if let Some(regex) = self.patterns.borrow().get(pattern) {
            return Ok(Ok(regex.clone()));
        }
        self.allocate(PATTERN_BYTES)?;
        let regex = match go_regex::compile(pattern) {
            Ok(regex) => regex,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() < MAX_PATTERNS {
            patterns.insert(pattern.to_owned(), regex.clone());
        }
        Ok(Ok(regex))
    }
}

/// Maximum size in bytes of the values that one evaluation creates.
const MAX_MEMORY: usize = 64 << 20;

/// The memory that a pattern compiled during an evaluation counts as. Limits such patterns to about 2,000.
const PATTERN_BYTES: usize = 32 << 10;

/// Maximum number of cached patterns compiled during one evaluation.
const MAX_PATTERNS: usize = 32;
