//! The flags of `nave controllers`, with kube-controller-manager's names.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use nave_client::leader_election::LeaderElectionConfig;
use nave_controllers::frame::{Descriptor, Settings};

use super::controller_options::ControllerOptionsFlags;
use super::election::ElectionFlags;
use super::signing::{Signing, SigningFlags};
use super::values::{MAX_COUNT, parse_controllers, parse_verbosity, whole};
use super::{Controllers, FlagError};

const GENERAL: &str = "General";
const CONCURRENCY: &str = "Concurrency";

/// The flags of `nave controllers`, as typed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllersFlags {
    /// Kubeconfig of the cluster to work on.
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    kubeconfig: PathBuf,
    #[arg(long, value_name = "LIST", default_value = "*", allow_hyphen_values = true, help_heading = GENERAL,
          help = controllers_help(""))]
    controllers: String,
    /// Private key (PEM) that signs the tokens in service account secrets. Without it, these secrets get no token.
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    service_account_private_key_file: Option<PathBuf>,
    /// Address of /healthz and /metrics, served over HTTP. Port 0 selects a free port and prints it. Empty disables
    /// them.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10257", value_parser = parse_address, help_heading = GENERAL)]
    healthz_bind_address: Address,
    /// Log level, 0 (quiet) to 10 (everything).
    #[arg(short, long = "v", value_name = "LEVEL", default_value_t = 0, value_parser = parse_verbosity, help_heading = GENERAL)]
    verbosity: u8,

    #[command(flatten)]
    election: ElectionFlags,
    #[command(flatten)]
    signing: SigningFlags,
    #[command(flatten)]
    options: ControllerOptionsFlags,
    #[command(flatten)]
    concurrent_syncs: ConcurrentSyncs,
}

/// The checked configuration of `nave controllers`.
#[derive(Clone, Debug)]
pub(crate) struct ControllersConfig {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) controllers: Controllers,
    /// The key that signs the tokens in secrets.
    pub(crate) private_key_file: Option<PathBuf>,
    /// The CAs that sign certificate requests.
    pub(crate) signing: Signing,
    /// The address of the health endpoint, if it is enabled.
    pub(crate) health: Option<SocketAddr>,
    pub(crate) settings: Settings,
    pub(crate) log_level: u8,
    /// The leader election settings; `None` if leader election is disabled. The caller sets the identity.
    pub(crate) election: Option<LeaderElectionConfig>,
}

impl ControllersFlags {
    /// Checks each flag.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(crate) fn validate(self) -> Result<ControllersConfig, FlagError> {
        let controllers = known_controllers(&self.controllers)?;
        if controllers.selected().next().is_none() {
            return Err(FlagError::new("controllers", "selects no controller, so there is nothing to run"));
        }
        Ok(ControllersConfig {
            kubeconfig: self.kubeconfig,
            controllers,
            private_key_file: self.service_account_private_key_file,
            signing: self.signing.validate(None)?,
            health: self.healthz_bind_address.0,
            settings: Settings {
                workers: self.concurrent_syncs.0,
                options: self.options.validate()?,
                ..Settings::default()
            },
            log_level: self.verbosity,
            election: self.election.validate()?,
        })
    }
}

/// Returns the help of `--controllers`: the syntax of the list and the names of the controllers.
pub(super) fn controllers_help(more: &str) -> String {
    format!(
        "Controllers to run: '*' stands for all that are on by default, 'foo' adds a controller, '-foo' removes one{more}. \
         On by default: {}. Off by default: {}",
        names(|controller| controller.on_by_default),
        names(|controller| !controller.on_by_default)
    )
}

/// Returns the sorted names of the selected controllers.
fn names(which: impl Fn(&Descriptor) -> bool) -> String {
    let all = nave_controllers::CONTROLLERS.iter();
    let mut names: Vec<_> =
        all.filter(|controller| which(controller)).map(|controller| controller.name).collect();
    names.sort_unstable();
    names.join(", ")
}

/// Parses a list of controllers. All of them must be known.
pub(super) fn known_controllers(list: &str) -> Result<Controllers, FlagError> {
    let wrong = |why| FlagError::new("controllers", why);
    let controllers = parse_controllers(list).map_err(wrong)?;
    let known = |name: &str| {
        let mut all = nave_controllers::CONTROLLERS.iter();
        all.any(|controller| controller.name == name || controller.alias == name)
    };
    match controllers.unknown(known) {
        Some(unknown) => {
            Err(wrong(format!("{unknown:?} is not a controller; the controllers are: {}", names(|_| true))))
        }
        None => Ok(controllers),
    }
}

/// An optional address.
#[derive(Clone, Copy, Debug)]
struct Address(Option<SocketAddr>);

fn parse_address(text: &str) -> Result<Address, String> {
    if text.is_empty() {
        return Ok(Address(None));
    }
    let wrong = |_| format!("{text:?} is not an address such as 127.0.0.1:10257 or [::1]:10257");
    text.parse().map(|address| Address(Some(address))).map_err(wrong)
}

