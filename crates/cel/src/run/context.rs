//! The inputs, limits and consumption of an evaluation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::go_regex::{self, OutOfSteps, Regex};

use super::Consumption;
use crate::authorizer::Authorizer;
use crate::failure::Failure;
use crate::value::Value;

/// Variables that are evaluated when they are read.
pub(crate) trait Lazy<'a>: Send + Sync {
    /// Returns the value of a variable, or `None` if it is not declared.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>>;

    /// Returns the resources used by the variables and the expressions that read them.
    fn consumption(&self) -> &Arc<Consumption>;
}

/// The inputs, limits and consumption of an evaluation.
pub(crate) struct Context<'a> {
    authorizer: &'a dyn Authorizer,
    pub(super) lazy: Option<Arc<dyn Lazy<'a> + 'a>>,
    pub(super) variables: Vec<Option<Result<Value<'a>, Failure>>>,
    pub(super) names: &'a [Arc<str>],
    regexes: &'a HashMap<String, Arc<Regex>>,
    patterns: RefCell<HashMap<String, Arc<Regex>>>,
    cost: Cell<u64>,
    limit: u64,
    consumption: Arc<Consumption>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        authorizer: &'a dyn Authorizer,
        names: &'a [Arc<str>],
        variables: Vec<Option<Result<Value<'a>, Failure>>>,
        regexes: &'a HashMap<String, Arc<Regex>>,
        limit: u64,
    ) -> Self {
        let patterns = RefCell::default();
        let (cost, consumption) = (Cell::new(0), Arc::default());
        Self { authorizer, lazy: None, variables, names, regexes, patterns, cost, limit, consumption }
    }

    /// Adds variables that are evaluated when they are read.
    pub(crate) fn with_lazy(self, lazy: Option<Arc<dyn Lazy<'a> + 'a>>) -> Self {
        let consumption = lazy.as_ref().map_or(self.consumption, |lazy| Arc::clone(lazy.consumption()));
        Self { lazy, consumption, ..self }
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
        self.consumption.allocate(bytes)
    }

    /// Runs a search for a regular expression.
    ///
    /// # Errors
    /// The evaluation takes too many steps in regular expressions.
    pub(crate) fn search<T>(
        &self,
        search: impl FnOnce(&mut u64) -> Result<T, OutOfSteps>,
    ) -> Result<T, Failure> {
        self.consumption.search(search)
    }

    /// Returns a compiled pattern. The inner error is Go's message.
    ///
    /// # Errors
    /// The patterns that the evaluation compiles are too large or too many.
    pub(crate) fn regex(&self, pattern: &str) -> Result<Result<Arc<Regex>, String>, Failure> {
        if let Some(regex) = self.regexes.get(pattern) {
            return Ok(Ok(Arc::clone(regex)));
        }
        if let Some(regex) = self.patterns.borrow().get(pattern) {
            return Ok(Ok(Arc::clone(regex)));
        }
        self.allocate(pattern.len())?;
        let regex = match go_regex::compile(pattern) {
            Ok(regex) => Arc::new(regex),
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.consumption.compiled(&regex)?;
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() < MAX_PATTERNS {
            patterns.insert(pattern.to_owned(), Arc::clone(&regex));
        }
        Ok(Ok(regex))
    }
}

/// Maximum number of cached patterns compiled during one evaluation.
const MAX_PATTERNS: usize = 1024;
