//! The authorization flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::ArgPredicate;
use nave_authz::AllowedPaths;
use nave_authz::config::{Configuration, ConnectionInfo, Interval, WebhookEntry};

use super::FlagError;
use super::values::parse_duration;

const HEADING: &str = "Authorization";
const EXTENSION: &str = "Extension server";
/// The default time to cache the decisions of another API server (upstream's value).
const DELEGATED_TTL: &str = "10s";
/// The default modes.
const DEFAULT_MODES: [&str; 2] = ["Node", "RBAC"];
const MODES: [&str; 6] = ["AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node"];

/// The authorization flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct AuthorizationFlags {
    /// Authorizers in order; the first that allows or denies a request decides: AlwaysAllow, AlwaysDeny, ABAC, Webhook,
    /// RBAC, Node. The default without --authorization-config is Node,RBAC.
    #[arg(long = "authorization-mode", value_name = "MODES", value_delimiter = ',')]
    modes: Vec<String>,
    /// Policies of the mode ABAC, one JSON object per line.
    #[arg(long = "authorization-policy-file", value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// File in kubeconfig format with the webhook of the mode Webhook.
    #[arg(long = "authorization-webhook-config-file", value_name = "FILE")]
    webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReview objects sent to the webhook: v1beta1 or v1.
    #[arg(long = "authorization-webhook-version", value_name = "VERSION", default_value = "v1beta1")]
    webhook_version: String,
    /// Time to cache the webhook's decisions to allow. With --authorization-kubeconfig, the other server's; the default
    /// is then 10s.
    #[arg(long = "authorization-webhook-cache-authorized-ttl", value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration,
          default_value_if("authorization_kubeconfig", ArgPredicate::IsPresent, DELEGATED_TTL))]
    webhook_cache_authorized_ttl: Duration,
    /// Time to cache the webhook's decisions not to allow. With --authorization-kubeconfig, the other server's; the
    /// default is then 10s.
    #[arg(long = "authorization-webhook-cache-unauthorized-ttl", value_name = "DURATION", default_value = "30s", value_parser = parse_duration,
          default_value_if("authorization_kubeconfig", ArgPredicate::IsPresent, DELEGATED_TTL))]
    webhook_cache_unauthorized_ttl: Duration,
    /// AuthorizationConfiguration that replaces --authorization-mode and the webhook's flags. Reloaded when it changes.
    #[arg(long = "authorization-config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// kubeconfig of the API server that aggregates this one and authorizes all requests (SubjectAccessReview), instead
    /// of --authorization-mode. By default this server then runs no controllers and does not check namespaces
    /// (NamespaceLifecycle): both are the other server's.
    #[arg(id = "authorization_kubeconfig", long = "authorization-kubeconfig", value_name = "FILE", help_heading = EXTENSION)]
    kubeconfig: Option<PathBuf>,
    /// Paths for which --authorization-kubeconfig is not asked, such as health checks: all requests are allowed. A
    /// trailing * stands for all paths with this prefix.
    #[arg(long = "authorization-always-allow-paths", value_name = "PATHS", value_delimiter = ',',
          default_value = "/healthz,/readyz,/livez", help_heading = EXTENSION)]
    always_allow_paths: Vec<String>,
}

/// The checked configuration of authorization.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) authorizers: Authorizers,
    pub(crate) policy_file: Option<PathBuf>,
}

/// The source of the list of authorizers.
#[derive(Clone, Debug)]
pub(crate) enum Authorizers {
    /// A file that may change.
    File(PathBuf),
    /// The flags.
    Given(Configuration),
    /// Another API server.
    Delegated(DelegatedAuthorization),
}

/// The API server that authorizes this one's requests.
#[derive(Clone, Debug)]
pub(crate) struct DelegatedAuthorization {
    pub(crate) kubeconfig: PathBuf,
    /// The time to cache its decisions to allow.
    pub(crate) authorized_ttl: Duration,
    /// The time to cache its decisions not to allow.
    pub(crate) unauthorized_ttl: Duration,
    /// The paths for which it is not asked.
    pub(crate) allowed_paths: AllowedPaths,
}

impl Authorization {
    /// Returns whether another API server authorizes requests.
    pub(super) fn is_delegated(&self) -> bool {
        matches!(self.authorizers, Authorizers::Delegated(_))
    }
}

impl AuthorizationFlags {
    /// Uses kube-apiserver's default, AlwaysAllow, if no flag names authorizers.
    pub(super) fn default_to_always_allow(&mut self) {
        if self.modes.is_empty() && self.config.is_none() && self.kubeconfig.is_none() {
            self.modes.push("AlwaysAllow".to_owned());
        }
    }

    /// Checks each flag and the combinations of flags.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(super) fn validate(self) -> Result<Authorization, FlagError> {
        let policy_file = self.policy_file.clone();
        if let Some(kubeconfig) = &self.kubeconfig {
            let others = [
                !self.modes.is_empty(),
                self.config.is_some(),
                self.webhook_config_file.is_some(),
                policy_file.is_some(),
            ];
            if others.contains(&true) {
                let why =
                    "excludes --authorization-mode, --authorization-config and the flags of single modes";
                return Err(FlagError::new("authorization-kubeconfig", why));
            }
            let allowed_paths = AllowedPaths::new(&self.always_allow_paths)
                .map_err(|why| FlagError::new("authorization-always-allow-paths", why.to_string()))?;
            let delegated = DelegatedAuthorization {
                kubeconfig: kubeconfig.clone(),
                authorized_ttl: self.webhook_cache_authorized_ttl,
                unauthorized_ttl: self.webhook_cache_unauthorized_ttl,
                allowed_paths,
            };
            return Ok(Authorization { authorizers: Authorizers::Delegated(delegated), policy_file });
        }
        if let Some(file) = &self.config {
            if !self.modes.is_empty() || self.webhook_config_file.is_some() {
                let why = "can not be specified when --authorization-mode or --authorization-webhook-* flags are defined";
                return Err(FlagError::new("authorization-config", why));
            }
            return Ok(Authorization { authorizers: Authorizers::File(file.clone()), policy_file });
        }
        let modes: Vec<&str> = match self.modes.as_slice() {
            [] => DEFAULT_MODES.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        self.check_modes(&modes)?;
        let webhook = self.webhook();
        let given = Configuration::of_modes(modes.iter().copied(), webhook.as_ref());
        given.check().map_err(|why| FlagError::new("authorization-mode", why.to_string()))?;
        Ok(Authorization { authorizers: Authorizers::Given(given), policy_file })
    }

