//! API priority and fairness (KEP-1040; upstream: `apiserver/pkg/util/flowcontrol`): which requests run now, which wait,
//! and which are rejected.
//!
//! ```text
//! request ─→ matching ─→ flow ─→ level: queues ─→ Seat (held while the request runs)
//!             (flow schemas)       │
//!                                  └─ allocation: seats lent and borrowed every ten seconds, by demand
//! ```
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`objects`] | the specifications of FlowSchemas and PriorityLevelConfigurations |
//! | [`matching`] | matches requests with flow schemas |
//! | [`dealer`] | shuffle sharding: the queues of a flow |
//! | [`queues`] | fair queuing, as a state machine without clock and locks |
//! | [`work`] | seats and seat-seconds |
//! | [`estimate`] | the expected work of requests |
//! | [`allocation`] | limits from shares, lending and borrowing |
//! | `demand` | statistics of the demand for seats |
//! | `level` | a priority level in use: waiting requests and their seats |
//! | `flow` | a flow schema in use |
//! | [`controller`] | the configuration in use |
//! | [`watches`] | counts of watches, for the work of writes |
//! | `retry_after` | the `Retry-After` of rejected requests |
//! | [`bootstrap`] | the mandatory and suggested objects |
//! | [`metrics`], `timing`, `dump` | metrics and debug dumps |
//!
//! The crate knows neither HTTP nor the store. A request costs two short locks of its priority level; no lock is held
//! across an await. Memory is bounded by the requests that the server accepts: idle queues cost nothing, whatever their
//! number. A request that is cancelled leaves its queue when its future is dropped.

pub mod allocation;
pub mod bootstrap;
pub mod controller;
pub mod dealer;
mod demand;
mod dump;
pub mod estimate;
mod flow;
mod level;
pub mod matching;
pub mod metrics;
pub mod objects;
pub mod queues;
mod retry_after;
mod timing;
pub mod watches;
pub mod work;

pub use controller::{Admission, Controller, Request, Stored};
pub use demand::DemandStats;
pub use dump::BusyQueue;
pub use flow::Flow;
pub use level::Seat;
