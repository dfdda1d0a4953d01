//! A load generator for Kubernetes API servers. Runs the same work against one server or, for comparison, two.
//!
//! ```text
//! kubeconfig ──► Target ──► Pool of HTTP/2 connections ──► closed loops and watchers ──► Sample ──► Report
//!                                                    /proc of the server's processes ──┘
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | [`http`] | connections, requests, and bodies read without parsing |
//! | [`process`] | CPU time and resident memory of the server, from /proc |
//! | [`load`] | the closed loop, and the [`Sample`](load::Sample) that each scenario returns |
//! | [`objects`] | the pods and config maps to write |
//! | [`scenario`] | the scenarios, in the order in which they run |
//! | [`definitions`] | many CustomResourceDefinitions |
//! | [`growth`] | growth of cost with objects and watchers, and the cost of a restart |
//! | [`flood`] | the latencies of the system's requests while tenants flood the server |
//! | [`watchers`] | many concurrent watchers; each connection is read frame by frame (`streams`) |
//! | [`soak`] | steady load over a long time |
//! | [`spawn`] | starts the server under test, to measure its start and its idle memory |
//! | [`report`] | the targets of each scenario, and the table |
//!
//! Invariants:
//! - The generator runs on one thread and leaves the other cores to the server. A flood has a thread more.
//! - Responses are not parsed during a measurement: newlines are counted, and a few fields are found by scanning.
//! - Counts and times are bounded.
//! - A response with an error status ends the run with the server's message, except for 429 in a flood.
//!
//! ```no_run
//! # async fn example() -> Result<(), nave_loadtest::LoadError> {
//! use nave_loadtest::http::{Call, Target};
//!
//! let target = Target::from_kubeconfig("admin.kubeconfig".as_ref())?;
//! let mut connection = target.connect_http2().await?;
//! let answer = connection.send(&Call::get("/version")).await?.read_all().await?;
//! println!("{}", String::from_utf8_lossy(&answer));
//! # Ok(()) }
//! ```

pub mod definitions;
pub mod flood;
pub mod growth;
pub mod http;
pub mod load;
pub mod objects;
pub mod process;
pub mod report;
pub mod scenario;
pub mod soak;
pub mod spawn;
mod streams;
pub mod watchers;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

/// The error of a measurement.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The kubeconfig is incomplete or uses an unsupported feature.
    #[error("{path}: {problem}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The connection cannot be established.
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    /// TLS cannot be configured from the kubeconfig's certificates.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An HTTP error on a connection.
    #[error("connection: {0}")]
    Broken(std::io::Error),
    /// Reading or writing failed.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request is invalid, for example because of a malformed path.
    #[error("request: {0}")]
    Request(#[from] ::http::Error),
    /// The server returned an error.
    #[error("{call}: {status}: {body}")]
    Refused {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response body.
        body: String,
    },
    /// The server's /proc entry cannot be read.
    #[error("process {0}: {1}")]
    Process(u32, String),
    /// A timeout was exceeded.
    #[error("{what} took longer than {limit:?}")]
    Late {
        /// The event that did not happen in time.
        what: String,
        /// The timeout.
        limit: Duration,
    },
    /// The server under test cannot be started or has exited.
    #[error("{0}: {1}")]
    Spawn(PathBuf, String),
    /// The responses are not those of a Kubernetes API server.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}
