//! Audit: records who did what, as `audit.k8s.io/v1` events (upstream: `apiserver/pkg/audit`).
//!
//! ```text
//! policy ─→ Rule: level, stages, managed fields            once per request
//! request ─→ Event, one per stage ─→ Auditor ─┬─ log      queue ─→ thread: encode, write, rotate
//!                                             └─ webhook  queue ─→ task: encode, batch, throttle, retry
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`policy`] | the policy file and its rules |
//! | [`event`] | the event of a stage and its JSON; `body`: request and response objects; `legacy`: the text format |
//! | `auditor` | the policy with its backends, and their modes |
//! | [`log`], `rotation` | the log backend and its files |
//! | [`webhook`] | the webhook backend |
//! | `queue`, `truncate` | what both backends share |
//! | `deliveries` | the events that requests wait for |
//! | `metrics` | upstream's metrics |
//!
//! Invariants:
//! - A request builds an event and hands it over. Encoding, writing and sending happen elsewhere.
//! - An event is recorded or counted as lost, even if its request ends while it waits.
//! - In batch mode a request never waits. Events that do not fit into the buffer are counted and dropped.
//! - A log file contains whole lines only: an interrupted write is undone, also after the process was killed.
//! - Buffers are bounded in events and bytes. Files are readable by their owner only.

mod auditor;
mod body;
mod deliveries;
pub mod event;
mod legacy;
pub mod log;
mod metrics;
pub mod policy;
mod queue;
mod recent;
mod rotation;
mod truncate;
pub mod webhook;

pub use auditor::{Auditor, Mode, Options, StartError};
pub use body::Body;
pub use event::{Event, ObjectReference, Origin, ResponseStatus, Stage};
pub use metrics::Metrics;
pub use policy::{Level, Policy, Recording, Request};
pub use queue::{BatchOptions, Throttle};
pub use recent::RecentEvent;
pub use truncate::Truncation;