    fn check_modes(&self, modes: &[&str]) -> Result<(), FlagError> {
        let wrong = |flag, why: String| Err(FlagError::new(flag, why));
        for (at, mode) in modes.iter().enumerate() {
            if !MODES.contains(mode) {
                let why = format!("{mode:?} is not a mode; the modes are: {}", MODES.join(", "));
                return wrong("authorization-mode", why);
            }
            if modes[..at].contains(mode) {
                return wrong("authorization-mode", format!("{mode:?} is listed twice"));
            }
        }
        for (mode, flag, file) in [
            ("ABAC", "authorization-policy-file", &self.policy_file),
            ("Webhook", "authorization-webhook-config-file", &self.webhook_config_file),
        ] {
            match (modes.contains(&mode), file) {
                (true, None) => return wrong(flag, format!("required with mode {mode}")),
                (false, Some(_)) => return wrong(flag, format!("only valid with mode {mode}")),
                _ => {}
            }
        }
        Ok(())
    }

    fn webhook(&self) -> Option<WebhookEntry> {
        let file = self.webhook_config_file.as_ref()?;
        // A kubeconfig path is relative to the working directory.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let (authorized, unauthorized) =
            (self.webhook_cache_authorized_ttl, self.webhook_cache_unauthorized_ttl);
        let default = WebhookEntry::default();
        let ttl = |given: Duration, default| if given.is_zero() { default } else { Interval(Some(given)) };
        Some(WebhookEntry {
            timeout: Interval(Some(nave_authz::config::MAX_TIMEOUT)),
            authorized_ttl: ttl(authorized, default.authorized_ttl),
            cache_authorized_requests: !authorized.is_zero(),
            unauthorized_ttl: ttl(unauthorized, default.unauthorized_ttl),
            cache_unauthorized_requests: !unauthorized.is_zero(),
            subject_access_review_version: self.webhook_version.clone(),
            failure_policy: "NoOpinion".to_owned(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".to_owned(),
                kube_config_file: Some(file),
            },
            ..default
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: AuthorizationFlags,
    }

    fn authorization(arguments: &[&str]) -> Result<Authorization, String> {
        let cli = Cli::try_parse_from(["x"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        cli.flags.validate().map_err(|error| error.to_string())
    }

    fn kinds(arguments: &[&str]) -> Vec<String> {
        match authorization(arguments).unwrap().authorizers {
            Authorizers::Given(given) => given.authorizers.into_iter().map(|entry| entry.kind).collect(),
            Authorizers::File(file) => vec![file.display().to_string()],
            Authorizers::Delegated(delegated) => {
                vec![format!("{:?}", delegated.authorized_ttl), format!("{:?}", delegated.unauthorized_ttl)]
            }
        }
    }

    #[test]
    fn reads_modes_from_flags_or_file() {
        assert_eq!(kinds(&[]), ["Node", "RBAC"]);
        assert_eq!(kinds(&["--authorization-mode=RBAC,AlwaysDeny"]), ["RBAC", "AlwaysDeny"]);
        assert_eq!(kinds(&["--authorization-config=a.yaml"]), ["a.yaml"]);
        let delegated = "--authorization-kubeconfig=a";
        assert_eq!(kinds(&[delegated]), ["10s", "10s"]);
        assert_eq!(kinds(&[delegated, "--authorization-webhook-cache-authorized-ttl=1m"]), ["60s", "10s"]);
    }

    #[test]
    fn rejects_contradictory_flags() {
        for (arguments, error) in [
            (
                &["--authorization-mode=Foo"][..],
                "--authorization-mode: \"Foo\" is not a mode; the modes are: AlwaysAllow, ",
            ),
            (&["--authorization-mode=RBAC,RBAC"], "--authorization-mode: \"RBAC\" is listed twice"),
            (&["--authorization-mode=ABAC"], "--authorization-policy-file: required with mode ABAC"),
            (&["--authorization-policy-file=x"], "--authorization-policy-file: only valid with mode ABAC"),
            (
                &["--authorization-mode=Webhook"],
                "--authorization-webhook-config-file: required with mode Webhook",
            ),
            (
                &["--authorization-kubeconfig=x", "--authorization-mode=RBAC"],
                "--authorization-kubeconfig: excludes --authorization-mode",
            ),
            (
                &["--authorization-kubeconfig=x", "--authorization-always-allow-paths=/a*b"],
                "--authorization-always-allow-paths: only trailing * allowed in \"a*b\"",
            ),
            (
                &["--authorization-config=x", "--authorization-mode=RBAC"],
                "--authorization-config: can not be specified when",
            ),
            (
                &["--authorization-mode=Webhook", "--authorization-webhook-config-file=/nothing/there"],
                "--authorization-mode: authorizers[0].connectionInfo.kubeConfigFile: Invalid value",
            ),
        ] {
            let found = authorization(arguments).unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
