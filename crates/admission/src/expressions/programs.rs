//! The compiler of expressions, which measures its work.

use std::sync::Arc;
use std::time::Instant;

use nave_cel::policies::{PolicyCompiler, PolicyExpression, PolicyVariables};
use nave_cel::{ProgramCache, Type};
use nave_metrics::Registrar;
use prometheus::{DEFAULT_BUCKETS, Histogram, Registry};

/// The compiled expressions of webhooks and policies, and the times to compile and evaluate them. Clones share them.
#[derive(Clone, Default)]
pub struct Programs {
    cache: Arc<ProgramCache>,
    times: ExpressionTimes,
}

/// The times to compile and to evaluate an expression, by upstream's names (`apiserver/pkg/cel/metrics`).
#[derive(Clone, Debug)]
pub struct ExpressionTimes {
    compilation: Histogram,
    evaluation: Histogram,
}

/// Compiles the expressions of one webhook or policy.
pub(crate) struct Compiler {
    compiler: PolicyCompiler,
    times: ExpressionTimes,
}

impl Programs {
    /// Creates an empty cache.
    pub fn new(times: ExpressionTimes) -> Self {
        Self { cache: Arc::default(), times }
    }

    /// Makes a compiler use the cache.
    pub(crate) fn compiler(&self, compiler: PolicyCompiler) -> Compiler {
        Compiler { compiler: compiler.with_cache(Arc::clone(&self.cache)), times: self.times.clone() }
    }
}

impl ExpressionTimes {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| Registrar(registry).histogram(name, help, DEFAULT_BUCKETS);
        let (name, help) = ("apiserver_cel_compilation_duration_seconds", "Time to compile an expression.");
        let compilation = histogram(name, help)?;
        let (name, help) = ("apiserver_cel_evaluation_duration_seconds", "Time to evaluate an expression.");
        Ok(Self { compilation, evaluation: histogram(name, help)? })
    }

    /// Records the time of an evaluation.
    pub(super) fn evaluated(&self, started: Instant) {
        self.evaluation.observe(started.elapsed().as_secs_f64());
    }
}

impl Default for ExpressionTimes {
    /// Returns times that are not registered with a caller's registry.
    fn default() -> Self {
        Self::new(&Registry::new())
            .unwrap_or_else(|error| unreachable!("the metrics of this file are valid: {error}"))
    }
}

impl Compiler {
    /// Compiles an expression whose type must be in `wanted`.
    pub(super) fn compile(&self, text: &str, wanted: &[Type]) -> Result<PolicyExpression, String> {
        self.measure(|| self.compiler.compile(text, wanted))
    }

    /// Compiles an expression that cannot use the authorizer.
    pub(super) fn compile_without_authorizer(
        &self,
        text: &str,
        wanted: &[Type],
    ) -> Result<PolicyExpression, String> {
        self.measure(|| self.compiler.compile_without_authorizer(text, wanted))
    }

    /// Declares a variable. Its error is reported when the variable is read.
    pub(crate) fn declare(&mut self, name: &str, text: &str) {
        let started = Instant::now();
        let _ = self.compiler.declare(name, text);
        self.times.compilation.observe(started.elapsed().as_secs_f64());
    }

    /// Allows expressions to create objects and patches.
    pub(crate) fn with_patch_types(self) -> Self {
        Self { compiler: self.compiler.with_patch_types(), ..self }
    }

    /// Returns the declared variables.
    pub(crate) fn into_variables(self) -> PolicyVariables {
        self.compiler.into_variables()
    }

    pub(super) fn times(&self) -> &ExpressionTimes {
        &self.times
    }

    fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.times.compilation.observe(started.elapsed().as_secs_f64());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expressions::VERSION;

    #[test]
    fn each_compilation_is_measured() {
        let times = ExpressionTimes::default();
        let mut compiler = Programs::new(times.clone()).compiler(PolicyCompiler::new(VERSION, false));
        compiler.declare("a", "1");
        assert!(compiler.compile("variables.a == 1", &[Type::Bool]).is_ok());
        assert!(compiler.compile("nothing", &[Type::Bool]).is_err());
        assert_eq!(times.compilation.get_sample_count(), 3);
    }
}
