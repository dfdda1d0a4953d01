//! The watch cache of one resource: present state, bounded history, and watches on it.
//!
//! ```text
//!  store: list, then watch            Log (one lock, held for pointer copies)           readers
//!  ──────────────────────►  Reflector ─────────────────────────────────────
//!   KeyValue   Decoder        one      State    persistent maps: by key,     ──► Snapshot   lists, gets
//!              (supplied)     task              by indexed field value
//!                                      Window   ring of Arc<Event>           ──► Watcher    a position
//!                                      Buckets  who can be concerned             and a filter
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `cacher` | [`Cacher`]: start, wait for a revision, snapshot, watch |
//! | `reflector` | the task: initial list in pages at one revision, then one watch, resumed where it broke off |
//! | `log` | [`Snapshot`]s, window and index, changed together |
//! | `state` | persistent maps, selection by key, index, namespace or scan |
//! | `window` | history, growing and shrinking with the rate of events |
//! | `buckets` | the index of watchers |
//! | `watcher` | [`Watcher`]: batches of events, bookmarks, ends |
//! | `object`, `event`, `memo` | wire-ready objects, frames shared by all watchers, other encodings on demand |
//!
//! # Invariants
//! - The cacher never calls the store for a client: only its one task does. What memory does not reach is the
//!   caller's to fetch ([`Cacher::snapshot_at`] says `None`).
//! - A snapshot and a watch after its revision together see each change exactly once. A watch has no gap: where
//!   history is lost it ends ([`End::Expired`]), never skips. After a list that was made necessary by a
//!   compaction all watches end, for deletions in between left no trace to tell of.
//! - No lock is held across an await, nor while decoding, encoding or filtering.
//! - A watcher owns no queue. What it may still read is in the window, shared; a slow one costs its position.
//! - An event costs nothing for watchers whose bucket it does not touch, and one wake-up a bucket and chunk.
//! - A batch of the store's watch contains all events of each of its revisions.
//! - Everything is bounded: the window in events and bytes, kept snapshots in number and by the window,
//!   encodings by an [`EncodingBudget`].
//! - A stored version that cannot be decoded is left out of state and events as if it were not there (what was
//!   visible before is told as deleted), logged once and counted: one damaged object must not take the others
//!   with it, as it does upstream, where lists of that resource fail until it is repaired.
//!
//! # What it costs
//! `cargo run --release -p nave-cacher --example cost` prints it. On two shared cores, with objects of 3.7 KB:
//! 1.2 times an object's JSON in resident memory; 10 to 40 µs of CPU an event with the in-memory store of the
//! tests, whether nobody or 1,000 watchers of other nodes are there; 0.1 to 0.25 µs for each delivery to 1,000
//! watchers that match, the frame included; a walk over 20,000 objects 0.4 ms, by a label that nothing bears
//! too; 9 KB for an empty resource.
//!
//! # Example
//! ```
//! use nave_cacher::{Attributes, DecodeError, Decoded, Decoder};
//! use nave_store::KeyValue;
//!
//! /// Of objects that are stored as a bare name.
//! struct Names;
//!
//! impl Decoder for Names {
//!     fn decode(&self, kv: &KeyValue) -> Result<Decoded, DecodeError> {
//!         let name = std::str::from_utf8(&kv.value).map_err(|e| DecodeError(e.to_string()))?;
//!         let head = r#"{"metadata":{"resourceVersion":""#;
//!         let json = format!(r#"{head}{}","name":"{name}"}}}}"#, kv.mod_revision);
//!         Ok(Decoded { json: json.into(), version_at: head.len(), attributes: Attributes::new([], []) })
//!     }
//! }
//!
//! # async fn example(store: std::sync::Arc<dyn nave_store::Store>) -> Result<(), nave_cacher::WatchError> {
//! use nave_cacher::{Cacher, CacherConfig, Filter, Step, WatchRequest, WatchStart};
//!
//! let config = CacherConfig::new("widgets.example.com", "/registry/example.com/widgets/", true);
//! let cacher = Cacher::start(config, store, std::sync::Arc::new(Names));
//! cacher.wait_ready().await;
//! let (filter, start) = (Filter::all().in_namespace("default"), WatchStart::State(cacher.snapshot()));
//! let mut watcher = cacher.watch(WatchRequest { start, filter, bookmarks: true, deadline: None })?;
//! while let Step::Events(events) = watcher.next().await {
//!     events.iter().for_each(|event| print!("{}", String::from_utf8_lossy(&event.json_frame())));
//! }
//! # Ok(())
//! # }
//! ```

mod buckets;
mod cacher;
mod event;
mod filter;
mod log;
mod memo;
mod object;
mod reflector;
mod state;
mod stats;
mod waits;
mod watcher;
mod window;

pub use buckets::Route;
pub use cacher::{Cacher, CacherConfig, TooLarge};
pub use event::{Delivery, Event, EventType};
pub use filter::{FieldRef, FieldTerm, Filter};
pub use memo::{Encoding, EncodingBudget};
pub use object::{Attributes, CachedObject, DecodeError, Decoded, Decoder};
pub use state::{Objects, Selection, Snapshot};
pub use stats::{Counter, Histogram, Introspection, Stats, WindowIntrospection};
pub use watcher::{End, Step, WatchError, WatchRequest, WatchStart, Watcher};
pub use window::WindowBounds;
