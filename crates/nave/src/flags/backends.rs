//! The limits of connections to kubelets, pods, services and aggregated servers. All are nave's own flags.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use nave_apiserver::connect::backends::{AGGREGATED_DOCUMENTS, BackendLimits, ConnectionCounts};

use super::FlagError;
use super::values::{MAX_COUNT, parse_count, parse_duration, whole};

const BACKENDS: &str = "Streams and backends";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct BackendFlags {
    /// Maximum number of open connections to kubelets, pods, services and aggregated servers, among them the streams of
    /// exec, attach and port-forward. Beyond it 429. 0 means half as many as clients may open. nave's own flag.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_count, help_heading = BACKENDS)]
    max_backend_connections: usize,
    /// Maximum number of these connections to one host. 0 means a share: twice as many as are free. nave's own flag.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_count, help_heading = BACKENDS)]
    max_backend_connections_per_host: usize,
    /// Maximum number of these connections for one user, without the shared ones to aggregated servers. 0 means a share:
    /// twice as many as are free. nave's own flag.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_count, help_heading = BACKENDS)]
    max_backend_connections_per_user: usize,
    /// Maximum number of bytes per second of a stream in each direction: exec, attach, port-forward, and upgraded
    /// connections of proxy requests. 0 means no limit.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=i64::MAX as u64), help_heading = BACKENDS)]
    max_connection_bytes_per_sec: u64,
    /// Time without any byte in both directions after which a stream is ended. nave's own flag.
    #[arg(long, value_name = "DURATION", default_value = "4h0m0s", value_parser = parse_duration, help_heading = BACKENDS)]
    stream_idle_timeout: Duration,
    /// Maximum memory for the discovery and OpenAPI documents of all aggregated servers. nave's own flag.
    #[arg(long, value_name = "BYTES", default_value_t = AGGREGATED_DOCUMENTS, value_parser = whole(0..=MAX_COUNT),
          help_heading = BACKENDS)]
    max_aggregated_documents_bytes: usize,
}

impl BackendFlags {
    /// Checks the flags. The total number of connections is 0 if the number of file descriptors determines it.
    ///
    /// # Errors
    /// The idle time is 0.
    pub(super) fn validate(self) -> Result<BackendLimits, FlagError> {
        if self.stream_idle_timeout.is_zero() {
            return Err(FlagError::new("stream-idle-timeout", "must be more than 0"));
        }
        let limit = |count: usize| (count != 0).then_some(count);
        Ok(BackendLimits {
            connections: ConnectionCounts {
                total: self.max_backend_connections,
                per_host: limit(self.max_backend_connections_per_host),
                per_user: limit(self.max_backend_connections_per_user),
            },
            stream_idle: self.stream_idle_timeout,
            stream_rate: NonZeroU64::new(self.max_connection_bytes_per_sec),
            aggregated_documents: self.max_aggregated_documents_bytes,
        })
    }
}
