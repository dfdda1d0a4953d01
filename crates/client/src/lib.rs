//! client-go's cache machinery, by its names and guarantees, on [`kube`] as the HTTP client.
//!
//! ```text
//!  ListerWatcher ──► Reflector ──► DeltaFifo ──► SharedInformer ──► EventHandler ──► Workqueue ──► run_workers
//!   list, watch       relist,      what happened   │  one cache       each at its       keys, each    reconcile(key)
//!   HTTP or           resume,      to each key     ▼  (Indexer)       own pace          once
//!   in-process        backoff                    Lister
//! ```
//!
//! | to … | use |
//! | --- | --- |
//! | have one informer a type | [`SharedInformerFactory`], over HTTP (`kube::Client`) or [`InProcess`] |
//! | be told what happens | [`SharedInformer::add_event_handler`], [`EventHandler`], [`on_each`], [`filtered`] |
//! | read what there is | [`SharedInformer::lister`]: [`Lister`], indexes by [`SharedInformer::add_index`] |
//! | look at an object | [`Object`]: metadata at once, [`Object::decode`] for the rest |
//! | work on keys, with retries | [`Workqueue`], [`run_workers`] |
//! | act in one process of several | [`leader_election`] |
//! | tell in Events what happened | [`record`] |
//!
//! # Invariants
//! - A cache holds [`Object`]s: JSON and the metadata that is asked for often. Nothing is decoded before somebody asks.
//!   Within the server the JSON is the watch cache's own.
//! - A cache is at least as new as what any handler was told.
//! - A handler is told of each key's adds, updates and deletions in order ([`EventHandler`] has the contract). Handlers
//!   never hold up the informer or each other: what one has not heard is kept for it, in a bounded form.
//! - No change is lost: a watch goes on from the last version seen; where the server has forgotten it, a list follows,
//!   and what is not in it is told of as [`Deleted::FinalStateUnknown`] with the last state known.
//! - A list is not older than what was seen before, unless the server says that it does not know that version.
//! - A key in a [`Workqueue`] is with one worker at a time, and is not lost when it is added meanwhile.
//! - A leader stops before another can lead, whatever becomes of its connection.
//! - Waits after failures grow and are spread by chance ([`Backoff`]); nothing is tried in a tight loop.
//!
//! Where client-go differs: a handler that lags hears of several updates of an object as one; one that panics goes on
//! with the next event; a broken connection is followed by a watch and not a list; a leader counts its lease from when
//! it asked for the renewal.
//!
//! # What it costs
//! 10,000 pods of a server on the same machine (two shared cores: times hold roughly, memory well), streamed lists, and
//! one change of each pod; `cargo run --release -p nave-client --example measure`. Memory is resident, with the JSON:
//!
//! | | synced in | CPU an object | memory an object | CPU an event |
//! | --- | --- | --- | --- | --- |
//! | informer | 124 ms | 8 µs | 3,884 B | 18 µs |
//! | informer whose handler decodes every object | 202 ms | 12 µs | 4,051 B | 35 µs |
//! | kube-rs' reflector | 403 ms | 30 µs | 24,152 B | 33 µs |
//!
//! Within the server an informer with eight handlers over 20,000 pods takes 450 to 620 B a pod beyond the watch cache, what
//! the allocator keeps of the room for the first list included (`--example in_process`, on a busy machine).
//!
//! # A complete controller
//! ```no_run
#![doc = include_str!("../examples/controller.rs")]
//! ```

mod backoff;
mod controller;
mod delivery;
mod delta_fifo;
mod factory;
mod handler;
mod http;
mod in_process;
mod informer;
pub mod leader_election;
mod list_watch;
mod name;
mod object;
pub mod record;
mod redact;
mod reflector;
mod store;
pub mod workqueue;

pub use backoff::Waits;
pub use controller::{Action, run_workers};
pub use delta_fifo::{Deleted, Delta, DeltaFifo, Deltas, MAX_QUEUED_EVENTS};
pub use factory::{FactoryConfig, InProcess, SharedInformerFactory, Source, resource_of};
pub use handler::{
    EventHandler, filtered, on_change, on_change_or_delete, on_delete, on_each, on_each_labelling,
};
pub use http::{HttpListerWatcher, escaped};
pub use in_process::CacherListerWatcher;
pub use informer::{InformerConfig, Registration, SharedInformer, TransformFn};
pub use list_watch::{
    ListOptions, ListWatchError, ListerWatcher, Page, Scope, WatchEvent, WatchOptions, WatchStart,
    WatchStream,
};
pub use name::ObjectName;
pub use nave_machinery::backoff::Backoff;
pub use object::{Object, ObjectError, OwnerRef, PartialObjectMetadata};
pub use redact::{DecodeError, redacted};
pub use reflector::{Reflector, ReflectorConfig, ReflectorStore, WatchErrorHandler};
pub use store::{IndexFn, Indexer, Lister, NAMESPACE_INDEX, NoSuchIndex};
pub use workqueue::Workqueue;
