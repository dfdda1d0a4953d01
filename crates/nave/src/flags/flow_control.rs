//! The flags of priority and fairness and of the limits of requests in flight.

use clap::{ArgAction, Args};
use nave_apiserver::inflight::InflightLimits;

use super::values::{parse_bool, parse_count};
use super::{FlagError, GENERAL};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct FlowControlFlags {
    /// Divide the limits of concurrent requests by priority and fairness.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = GENERAL)]
    enable_priority_and_fairness: bool,
    /// Limit of concurrent get and list requests. With priority and fairness, only the sum of both limits applies, to all
    /// requests. Without it, requests over the limit get 429, and 0 means no limit.
    #[arg(long, value_name = "N", default_value_t = InflightLimits::default().read_only, value_parser = parse_count, help_heading = GENERAL)]
    max_requests_inflight: usize,
    /// Limit of concurrent requests other than get, list and watch. See --max-requests-inflight.
    #[arg(long, value_name = "N", default_value_t = InflightLimits::default().mutating, value_parser = parse_count, help_heading = GENERAL)]
    max_mutating_requests_inflight: usize,
}

/// The limits of concurrent requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowControlConfig {
    /// The limits.
    pub(crate) inflight: InflightLimits,
    /// True if priority and fairness divides the sum of the limits.
    pub(crate) priority_and_fairness: bool,
}

impl FlowControlFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// Priority and fairness has nothing to divide.
    pub(super) fn validate(&self) -> Result<FlowControlConfig, FlagError> {
        let (read_only, mutating) = (self.max_requests_inflight, self.max_mutating_requests_inflight);
        if self.enable_priority_and_fairness && read_only == 0 && mutating == 0 {
            return Err(FlagError::new(
                "max-requests-inflight",
                "must be more than 0 together with --max-mutating-requests-inflight, or set --enable-priority-and-fairness=false",
            ));
        }
        Ok(FlowControlConfig {
            inflight: InflightLimits { read_only, mutating },
            priority_and_fairness: self.enable_priority_and_fairness,
        })
    }
}
