//! [`ListerWatcher`]: where a reflector gets objects from, and what goes wrong there.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{Object, ObjectError};

/// The objects of a resource that are listed and watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Those of this namespace; empty for all.
    pub namespace: String,
    /// Those whose labels this selects; empty for all.
    pub labels: String,
    /// Those whose fields this selects; empty for all.
    pub fields: String,
    /// Only their metadata.
    pub metadata_only: bool,
}

/// A list and a watch of one resource, or of the part of it that selectors select.
#[async_trait]
pub trait ListerWatcher: Send + Sync + 'static {
    /// One page of the list.
    async fn list(&self, options: &ListOptions) -> Result<Page, ListWatchError>;

    /// A watch. The stream ends when the server ends it in peace; what else ends it is its last item.
    async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, ListWatchError>;

    /// Whether a watch may begin with the present state ([`WatchStart::InitialEvents`]), which costs the server less
    /// than a list. Where a server refuses it, the reflector lists.
    fn streams_lists(&self) -> bool {
        true
    }
}

/// The events of a watch.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ListWatchError>>;

/// Which page of which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The version the list must not be older than: `0` for any that is there, empty for the latest.
    pub resource_version: String,
    /// At most so many objects; 0 for all.
    pub limit: u32,
    /// Where the page before ended.
    pub continue_token: String,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects.
    pub items: Vec<Object>,
    /// The version of the whole list.
    pub resource_version: String,
    /// Where the next page begins; empty at the end.
    pub continue_token: String,
}

/// Where a watch starts and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// Where it starts.
    pub start: WatchStart,
    /// The server is to end it after this.
    pub timeout: Duration,
}

/// Where a watch starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// After this version.
    After(String),
    /// With all objects as added, then a bookmark that says so, in a state that is not older than this version
    /// (empty for the latest).
    InitialEvents(String),
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object has come into sight.
    Added(Object),
    /// It has changed.
    Modified(Object),
    /// It has gone from sight; this is its last state, with the version of its going.
    Deleted(Object),
    /// All up to this version has been told.
    Bookmark {
        /// The version.
        resource_version: String,
        /// Whether it ends the initial events.
        initial_events_end: bool,
    },
}

impl WatchEvent {
    /// The version up to which all has been told with it.
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object.resource_version(),
            Self::Bookmark { resource_version, .. } => resource_version,
        }
    }
}

/// Why a list or a watch failed.
#[derive(Debug, thiserror::Error)]
pub enum ListWatchError {
    /// History does not reach back to the version asked for (410).
    #[error("expired: {0}")]
    Expired(String),
    /// The server has not reached the version asked for, or does not know it.
    #[error("too large resource version: {0}")]
    TooLargeResourceVersion(String),
    /// The request itself is not one the server takes (400, 403 on options, 422).
    #[error("invalid: {0}")]
    Invalid(String),
    /// The server asks to be left alone for a while (429, 503 with a time).
    #[error("too many requests: {message}")]
    TooManyRequests {
        /// What the server says.
        message: String,
        /// How long, where it says so.
        retry_after: Option<Duration>,
    },
    /// Another answer that is no success.
    #[error("{code} {reason}: {message}")]
    Status {
        /// The HTTP code.
        code: u16,
        /// The API's reason.
        reason: String,
        /// What the server says.
        message: String,
    },
    /// No answer, or one that broke off.
    #[error("connection: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is not what it should be.
    #[error("unexpected answer: {0}")]
    Malformed(String),
    /// An object that cannot be read.
    #[error("object: {0}")]
    Object(#[from] ObjectError),
}

impl ListWatchError {
    /// Whether the version asked for is of no use any more, so that a list must follow.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(_))
    }

    /// Whether a watch that ended so can go on from where it was, rather than after a list.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connection(_) | Self::TooManyRequests { .. } => true,
            Self::Status { code, .. } => *code >= 500,
            _ => false,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
