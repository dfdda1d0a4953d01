//! A bounded cache of programs, shared between policies, webhooks and definitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::env::Env;
use crate::expression::CompileError;
use crate::kinds::Type;
use crate::program::{Ast, Program};

/// A compiled expression that can be shared.
#[derive(Debug)]
pub struct Compiled {
    program: Program,
    ty: Type,
    /// The variables that the expression names.
    variables: Vec<Arc<str>>,
}

impl Compiled {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The expression is invalid.
    pub fn new(text: &str, env: &Env) -> Result<Self, CompileError> {
        Ok(Self::from_ast(&Ast::compile(text, env)?)?)
    }

    pub(crate) fn from_ast(ast: &Ast) -> Result<Self, crate::Failure> {
        Ok(Self { program: ast.program()?, ty: ast.output_type().clone(), variables: ast.variables() })
    }

    /// Returns the program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Returns the type of the expression.
    pub fn output_type(&self) -> &Type {
        &self.ty
    }

    /// Returns whether the expression names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| **name == *variable)
    }
}

/// A cache of programs by environment and text. Evicts the programs that were not used for the longest time.
///
/// Programs in use stay in memory after their eviction. Errors are not cached.
#[derive(Debug)]
pub struct ProgramCache {
    max_entries: usize,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// The keys by the time of their last use.
    order: BTreeMap<u64, Key>,
    time: u64,
    bytes: usize,
}

/// The identity of the environment, and the text.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Entry {
    compiled: Arc<Compiled>,
    used: u64,
    bytes: usize,
}

/// Maximum number of programs of a cache by default, and their maximum size in bytes: enough for a few thousand policies.
const DEFAULT_LIMITS: (usize, usize) = (5000, 32 << 20);

impl Default for ProgramCache {
    fn default() -> Self {
        let (max_entries, max_bytes) = DEFAULT_LIMITS;
        Self::new(max_entries, max_bytes)
    }
}

impl ProgramCache {
    /// Creates a cache of at most `max_entries` programs with an estimated size of at most `max_bytes`.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { max_entries, max_bytes, state: Mutex::default() }
    }

    /// Returns the program of an expression; compiles it if it is not in the cache.
    ///
    /// # Errors
    /// The expression is invalid.
    pub fn compile(&self, text: &str, env: &Env) -> Result<Arc<Compiled>, CompileError> {
        let key = (env.identity(), Arc::from(text));
        if let Some(found) = self.state().find(&key) {
            return Ok(found);
        }
        // Compiled without the lock. Two callers may compile the same expression; the last one stays.
        let compiled = Arc::new(Compiled::new(text, env)?);
        let bytes = compiled.program.estimated_bytes() + key.0.len() + text.len() + OVERHEAD;
        if bytes <= self.max_bytes {
            self.state().insert(key, Arc::clone(&compiled), bytes, (self.max_entries, self.max_bytes));
        }
        Ok(compiled)
    }

    /// Returns the number of programs.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Returns whether the cache has no programs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the estimated size of the programs in bytes.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&mut self, key: &Key) -> Option<Arc<Compiled>> {
        self.time += 1;
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        entry.used = self.time;
        self.order.insert(self.time, key.clone());
        Some(Arc::clone(&entry.compiled))
    }

    fn insert(&mut self, key: Key, compiled: Arc<Compiled>, bytes: usize, max: (usize, usize)) {
        self.time += 1;
        self.bytes += bytes;
        self.order.insert(self.time, key.clone());
        if let Some(old) = self.entries.insert(key, Entry { compiled, used: self.time, bytes }) {
            self.order.remove(&old.used);
            self.bytes -= old.bytes;
        }
        while self.entries.len() > max.0 || self.bytes > max.1 {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some(old) = self.entries.remove(&oldest) {
                self.bytes -= old.bytes;
            }
        }
    }
}

/// The size of an entry in bytes, without its program and texts.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env::default().with("i", Type::Int)
    }

    #[test]
    fn returns_one_program_for_equal_environments() {
        let cache = ProgramCache::new(10, 1 << 20);
        let first = cache.compile("i + 1", &env()).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.compile("i + 1", &env()).unwrap()));
        let other = env().with("i", Type::Double);
        assert!(cache.compile("i + 1", &other).is_err());
        assert_eq!(cache.compile("i + 1.0", &other).unwrap().output_type(), &Type::Double);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn distinguishes_objects_with_equal_names_by_their_fields() {
        let cache = ProgramCache::new(10, 1 << 20);
        let env = |ty: Type| Env::default().with("self", Type::object("selfType", [("a", ty)]));
        assert_eq!(cache.compile("self.a", &env(Type::Int)).unwrap().output_type(), &Type::Int);
        assert_eq!(cache.compile("self.a", &env(Type::String)).unwrap().output_type(), &Type::String);
    }

    #[test]
    fn evicts_the_least_recently_used() {
        let cache = ProgramCache::new(2, 1 << 20);
        let first = cache.compile("i + 1", &env()).unwrap();
        cache.compile("i + 2", &env()).unwrap();
        cache.compile("i + 1", &env()).unwrap();
        cache.compile("i + 3", &env()).unwrap();
        assert_eq!(cache.len(), 2);
        assert!(Arc::ptr_eq(&first, &cache.compile("i + 1", &env()).unwrap()));
    }

    #[test]
    fn keeps_within_its_bytes() {
        let cache = ProgramCache::new(1000, 200_000);
        for index in 0..200 {
            cache.compile(&format!("i + {index} > 3 && 'a'.matches('^a+$')"), &env()).unwrap();
            assert!(cache.bytes() <= 200_000);
        }
        assert!(!cache.is_empty());
        let small = ProgramCache::new(1000, 100);
        assert!(small.compile("i > 0", &env()).is_ok());
        assert!(small.is_empty());
    }
}
