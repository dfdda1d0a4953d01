//! The flags of servers behind a load balancer: shutdown, and distribution of clients.

use std::time::Duration;

use clap::Args;

use super::values::{parse_bool, parse_duration, parse_ratio};
use super::{FlagError, GENERAL};

/// The maximum of `--goaway-chance`: a larger chance would make clients reconnect all the time.
const MAX_GOAWAY_CHANCE: f64 = 0.02;

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = GENERAL)]
pub(super) struct LifecycleFlags {
    /// Time to continue serving after SIGTERM while /readyz fails, so that load balancers notice.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    shutdown_delay_duration: Duration,
    /// After that time, answer new requests with 429 and Retry-After until the requests in flight have completed.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    shutdown_send_retry_after: bool,
    /// Time over which watches end at shutdown, each at a random moment. 0 ends all watches at once.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    shutdown_watch_termination_grace_period: Duration,
    /// Probability that a request over HTTP/2 makes the server send GOAWAY, so that the client connects again, perhaps
    /// to another server. Requests in flight complete. From 0 (never) to 0.02.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0, value_parser = parse_ratio)]
    goaway_chance: f64,
    /// Reconciler of the endpoints of the service kubernetes: lease (those of servers that renew a lease), or none.
    #[arg(long, value_name = "KIND", default_value = "lease", value_parser = ["lease", "none"])]
    endpoint_reconciler_type: String,
}

/// The settings of servers behind a load balancer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifecycle {
    /// Time to continue serving after SIGTERM.
    pub(crate) shutdown_delay: Duration,
    /// True if new requests are answered with 429 afterwards.
    pub(crate) sends_retry_after: bool,
    /// Time over which watches end.
    pub(crate) watch_grace: Duration,
    /// Probability of a GOAWAY per request.
    pub(crate) goaway_chance: f64,
    /// True if the server keeps the endpoints of the service `kubernetes`.
    pub(crate) reconciles_endpoints: bool,
}

impl LifecycleFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// The chance of a GOAWAY is too large.
    pub(super) fn validate(self) -> Result<Lifecycle, FlagError> {
        if self.goaway_chance > MAX_GOAWAY_CHANCE {
            let why = format!("must be from 0 to {MAX_GOAWAY_CHANCE}");
            return Err(FlagError::new("goaway-chance", why));
        }
        Ok(Lifecycle {
            shutdown_delay: self.shutdown_delay_duration,
            sends_retry_after: self.shutdown_send_retry_after,
            watch_grace: self.shutdown_watch_termination_grace_period,
            goaway_chance: self.goaway_chance,
            reconciles_endpoints: self.endpoint_reconciler_type != "none",
        })
    }
}