/// The number of keys that each controller handles concurrently. Each controller that supports it has a flag.
#[derive(Clone, Debug)]
struct ConcurrentSyncs(HashMap<&'static str, usize>);

impl ConcurrentSyncs {
    fn flags() -> impl Iterator<Item = Arg> {
        let flag = |controller: &Descriptor| {
            let flag = controller.workers.flag?;
            Some(
                Arg::new(flag)
                    .long(flag)
                    .value_name("N")
                    .value_parser(whole(1..=MAX_COUNT))
                    .default_value(controller.workers.default.to_string())
                    .help(format!("Number of objects that {} syncs concurrently", controller.name))
                    .help_heading(CONCURRENCY),
            )
        };
        nave_controllers::CONTROLLERS.iter().filter_map(flag)
    }
}

impl Args for ConcurrentSyncs {
    fn augment_args(command: Command) -> Command {
        command.args(Self::flags())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConcurrentSyncs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = nave_controllers::CONTROLLERS.iter().filter_map(|controller| controller.workers.flag);
        let said = flags.filter_map(|flag| Some((flag, *matches.get_one::<usize>(flag)?)));
        Ok(Self(said.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ControllersFlags,
    }

    fn config(flags: &[&str]) -> Result<ControllersConfig, String> {
        let line = ["nave", "--kubeconfig=f"].into_iter().chain(flags.iter().copied());
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        line.flags.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn concurrent_syncs_flags_set_worker_counts() {
        let workers = config(&["--concurrent-gc-syncs=3"]).unwrap().settings.workers;
        assert_eq!(workers["concurrent-gc-syncs"], 3);
        assert_eq!(workers["concurrent-namespace-syncs"], 10);
        assert!(config(&["--concurrent-deployment-syncs=0"]).is_err());
    }

    #[test]
    fn help_names_each_controller_once() {
        let help = controllers_help("");
        for controller in nave_controllers::CONTROLLERS {
            let names = help.split([' ', ',', '.']).filter(|word| *word == controller.name);
            assert_eq!(names.count(), 1, "{}", controller.name);
        }
    }

    #[test]
    fn parses_health_address() {
        let health = |flag| config(&[flag]).map(|config| config.health.map(|at| at.to_string()));
        assert_eq!(health("--v=0"), Ok(Some("127.0.0.1:10257".to_owned())));
        assert_eq!(health("--healthz-bind-address=[::1]:0"), Ok(Some("[::1]:0".to_owned())));
        assert_eq!(health("--healthz-bind-address="), Ok(None));
        assert!(health("--healthz-bind-address=here").is_err());
    }

    #[test]
    fn rejects_a_list_that_selects_nothing() {
        let all: Vec<_> = nave_controllers::CONTROLLERS.iter().map(|it| format!("-{}", it.name)).collect();
        for nothing in ["none", "-deployment-controller", &format!("*,{}", all.join(","))] {
            let error = config(&["--controllers", nothing]).unwrap_err();
            assert_eq!(error, "--controllers: selects no controller, so there is nothing to run");
        }
        assert!(config(&["--controllers=deployment-controller"]).is_ok());
        let error = config(&["--controllers=*,-no-such"]).unwrap_err();
        assert!(error.contains("\"no-such\"") && error.contains("deployment-controller"), "{error}");
    }

    #[test]
    fn election_errors_name_the_flag() {
        for (flags, flag) in [
            (&["--leader-elect-lease-duration=1s"][..], "--leader-elect-lease-duration: "),
            (&["--leader-elect-lease-duration=10s"], "--leader-elect-lease-duration: "),
            (&["--leader-elect-lease-duration=0s"], "--leader-elect-lease-duration: "),
            (&["--leader-elect-renew-deadline=1s"], "--leader-elect-renew-deadline: "),
            (&["--leader-elect-renew-deadline=0s"], "--leader-elect-renew-deadline: "),
            (&["--leader-elect-retry-period=0s"], "--leader-elect-renew-deadline: "),
            (&["--leader-elect-retry-period=9s"], "--leader-elect-renew-deadline: "),
            (&["--leader-elect-resource-name="], "--leader-elect-resource-name: "),
            (&["--leader-elect-resource-namespace="], "--leader-elect-resource-namespace: "),
        ] {
            let error = config(flags).unwrap_err();
            assert!(error.starts_with(flag), "{flags:?}: {error}");
            assert!(config(&[flags, &["--leader-elect=false"]].concat()).is_ok(), "{flags:?}");
        }
    }

    #[test]
    fn accepts_only_leases_as_lock() {
        assert!(config(&["--leader-elect-resource-lock=leases", "--leader-elect=false"]).is_ok());
        assert!(config(&["--leader-elect-resource-lock=configmaps"]).is_err());
    }
}
