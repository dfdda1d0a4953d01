//! The API over HTTP: from a connection to a resource's storage and back.
//!
//! ```text
//! serving ─→ pipeline ─→ route ─┬─→ aggregator  groups of other servers
//!                               ├─→ peers       resources of API servers of other versions
//!                               ├─→ documents   discovery, OpenAPI, version, health, metrics
//!                               └─→ endpoints   get, list, watch, create, update, patch, delete
//!                                                │
//!                                   lifecycle, admission, strategies
//!                                                │
//!                                             storage ─→ cacher (reads), store (writes)
//! ```
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`serving`] | connections: TLS, HTTP/1.1 and HTTP/2, limits, shutdown |
//! | [`pipeline`] | the stages of a request, in order |
//! | [`context`] | the request context that all stages share |
//! | [`request_info`] | the parsed method, path and query |
//! | [`negotiation`] | the encodings and forms that the client accepts |
//! | [`deadline`] | the deadline of a request |
//! | [`authentication`] | the user of a request |
//! | [`impersonation`] | requests as another user |
//! | [`browsers`] | CORS and HSTS headers |
//! | `flow_control` | priority and fairness: seats, queues, and the configuration from stored objects |
//! | [`inflight`] | limits on the requests served concurrently without priority and fairness |
//! | [`authorization`] | authorizer attributes, and followers that update the authorizers |
//! | [`route`] | the handler of a request |
//! | [`catalog`] | the served resources, as one value |
//! | [`cpu_pool`] | threads for large requests, apart from the executor's |
//! | [`endpoints`] | the verbs, the same for all resources |
//! | `websocket` | watches and streams over WebSocket |
//! | [`connect`] | connections to kubelets, pods and services |
//! | [`aggregator`] | versions of groups that other servers serve |
//! | [`peers`] | resources that only another API server of the cluster serves |
//! | [`lifecycle`] | changes of metadata on create, update and delete |
//! | [`virtual_resources`] | resources without stored objects: bindings, evictions, reviews, tokens |
//! | `internal` | writes by the server itself |
//! | [`conversion`] | the conversion webhooks of custom resources |
//! | [`webhooks`] | the services that webhooks run in |
//! | [`admission`] | listers and writers for admission plugins |
//! | [`allocation`] | cluster IPs and node ports of services |
//! | [`definitions`] | custom resource definitions: names, serving, deletion |
//! | [`storage`] | the objects of one resource, between the endpoints and the store |
//! | `raw_response` | responses that are not API objects |
//! | `aggregated_discovery` | the aggregated discovery documents |
//! | [`documents`], [`openapi`], [`health`], [`metrics`], [`introspection`] | paths that are not resources |
//! | `console` | a page that shows the server at work |
//! | [`local`] | requests from within the process |
//! | [`server`] | construction of a server; [`bootstrap`] creates the objects that the server needs |
//! | [`cluster_authentication`] | the config map with the authentication settings for extension servers |
//!
//! Invariants: each kind is a `ResourceDef`, and no code is specific to one kind; reads of objects that are in memory
//! never call the store; no stage after authorization widens access; client text never becomes a metric label.

pub mod admission;
mod aggregated_discovery;
pub mod aggregator;
pub mod allocation;
pub mod audit;
mod authentication;
pub mod authorization;
mod body;
pub mod bootstrap;
pub mod browsers;
mod cache_metrics;
pub mod catalog;
pub mod cluster_authentication;
pub mod connect;
mod console;
pub mod context;
pub mod conversion;
pub mod cpu_pool;
pub mod deadline;
pub mod definitions;
mod descriptions;
pub mod documents;
pub mod draining;
pub mod endpoints;
mod flow_control;
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
pub mod negotiation;
pub mod openapi;
pub mod peers;
pub mod pipeline;
mod process_metrics;
mod raw_response;
pub mod request_info;
pub mod route;
pub mod server;
pub mod serving;
pub mod steps;
pub mod storage;
mod traces;
mod upgrade;
pub mod version;
pub mod virtual_resources;
mod warnings;
pub mod webhooks;
mod websocket;
pub mod zpages;
