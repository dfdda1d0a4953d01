//! The warnings and audit annotations of a request.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use nave_machinery::names;
use parking_lot::Mutex;

/// The maximum number of warnings per request; further warnings are dropped. A pod that fails every PodSecurity check
/// stays below this limit. Upstream limits the total size to 4 KiB instead.
const MAX_WARNINGS: usize = 128;
/// The maximum total size of a request's warnings, in bytes.
const MAX_WARNING_BYTES: usize = 32 * 1024;
/// The maximum number of audit annotations per request.
const MAX_ANNOTATIONS: usize = 128;
/// The maximum total size of a request's audit annotations, in bytes.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Collects warnings, audit annotations and reinvocation requests during admission.
#[derive(Debug, Default)]
pub struct Notes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    warnings: Vec<String>,
    warning_bytes: usize,
    annotations: BTreeMap<String, String>,
    annotation_bytes: usize,
    recorded: Recorded,
    trace_parent: Option<String>,
    webhook_time: Duration,
    reinvocation: Reinvocation,
    /// The states of plugins between both runs of the mutating phase.
    states: Vec<(&'static str, Box<dyn Any + Send>)>,
}

/// The annotations that audit records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recorded {
    /// None.
    Nothing,
    /// All except those with parts of objects.
    #[default]
    Metadata,
    /// All.
    Objects,
}

/// The state of reinvocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reinvocation {
    #[default]
    No,
    /// A plugin requested reinvocation.
    Requested,
    /// The mutating plugins are running for the second time.
    Running,
}

/// The reasons why an audit annotation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The key is not of the form `example.com/name`.
    #[error("invalid audit annotation key {0:?}: must be a qualified name with a domain")]
    Key(String),
    /// The key already has a different value.
    #[error(
        "admission annotations are not allowed to be overwritten, key:{key:?}, old value: {old:?}, new value:{new:?}"
    )]
    Overwritten {
        /// The key.
        key: String,
        /// The existing value.
        old: String,
        /// The refused value.
        new: String,
    },
    /// The limit on annotations is reached.
    #[error("too many audit annotations")]
    TooMany,
}

