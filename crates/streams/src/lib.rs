//! Streams between a client and a kubelet, for `exec`, `attach` and `portforward`.
//!
//! ```text
//! client ── WebSocket, v5.channel.k8s.io ─── remote_command ─── SPDY/3.1 streams ── kubelet
//! client ── WebSocket, SPDY/3.1+… ────────── tunnel ─────────── bytes ───────────── kubelet
//! client ── any upgraded protocol ────────── relay ──────────── bytes ───────────── kubelet
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`spdy`] | SPDY/3.1: frames, compressed headers, multiplexed streams |
//! | [`remote_command`] | the channels of a client's WebSocket as the SPDY streams of a kubelet |
//! | [`tunnel`] | bytes in the binary messages of a WebSocket |
//! | [`relay`] | bytes between two connections |
//! | [`idle`] | connections on which no byte moves |
//! | [`throttle`] | connections with a maximum rate |
//! | `client` | the client's end of a WebSocket |
//!
//! Invariants: the crate dials nothing and spawns no task, so dropping a future ends all that it does. No input panics.
//! Every buffer has a limit: a stream that is not read stops its connection, and never grows in memory.

mod client;
pub mod idle;
pub mod relay;
pub mod remote_command;
pub mod spdy;
pub mod throttle;
pub mod tunnel;

use std::time::Duration;

/// Maximum time until a backend has taken the end of a connection.
pub(crate) const FINISH: Duration = Duration::from_secs(30);
/// Size of the pieces in which bytes are read and passed on.
pub(crate) const PIECE: usize = 32 << 10;
