//! The API over HTTP: from a connection to a resource's storage and back.
//!
//! ```text
//! serving ─→ pipeline ─→ route ─┬─→ documents   discovery, OpenAPI, version, health, metrics
//!                               └─→ endpoints   get, list, watch, create, update, patch, delete
//!                                                │
//!                                   lifecycle, admission, strategies
//!                                                │
//!                                             storage ─→ cacher (reads), store (writes)
//! ```
//!
//! | module | its one job |
//! | --- | --- |
//! | [`serving`] | connections: TLS, HTTP/1.1 and HTTP/2, limits, shutdown |
//! | [`pipeline`] | the stages of a request, in order |
//! | [`context`] | what all stages of a request share |
//! | [`request_info`] | what a request asks for |
//! | [`deadline`] | until when it must be answered |
//! | [`authentication`] | the user of a request |
//! | [`impersonation`] | requests in another user's name |
//! | [`browsers`] | what browsers are told of the host and of pages that may read answers |
//! | [`inflight`] | how many requests are served at once |
//! | [`authorization`] | requests as authorization sees them, and what keeps the authorizers up to date |
//! | [`route`] | the handler of a request |
//! | [`cpu_pool`] | large requests off the executor's threads |
//! | [`endpoints`] | the verbs, for every resource alike |
//! | `websocket` | the same watches for clients that cannot read a chunked response |
//! | [`lifecycle`] | what the API does to every object's metadata |
//! | [`virtual_resources`] | virtual resources: bindings, evictions, reviews, tokens |
//! | `internal` | writes of the server itself |
//! | [`admission`] | the cluster as admission plugins see it |
//! | [`allocation`] | cluster IPs and node ports of services |
//! | [`storage`] | one resource's objects between the endpoints and the store |
//! | [`documents`], [`openapi`], [`health`], [`metrics`], [`introspection`] | what is served but is no resource |
//! | [`local`] | the way in for what runs in the same process |
//! | [`server`] | all of it put together; [`bootstrap`] makes the objects it cannot do without |
//! | [`cluster_authentication`] | what extension servers are told of authentication |
//!
//! Invariants: there is no code for a kind here, kinds are `ResourceDef`s; reads never call the store for objects
//! that memory holds; no stage after authorization widens access; no client text becomes a metric's label.

pub mod admission;
pub mod allocation;
pub mod authentication;
pub mod authorization;
mod body;
pub mod bootstrap;
pub mod browsers;
mod cache_metrics;
pub mod cluster_authentication;
pub mod context;
pub mod cpu_pool;
pub mod deadline;
mod descriptions;
pub mod documents;
pub mod endpoints;
mod gzip;
pub mod health;
pub mod impersonation;
pub mod inflight;
mod internal;
pub mod introspection;
mod kinds;
pub mod lifecycle;
pub mod local;
pub mod metrics;
pub mod openapi;
pub mod pipeline;
pub mod request_info;
pub mod route;
pub mod server;
pub mod serving;
pub mod storage;
mod upgrade;
pub mod version;
pub mod virtual_resources;
mod warnings;
mod websocket;
