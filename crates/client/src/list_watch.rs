//! [`ListerWatcher`]: the source of a reflector, and its errors.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{Object, ObjectError};

/// Restricts a list and watch to a subset of a resource's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The namespace; empty for all namespaces.
    pub namespace: String,
    /// The label selector; empty to select all objects.
    pub labels: String,
    /// The field selector; empty to select all objects.
    pub fields: String,
    /// True to request metadata only.
    pub metadata_only: bool,
}

/// Lists and watches one resource, possibly restricted by selectors.
#[async_trait]
pub trait ListerWatcher: Send + Sync + 'static {
    /// Returns one page of the list.
    async fn list(&self, options: &ListOptions) -> Result<Page, ListWatchError>;

    /// Starts a watch. The stream ends without an error if the server closes it normally. Otherwise its last item
    /// is the error.
    async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, ListWatchError>;

    /// Returns whether a watch can start with the current state ([`WatchStart::InitialEvents`]). This costs the
    /// server less than a list. If the server rejects such a watch, the reflector lists.
    fn streams_lists(&self) -> bool {
        true
    }
}

/// The events of a watch.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ListWatchError>>;

/// The options of a list request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The minimum version: `0` for any available version, empty for the latest version.
    pub resource_version: String,
    /// The maximum number of objects in the page; 0 for no limit.
    pub limit: u32,
    /// The continue token of the previous page.
    pub continue_token: String,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects.
    pub items: Vec<Object>,
    /// The version of the list.
    pub resource_version: String,
    /// The continue token of the next page; empty on the last page.
    pub continue_token: String,
}

/// The options of a watch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// The start of the watch.
    pub start: WatchStart,
    /// The time after which the server should end the watch.
    pub timeout: Duration,
}

/// The start of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// Starts after this version.
    After(String),
    /// Starts with all objects as added and a bookmark after them. The state is at least as new as this version
    /// (empty for the latest version).
    InitialEvents(String),
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object was created, or now matches the selectors.
    Added(Object),
    /// The object was changed.
    Modified(Object),
    /// The object was deleted or no longer matches the selectors. Contains its last state, with the version of the
    /// deletion.
    Deleted(Object),
    /// All events up to this version have been sent.
    Bookmark {
        /// The version.
        resource_version: String,
        /// True if this bookmark ends the initial events.
        initial_events_end: bool,
    },
}

impl WatchEvent {
    /// Returns the version up to which all events have been sent, including this event.
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object.resource_version(),
            Self::Bookmark { resource_version, .. } => resource_version,
        }
    }
}

/// The reasons why a list or a watch failed.
#[derive(Debug, thiserror::Error)]
pub enum ListWatchError {
    /// The requested version is too old (410).
    #[error("expired: {0}")]
    Expired(String),
    /// The server has not reached the requested version or does not know it.
    #[error("too large resource version: {0}")]
    TooLargeResourceVersion(String),
    /// The server rejects the request (400, 403 for its options, 422).
    #[error("invalid: {0}")]
    Invalid(String),
    /// The server is overloaded (429, 503 with a delay).
    #[error("too many requests: {message}")]
    TooManyRequests {
        /// The server's message.
        message: String,
        /// The delay that the server requests, if any.
        retry_after: Option<Duration>,
    },
    /// Any other error response.
    #[error("{code} {reason}: {message}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// The reason in the `Status`.
        reason: String,
        /// The server's message.
        message: String,
    },
    /// The response is missing or incomplete.
    #[error("connection: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The response is invalid.
    #[error("unexpected response: {0}")]
    Malformed(String),
    /// An object cannot be parsed.
    #[error("object: {0}")]
    Object(#[from] ObjectError),
}

impl ListWatchError {
    /// Returns whether the version has expired, so that a list is required.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(_))
    }

    /// Returns whether a watch can resume without a list after this error.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection(_) | Self::TooManyRequests { .. } => true,
            Self::Status { code, .. } => *code >= 500,
            _ => false,
        }
    }

    /// Returns the delay that the server requests.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
