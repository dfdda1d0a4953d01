//! The warnings and audit annotations that plugins leave on a request.

use std::collections::BTreeMap;

use nave_machinery::names;
use parking_lot::Mutex;

/// Warnings kept of one request; further ones are dropped. Upstream's recorder ends at a total of 4 KiB, which a
/// request whose pods fail each check of PodSecurity stays below.
const MAX_WARNINGS: usize = 128;
/// Bytes of warnings kept of one request.
const MAX_WARNING_BYTES: usize = 32 * 1024;
/// Audit annotations kept of one request.
const MAX_ANNOTATIONS: usize = 128;
/// Bytes of audit annotations kept of one request.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Collects warnings and audit annotations while a request is admitted, and whether a plugin asked for reinvocation.
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
    reinvocation: Reinvocation,
}

/// How often the chain of mutating plugins runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reinvocation {
    #[default]
    No,
    /// A plugin asked for it.
    Requested,
    /// The chain runs for the second time.
    Running,
}

/// An audit annotation cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The key is not of the form `example.com/name`.
    #[error("invalid audit annotation key {0:?}: must be a qualified name with a domain")]
    Key(String),
    /// The request has a different value for the key.
    #[error(
        "admission annotations are not allowed to be overwritten, key:{key:?}, old value: {old:?}, new value:{new:?}"
    )]
    Overwritten {
        /// The key.
        key: String,
        /// The value kept.
        old: String,
        /// The value refused.
        new: String,
    },
    /// The request has as many as are kept.
    #[error("too many audit annotations")]
    TooMany,
}

impl Notes {
    /// Adds a warning for the client, unless the request has it already.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let inner = &mut *self.inner.lock();
        let fits =
            inner.warnings.len() < MAX_WARNINGS && inner.warning_bytes + text.len() <= MAX_WARNING_BYTES;
        if fits && !inner.warnings.contains(&text) {
            inner.warning_bytes += text.len();
            inner.warnings.push(text);
        }
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

    /// The warnings, which are taken out.
    pub fn take_warnings(&self) -> Vec<String> {
        let inner = &mut *self.inner.lock();
        inner.warning_bytes = 0;
        std::mem::take(&mut inner.warnings)
    }

    /// The audit annotations, which are taken out.
    pub fn take_annotations(&self) -> BTreeMap<String, String> {
        let inner = &mut *self.inner.lock();
        inner.annotation_bytes = 0;
        std::mem::take(&mut inner.annotations)
    }

    /// Asks for the mutating plugins to run once more. The second run cannot ask for a third.
    pub fn request_reinvocation(&self) {
        let inner = &mut *self.inner.lock();
        if inner.reinvocation == Reinvocation::No {
            inner.reinvocation = Reinvocation::Requested;
        }
    }

    /// Whether the mutating plugins run for the second time.
    pub fn is_reinvocation(&self) -> bool {
        self.inner.lock().reinvocation == Reinvocation::Running
    }

    /// Starts the second run, if a plugin asked for it.
    pub(crate) fn start_reinvocation(&self) -> bool {
        let inner = &mut *self.inner.lock();
        let requested = inner.reinvocation == Reinvocation::Requested;
        if requested {
            inner.reinvocation = Reinvocation::Running;
        }
        requested
    }

    /// Ends the mutating phase: a retry of the write may ask again.
    pub(crate) fn end_reinvocation(&self) {
        self.inner.lock().reinvocation = Reinvocation::No;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_and_told_once() {
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
    fn audit_annotations_have_qualified_keys_and_are_written_once() {
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
