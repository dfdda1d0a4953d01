//! A load generator for any Kubernetes API server: the same work against one server or, side by side, two.
//!
//! ```text
//! kubeconfig ──► Target ──► Pool of HTTP/2 connections ──► closed loops and watchers ──► Sample ──► Report
//!                                                    /proc of the server's processes ──┘
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`http`] | connections, calls, and bodies read without being parsed |
//! | [`process`] | CPU time and resident memory of the server, from /proc |
//! | [`load`] | the closed loop, and the [`Sample`](load::Sample) that every piece of work ends in |
//! | [`objects`] | the pods and config maps that are written |
//! | [`scenario`] | the pieces of work, in the order in which they are run |
//! | [`growth`] | how cost grows with objects and watchers, and what a restart takes |
//! | [`watchers`] | many watchers at once, each connection of them read frame by frame (`streams`) |
//! | [`soak`] | steady load over a long time |
//! | [`spawn`] | starting the server under test, to time its start and see its memory when idle |
//! | [`report`] | the bars of each piece of work, and the table |
//!
//! Invariants: it runs on one thread, so that it leaves the other cores to the server; no answer is parsed while
//! time is taken (newlines are counted, a few fields are found by scanning); everything is bounded in count and time;
//! an answer that is not a success ends the run with what the server said.
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

use std::path::PathBuf;
use std::time::Duration;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A kubeconfig that lacks something, or asks for what is not supported here.
    #[error("{path}: {problem}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The connection could not be made.
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    /// TLS could not be configured from the kubeconfig's certificates.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A connection broke.
    #[error("connection: {0}")]
    Broken(std::io::Error),
    /// The exchange broke off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be written, such as one with a malformed path.
    #[error("request: {0}")]
    Request(#[from] ::http::Error),
    /// The server refused.
    #[error("{call}: {status}: {body}")]
    Refused {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// The server's /proc entry could not be read.
    #[error("process {0}: {1}")]
    Process(u32, String),
    /// The server did not get ready.
    #[error("{what} took longer than {limit:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// The server under test could not be started, or ended by itself.
    #[error("{0}: {1}")]
    Spawn(PathBuf, String),
    /// The answers are not those of a Kubernetes API server.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}
