//! The plugins in a row, in two phases.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use crate::attributes::Attributes;
use crate::metrics::{Metrics, Phase, PluginTimer};

/// A plugin that may change an object (upstream: `MutationInterface`).
#[async_trait]
pub trait Mutate: Send + Sync {
    /// Whether the request concerns the plugin. Must be cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Admits the request, changing the object where the plugin does so. There is no object on a deletion.
    ///
    /// # Errors
    /// Why the request is refused.
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status>;
}

/// A plugin that checks an object that no other plugin changes any more (upstream: `ValidationInterface`).
#[async_trait]
pub trait Validate: Send + Sync {
    /// Whether the request concerns the plugin. Must be cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Admits the request. There is no object on a deletion.
    ///
    /// # Errors
    /// Why the request is refused.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status>;
}

/// A plugin, with what it does in each phase.
#[derive(Clone, Default)]
pub struct Plugin {
    /// The mutating phase.
    pub mutate: Option<Arc<dyn Mutate>>,
    /// The validating phase.
    pub validate: Option<Arc<dyn Validate>>,
}

impl Plugin {
    /// A plugin of the mutating phase.
    pub fn mutating(plugin: impl Mutate + 'static) -> Self {
        Self { mutate: Some(Arc::new(plugin)), validate: None }
    }

    /// A plugin of the validating phase.
    pub fn validating(plugin: impl Validate + 'static) -> Self {
        Self { mutate: None, validate: Some(Arc::new(plugin)) }
    }

    /// A plugin of both phases.
    pub fn both(plugin: impl Mutate + Validate + 'static) -> Self {
        let plugin = Arc::new(plugin);
        Self { mutate: Some(Arc::clone(&plugin) as _), validate: Some(plugin) }
    }
}

/// The admission stage: the enabled plugins in order, and the checks that cannot be disabled.
///
/// Deadlines are the caller's: it drops the future, and [`Attributes::deadline`] tells plugins when.
#[derive(Default)]
pub struct Chain {
    mutating: Vec<Link<dyn Mutate>>,
    validating: Vec<Link<dyn Validate>>,
    checks: Vec<Arc<dyn Validate>>,
    metrics: Metrics,
}

struct Link<P: ?Sized> {
    plugin: Arc<P>,
    timer: PluginTimer,
}

impl Chain {
    /// A chain of named plugins, in the order given.
    pub fn new(plugins: Vec<(&'static str, Plugin)>, metrics: Metrics) -> Self {
        let mut chain = Self { metrics, ..Self::default() };
        for (name, Plugin { mutate, validate }) in plugins {
            if let Some(plugin) = mutate {
                let timer = chain.metrics.plugin(name, Phase::Admit);
                chain.mutating.push(Link { plugin, timer });
            }
            if let Some(plugin) = validate {
                let timer = chain.metrics.plugin(name, Phase::Validate);
                chain.validating.push(Link { plugin, timer });
            }
        }
        chain
    }

    /// The same chain with a check at the end of the mutating phase that no flag disables.
    pub fn with_check(mut self, check: Arc<dyn Validate>) -> Self {
        self.checks.push(check);
        self
    }

    /// Runs the mutating phase: the plugins in order, once more where one of them asks for it, then the checks.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Object>,
    ) -> Result<(), Status> {
        let started = Instant::now();
        let outcome = self.run_mutating(attributes, object.as_deref_mut()).await;
        attributes.notes.end_reinvocation();
        self.metrics.step(Phase::Admit, attributes.operation, outcome.is_err(), started.elapsed());
        outcome?;
        for check in &self.checks {
            if check.handles(attributes) {
                check.validate(attributes, object.as_deref()).await?;
            }
        }
        Ok(())
    }

