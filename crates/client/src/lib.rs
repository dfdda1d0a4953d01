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
mod reflector;
mod scan;
mod store;
pub mod workqueue;

pub use backoff::{Backoff, Waits, jittered};
pub use controller::{Action, run_workers};
pub use delta_fifo::{Deleted, Delta, DeltaFifo, Deltas, MAX_QUEUED_EVENTS};
pub use factory::{FactoryConfig, InProcess, Scope, SharedInformerFactory, Source, resource_of};
pub use handler::{EventHandler, filtered, on_each};
pub use http::HttpListerWatcher;
pub use in_process::CacherListerWatcher;
pub use informer::{InformerConfig, Registration, SharedInformer, TransformFn};
pub use list_watch::{
    ListOptions, ListWatchError, ListerWatcher, Page, WatchEvent, WatchOptions, WatchStart, WatchStream,
};
pub use name::ObjectName;
pub use object::{Object, ObjectError, OwnerRef, PartialObjectMetadata};
pub use reflector::{Reflector, ReflectorConfig, ReflectorStore, WatchErrorHandler};
pub use store::{IndexFn, Indexer, Lister, NAMESPACE_INDEX, NoSuchIndex};
pub use workqueue::Workqueue;
