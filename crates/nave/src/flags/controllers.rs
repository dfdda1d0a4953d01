//! The flags of `nave controllers`, by kube-controller-manager's names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nave_client::leader_election::LeaderElectionConfig;

use super::{Controllers, FlagError, parse_controllers, parse_duration};

const GENERAL: &str = "General";
const ELECTION: &str = "Leader election";

/// The flags of `nave controllers`, as typed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllersFlags {
    /// Kubeconfig of the cluster to work on.
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    kubeconfig: PathBuf,
    /// Controllers to run: '*' is all that are on by default, 'foo' adds one, '-foo' takes one away.
    #[arg(long, value_name = "LIST", default_value = "*", allow_hyphen_values = true, help_heading = GENERAL)]
    controllers: String,
    /// Number for the level of log detail, 0 (quiet) to 10 (everything).
    #[arg(short, long = "v", value_name = "LEVEL", default_value_t = 0, help_heading = GENERAL)]
    verbosity: u8,

    /// Of several such processes only the one that holds a Lease works; the others wait to take its place.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = ELECTION)]
    leader_elect: bool,
    /// How long the others wait after the last renewal before one of them takes over.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration, help_heading = ELECTION)]
    leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, help_heading = ELECTION)]
    leader_elect_renew_deadline: Duration,
    /// How long to wait between tries to take or renew the Lease.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration, help_heading = ELECTION)]
    leader_elect_retry_period: Duration,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "kube-controller-manager", help_heading = ELECTION)]
    leader_elect_resource_name: String,
    /// Namespace of the Lease.
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system", help_heading = ELECTION)]
    leader_elect_resource_namespace: String,
}

/// What the flags of `nave controllers` amount to.
#[derive(Clone, Debug)]
pub(crate) struct ControllersConfig {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) controllers: Controllers,
    pub(crate) log_level: u8,
    /// How a leader is chosen, if one is; its identity is still to be filled in.
    pub(crate) election: Option<LeaderElectionConfig>,
}

impl ControllersFlags {
    /// Checks each flag.
    ///
    /// # Errors
    /// The first flag that is wrong, and why.
    pub(crate) fn validate(self) -> Result<ControllersConfig, FlagError> {
        let controllers = known_controllers(&self.controllers)?;
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
        Ok(ControllersConfig {
            kubeconfig: self.kubeconfig,
            controllers,
            log_level: self.verbosity,
            election: self.leader_elect.then_some(election),
        })
    }
}

/// Reads a list of controllers, all of which must be known.
pub(super) fn known_controllers(list: &str) -> Result<Controllers, FlagError> {
    let wrong = |why| FlagError::new("controllers", why);
    let controllers = parse_controllers(list).map_err(wrong)?;
    let known = |name: &str| {
        let mut all = nave_controllers::CONTROLLERS.iter();
        all.any(|controller| controller.name == name || controller.alias == name)
    };
    match controllers.unknown(known) {
        Some(unknown) => Err(wrong(format!("{unknown:?} is not in the list of known controllers"))),
        None => Ok(controllers),
    }
}
