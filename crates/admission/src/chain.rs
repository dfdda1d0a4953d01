//! The chain of plugins, in two phases.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Object, Status};

use crate::attributes::Attributes;
use crate::metrics::{Metrics, Phase, PluginTimer};
use crate::observe::{Observation, Observer};

/// A plugin of the mutating phase (upstream: `MutationInterface`).
#[async_trait]
pub trait Mutate: Send + Sync {
    /// Returns whether the plugin handles the request. Must be cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Admits the request; may change the object, which is `None` on a deletion.
    ///
    /// # Errors
    /// The reason of the refusal.
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status>;
}

/// A plugin of the validating phase, after which no plugin changes the object (upstream: `ValidationInterface`).
#[async_trait]
pub trait Validate: Send + Sync {
    /// Returns whether the plugin handles the request. Must be cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Admits the request. The object is `None` on a deletion.
    ///
    /// # Errors
    /// The reason of the refusal.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status>;
}

/// A plugin with its phases.
#[derive(Clone, Default)]
pub struct Plugin {
    /// The mutating phase.
    pub mutate: Option<Arc<dyn Mutate>>,
    /// The validating phase.
    pub validate: Option<Arc<dyn Validate>>,
    /// The stored objects that the plugin follows.
    pub observes: Vec<Observation>,
}

impl Plugin {
    /// A plugin of the mutating phase.
    pub fn mutating(plugin: impl Mutate + 'static) -> Self {
        Self { mutate: Some(Arc::new(plugin)), ..Self::default() }
    }

    /// A plugin of the validating phase.
    pub fn validating(plugin: impl Validate + 'static) -> Self {
        Self { validate: Some(Arc::new(plugin)), ..Self::default() }
    }

    /// A plugin of both phases.
    pub fn both(plugin: impl Mutate + Validate + 'static) -> Self {
        let plugin = Arc::new(plugin);
        Self { mutate: Some(Arc::clone(&plugin) as _), validate: Some(plugin), ..Self::default() }
    }

    /// Adds an observer of the stored objects of a resource.
    pub fn observing(mut self, group: &str, resource: &str, observer: Arc<dyn Observer>) -> Self {
        self.observes.push(Observation { resource: GroupResource::new(group, resource), observer });
        self
    }
}

/// The admission stage: the enabled plugins in order, and the checks that cannot be disabled.
///
/// The caller enforces the deadline by dropping the future. [`Attributes::deadline`] is for plugins that wait.
#[derive(Default)]
pub struct Chain {
    mutating: Vec<ChainEntry<dyn Mutate>>,
    validating: Vec<ChainEntry<dyn Validate>>,
    checks: Vec<Arc<dyn Validate>>,
    observes: Vec<Observation>,
    metrics: Metrics,
}

struct ChainEntry<P: ?Sized> {
    plugin: Arc<P>,
    timer: PluginTimer,
}

impl Chain {
    /// Creates a chain of named plugins, in this order.
    pub fn new(plugins: Vec<(&'static str, Plugin)>, metrics: Metrics) -> Self {
        let mut chain = Self { metrics, ..Self::default() };
        for (name, Plugin { mutate, validate, observes }) in plugins {
            chain.observes.extend(observes);
            if let Some(plugin) = mutate {
                let timer = chain.metrics.plugin(name, Phase::Admit);
                chain.mutating.push(ChainEntry { plugin, timer });
            }
            if let Some(plugin) = validate {
                let timer = chain.metrics.plugin(name, Phase::Validate);
                chain.validating.push(ChainEntry { plugin, timer });
            }
        }
        chain
    }

    /// Adds a check that runs after the mutating phase. Flags cannot disable it.
    pub fn with_check(mut self, check: Arc<dyn Validate>) -> Self {
        self.checks.push(check);
        self
    }

    /// Returns the observers of the plugins. The caller reports the stored objects to them.
    pub fn observations(&self) -> &[Observation] {
        &self.observes
    }

    /// Runs the mutating phase: the plugins in order, a second time if a plugin requests reinvocation, then the checks.
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
        // The end of one plugin is the start of the next, so the clock is read once per plugin.
        let mut started = Instant::now();
        loop {
            for ChainEntry { plugin, timer } in &self.mutating {
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
        for ChainEntry { plugin, timer } in &self.validating {
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

    /// A plugin that records its calls.
    struct Recording {
        name: &'static str,
        log: Log,
        reinvokes: bool,
        refuses: bool,
        handles: bool,
    }

    impl Recording {
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
    impl Mutate for Recording {
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
    impl Validate for Recording {
        fn handles(&self, _: &Attributes<'_>) -> bool {
            self.handles
        }

        async fn validate(&self, attributes: &Attributes<'_>, _: Option<&Object>) -> Result<(), Status> {
            self.call(attributes, "validate")
        }
    }

    async fn run(plugins: Vec<Recording>, check: Option<Recording>) -> (Result<(), (u16, String)>, Value) {
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
        let skipped = Recording { handles: false, ..Recording::new("skipped", &log) };
        let plugins = vec![Recording::new("a", &log), skipped, Recording::new("b", &log)];
        let (result, object) = run(plugins, Some(Recording::new("check", &log))).await;
        assert_eq!((result, object), (Ok(()), json!({"a": true, "b": true})));
        assert_eq!(*log.lock(), ["admit a", "admit b", "validate check", "validate a", "validate b"]);
    }

    #[tokio::test]
    async fn first_refusal_ends_the_phase() {
        let log = Log::default();
        let refusing = Recording { refuses: true, ..Recording::new("a", &log) };
        let (result, _) =
            run(vec![refusing, Recording::new("b", &log)], Some(Recording::new("check", &log))).await;
        assert_eq!(result, Err((403, r#"secrets "s" is forbidden: a"#.to_owned())));
        assert_eq!(*log.lock(), ["admit a"]);
        let log = Log::default();
        let check = Recording { refuses: true, ..Recording::new("check", &log) };
        assert!(run(vec![Recording::new("a", &log)], Some(check)).await.0.is_err());
        assert_eq!(*log.lock(), ["admit a", "validate check"]);
    }

    #[tokio::test]
    async fn mutating_plugins_are_reinvoked_once() {
        let log = Log::default();
        let again = Recording { reinvokes: true, ..Recording::new("b", &log) };
        assert_eq!(run(vec![Recording::new("a", &log), again], None).await.0, Ok(()));
        assert_eq!(*log.lock(), ["admit a", "admit b", "admit a", "admit b", "validate a", "validate b"]);
    }
}