    /// Runs the validating phase.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let started = Instant::now();
        let outcome = self.run_validating(attributes, object).await;
        self.metrics.step(Phase::Validate, attributes.operation, outcome.is_err(), started.elapsed());
        outcome
    }

    async fn run_mutating(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Object>,
    ) -> Result<(), Status> {
        // The end of one plugin is the start of the next: the clock is read once for each.
        let mut started = Instant::now();
        loop {
            for Link { plugin, timer } in &self.mutating {
                if !plugin.handles(attributes) {
                    continue;
                }
                let outcome = plugin.admit(attributes, object.as_deref_mut()).await;
                let ended = Instant::now();
                timer.observe(attributes.operation, outcome.is_err(), ended - started);
                started = ended;
                outcome?;
            }
            if !attributes.notes.start_reinvocation() {
                return Ok(());
            }
        }
    }

    async fn run_validating(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        let mut started = Instant::now();
        for Link { plugin, timer } in &self.validating {
            if !plugin.handles(attributes) {
                continue;
            }
            let outcome = plugin.validate(attributes, object).await;
            let ended = Instant::now();
            timer.observe(attributes.operation, outcome.is_err(), ended - started);
            started = ended;
            outcome?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    type Log = Arc<Mutex<Vec<String>>>;

    /// Notes its calls.
    struct Noting {
        name: &'static str,
        log: Log,
        reinvokes: bool,
        refuses: bool,
        handles: bool,
    }

    impl Noting {
        fn new(name: &'static str, log: &Log) -> Self {
            Self { name, log: Arc::clone(log), reinvokes: false, refuses: false, handles: true }
        }

        fn call(&self, attributes: &Attributes<'_>, phase: &str) -> Result<(), Status> {
            self.log.lock().push(format!("{phase} {}", self.name));
            if self.reinvokes {
                attributes.notes.request_reinvocation();
            }
            if self.refuses { Err(attributes.forbidden(None, self.name)) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Mutate for Noting {
        fn handles(&self, _: &Attributes<'_>) -> bool {
            self.handles
        }

        async fn admit(
            &self,
            attributes: &Attributes<'_>,
            object: Option<&mut Object>,
        ) -> Result<(), Status> {
            if let Some(object) = object {
                object.insert(self.name, true);
            }
            self.call(attributes, "admit")
        }
    }

    #[async_trait]
    impl Validate for Noting {
        fn handles(&self, _: &Attributes<'_>) -> bool {
            self.handles
        }

        async fn validate(&self, attributes: &Attributes<'_>, _: Option<&Object>) -> Result<(), Status> {
            self.call(attributes, "validate")
        }
    }

    async fn run(plugins: Vec<Noting>, check: Option<Noting>) -> (Result<(), (u16, String)>, Value) {
        let plugins = plugins.into_iter().map(|plugin| (plugin.name, Plugin::both(plugin))).collect();
        let mut chain = Chain::new(plugins, Metrics::default());
        if let Some(check) = check {
            chain = chain.with_check(Arc::new(check));
        }
        let request = Request::new(registry(), "", "secrets", json!({}), Value::Null);
        let attributes = request.attributes("s", None);
        let mut object = Object::new();
        let mut result = chain.mutate(&attributes, Some(&mut object)).await;
        if result.is_ok() {
            result = chain.validate(&attributes, Some(&object)).await;
        }
        (outcome(result), object.into_value())
    }

    #[tokio::test]
    async fn phases_run_in_order() {
        let log = Log::default();
        let skipped = Noting { handles: false, ..Noting::new("skipped", &log) };
        let plugins = vec![Noting::new("a", &log), skipped, Noting::new("b", &log)];
        let (result, object) = run(plugins, Some(Noting::new("check", &log))).await;
        assert_eq!((result, object), (Ok(()), json!({"a": true, "b": true})));
        assert_eq!(*log.lock(), ["admit a", "admit b", "validate check", "validate a", "validate b"]);
    }

    #[tokio::test]
    async fn the_first_refusal_ends_it() {
        let log = Log::default();
        let refusing = Noting { refuses: true, ..Noting::new("a", &log) };
        let (result, _) = run(vec![refusing, Noting::new("b", &log)], Some(Noting::new("check", &log))).await;
        assert_eq!(result, Err((403, r#"secrets "s" is forbidden: a"#.to_owned())));
        assert_eq!(*log.lock(), ["admit a"]);
        let log = Log::default();
        let check = Noting { refuses: true, ..Noting::new("check", &log) };
        assert!(run(vec![Noting::new("a", &log)], Some(check)).await.0.is_err());
        assert_eq!(*log.lock(), ["admit a", "validate check"]);
    }

    #[tokio::test]
    async fn mutating_plugins_are_reinvoked_once() {
        let log = Log::default();
        let again = Noting { reinvokes: true, ..Noting::new("b", &log) };
        assert_eq!(run(vec![Noting::new("a", &log), again], None).await.0, Ok(()));
        assert_eq!(*log.lock(), ["admit a", "admit b", "admit a", "admit b", "validate a", "validate b"]);
    }
}
