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
        loop {
            for Link { plugin, timer } in &self.mutating {
                if !plugin.handles(attributes) {
                    continue;
                }
                let started = Instant::now();
                let outcome = plugin.admit(attributes, object.as_deref_mut()).await;
                timer.observe(attributes.operation, outcome.is_err(), started.elapsed());
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
        for Link { plugin, timer } in &self.validating {
            if !plugin.handles(attributes) {
                continue;
            }
            let started = Instant::now();
            let outcome = plugin.validate(attributes, object).await;
            timer.observe(attributes.operation, outcome.is_err(), started.elapsed());
            outcome?;
        }
        Ok(())
    }
}
