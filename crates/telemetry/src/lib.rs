//! Traces of requests (upstream: `component-base/tracing`), exported by the OpenTelemetry protocol over gRPC.
//!
//! ```text
//! traceparent ─→ TraceContext ─→ Tracer: sampled? ─→ Span … ─→ queue ─→ Exporter ─→ collector
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | `config` | `TracingConfiguration` (`--tracing-config-file`) |
//! | `context` | the `traceparent` header (W3C Trace Context) |
//! | `span` | a span of a trace |
//! | `export`, `otlp` | the exporter and its messages |
//!
//! Invariants: a request never waits for the collector; spans that do not fit into the queue are dropped. No span
//! contains a body or a credential.

mod config;
mod context;
mod export;
mod otlp;
mod span;

pub use config::{Config, ConfigError};
pub use context::TraceContext;
pub use export::{Exporter, Tracer};
pub use span::{Attribute, Kind, Span};
