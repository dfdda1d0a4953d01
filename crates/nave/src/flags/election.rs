//! The flags of leader election, with kube-controller-manager's names.

use std::time::Duration;

use clap::Args;
use nave_client::leader_election::{ConfigError, LeaderElectionConfig};

use super::FlagError;
use super::values::{parse_bool, parse_duration};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Leader election")]
#[expect(clippy::struct_field_names, reason = "the names of flags")]
pub(super) struct ElectionFlags {
    /// Run the controllers only while this process holds the Lease; other processes wait to take over. A server with an
    /// embedded store is alone and does not elect.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    leader_elect: bool,
    /// Time after the last renewal before another process takes over.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    leader_elect_lease_duration: Duration,
    /// Time that the leader tries to renew the Lease before it stops leading.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    leader_elect_renew_deadline: Duration,
    /// Pause between attempts to acquire or renew the Lease.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    leader_elect_retry_period: Duration,
    /// Kind of the lock; only Leases are supported.
    #[arg(long, value_name = "KIND", default_value = "leases", value_parser = ["leases"])]
    leader_elect_resource_lock: String,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "kube-controller-manager")]
    leader_elect_resource_name: String,
    /// Namespace of the Lease.
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    leader_elect_resource_namespace: String,
}

impl ElectionFlags {
    /// Checks the flags. Returns the settings with an empty identity, or `None` if leader election is disabled.
    ///
    /// # Errors
    /// The settings do not fit together: another process could become the leader while this one still acts, or one
    /// failed renewal would end the leadership.
    pub(super) fn validate(self) -> Result<Option<LeaderElectionConfig>, FlagError> {
        if !self.leader_elect {
            return Ok(None);
        }
        for (flag, name) in [
            ("leader-elect-resource-name", &self.leader_elect_resource_name),
            ("leader-elect-resource-namespace", &self.leader_elect_resource_namespace),
        ] {
            if name.is_empty() {
                return Err(FlagError::new(flag, "must not be empty"));
            }
        }
        let election = LeaderElectionConfig {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
            ..LeaderElectionConfig::new(
                &self.leader_elect_resource_namespace,
                &self.leader_elect_resource_name,
                "",
            )
        };
        let LeaderElectionConfig { renew_deadline, retry_period, .. } = &election;
        election.check_durations().map_err(|error| match error {
            ConfigError::RenewDeadline => FlagError::new(
                "leader-elect-renew-deadline",
                format!(
                    "must be longer than 1.2 times --leader-elect-retry-period ({retry_period:?}), which must not be 0"
                ),
            ),
            ConfigError::LeaseDuration | ConfigError::Identity => FlagError::new(
                "leader-elect-lease-duration",
                format!(
                    "must be longer than --leader-elect-renew-deadline ({renew_deadline:?}), and at least 1s"
                ),
            ),
        })?;
        Ok(Some(election))
    }
}