impl Notes {
    /// Adds a warning for the client. Duplicates are ignored, and as upstream also texts with control characters.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        if text.is_empty() || text.contains(char::is_control) {
            return;
        }
        let inner = &mut *self.inner.lock();
        let fits =
            inner.warnings.len() < MAX_WARNINGS && inner.warning_bytes + text.len() <= MAX_WARNING_BYTES;
        if fits && !inner.warnings.contains(&text) {
            inner.warning_bytes += text.len();
            inner.warnings.push(text);
        }
    }

    /// Sets the annotations that audit records. Others are ignored.
    pub fn set_recorded(&self, recorded: Recorded) {
        self.inner.lock().recorded = recorded;
    }

    /// Returns whether audit records these annotations.
    pub fn records(&self, annotations: Recorded) -> bool {
        self.inner.lock().recorded >= annotations
    }

    /// Adds an audit annotation.
    ///
    /// # Errors
    /// [`AnnotationError`].
    pub fn annotate(&self, key: &str, value: impl Into<String>) -> Result<(), AnnotationError> {
        if !key.contains('/') || !names::is_qualified_name(key).is_empty() {
            return Err(AnnotationError::Key(key.to_owned()));
        }
        let new = value.into();
        let inner = &mut *self.inner.lock();
        if inner.recorded == Recorded::Nothing {
            return Ok(());
        }
        if let Some(old) = inner.annotations.get(key) {
            return if *old == new {
                Ok(())
            } else {
                Err(AnnotationError::Overwritten { key: key.to_owned(), old: old.clone(), new })
            };
        }
        let bytes = key.len() + new.len();
        if inner.annotations.len() >= MAX_ANNOTATIONS || inner.annotation_bytes + bytes > MAX_ANNOTATION_BYTES
        {
            return Err(AnnotationError::TooMany);
        }
        inner.annotation_bytes += bytes;
        inner.annotations.insert(key.to_owned(), new);
        Ok(())
    }

    /// Removes and returns the warnings.
    pub fn take_warnings(&self) -> Vec<String> {
        let inner = &mut *self.inner.lock();
        inner.warning_bytes = 0;
        std::mem::take(&mut inner.warnings)
    }

    /// Sets the `traceparent` header of calls that belong to the request.
    pub fn set_trace_parent(&self, header: String) {
        self.inner.lock().trace_parent = Some(header);
    }

    /// Returns the `traceparent` header of calls that belong to the request.
    pub fn trace_parent(&self) -> Option<String> {
        self.inner.lock().trace_parent.clone()
    }

    /// Adds the time that the request has waited for a webhook.
    pub(crate) fn add_webhook_time(&self, time: Duration) {
        self.inner.lock().webhook_time += time;
    }

    /// Returns the time that the request has waited for webhooks.
    pub fn webhook_time(&self) -> Duration {
        self.inner.lock().webhook_time
    }

    /// Returns the audit annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.inner.lock().annotations.clone()
    }

    /// Removes and returns the audit annotations.
    pub fn take_annotations(&self) -> BTreeMap<String, String> {
        let inner = &mut *self.inner.lock();
        inner.annotation_bytes = 0;
        std::mem::take(&mut inner.annotations)
    }

    /// Requests that the mutating plugins run again. The second run cannot request a third.
    pub fn request_reinvocation(&self) {
        let inner = &mut *self.inner.lock();
        if inner.reinvocation == Reinvocation::No {
            inner.reinvocation = Reinvocation::Requested;
        }
    }

    /// Returns whether this is the second run of the mutating plugins.
    pub fn is_reinvocation(&self) -> bool {
        self.inner.lock().reinvocation == Reinvocation::Running
    }

    /// Removes and returns the state that a plugin stored in the first run of the mutating phase.
    pub(crate) fn take_state<T: Default + 'static>(&self, plugin: &'static str) -> T {
        let states = &mut self.inner.lock().states;
        let place = states.iter().position(|(name, _)| *name == plugin);
        let state = place.and_then(|place| states.swap_remove(place).1.downcast().ok());
        state.map(|state| *state).unwrap_or_default()
    }

    /// Stores the state of a plugin for the second run of the mutating phase.
    pub(crate) fn put_state<T: Send + 'static>(&self, plugin: &'static str, state: T) {
        self.inner.lock().states.push((plugin, Box::new(state)));
    }

    /// Starts the second run if it was requested; returns whether it was.
    pub(crate) fn start_reinvocation(&self) -> bool {
        let inner = &mut *self.inner.lock();
        let requested = inner.reinvocation == Reinvocation::Requested;
        if requested {
            inner.reinvocation = Reinvocation::Running;
        }
        requested
    }

    /// Ends the mutating phase. A retry of the write can then reinvoke plugins again.
    pub(crate) fn end_reinvocation(&self) {
        let inner = &mut *self.inner.lock();
        inner.reinvocation = Reinvocation::No;
        inner.states.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_and_deduplicated() {
        let notes = Notes::default();
        for _ in 0..2 {
            notes.warn("a");
            notes.warn("b");
        }
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        notes.warn("x".repeat(MAX_WARNING_BYTES + 1));
        assert!(notes.take_warnings().is_empty());
        for n in 0..2 * MAX_WARNINGS {
            notes.warn(n.to_string());
        }
        assert_eq!(notes.take_warnings().len(), MAX_WARNINGS);
    }

    #[test]
    fn annotations_that_are_not_recorded_are_ignored() {
        let notes = Notes::default();
        assert!(notes.records(Recorded::Metadata) && !notes.records(Recorded::Objects));
        notes.set_recorded(Recorded::Nothing);
        assert_eq!(notes.annotate("example.com/a", "v"), Ok(()));
        assert!(!notes.records(Recorded::Metadata) && notes.annotations().is_empty());
    }

    #[test]
    fn audit_annotations_need_qualified_keys_and_are_immutable() {
        let notes = Notes::default();
        assert!(matches!(notes.annotate("plain", "v"), Err(AnnotationError::Key(_))));
        assert!(matches!(notes.annotate("a b/c", "v"), Err(AnnotationError::Key(_))));
        assert_eq!(notes.annotate("example.com/a", "v"), Ok(()));
        assert_eq!(notes.annotate("example.com/a", "v"), Ok(()));
        assert!(matches!(notes.annotate("example.com/a", "w"), Err(AnnotationError::Overwritten { .. })));
        assert_eq!(
            notes.annotate("example.com/b", "x".repeat(MAX_ANNOTATION_BYTES)),
            Err(AnnotationError::TooMany)
        );
        assert_eq!(notes.take_annotations().len(), 1);
    }
}
