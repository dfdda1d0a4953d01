//! The enabled admission plugins and their configuration.

use std::path::PathBuf;

use clap::Args;
use nave_admission::plugins::PLUGINS;
use nave_admission::{ConfigError, PluginConfig};

use super::FlagError;
use super::values::whole;

const ADMISSION: &str = "Admission";
/// Enabled by default with the default authorizers of `nave serve`, which include Node.
pub(super) const NODE_RESTRICTION: &str = "NodeRestriction";

/// Disabled by default in an extension server.
pub(super) const NAMESPACE_LIFECYCLE: &str = "NamespaceLifecycle";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = ADMISSION)]
pub(super) struct AdmissionFlags {
    /// Admission plugins to enable in addition to the default ones.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to disable.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Deprecated. The only admission plugins to enable; not with --enable-admission-plugins or
    /// --disable-admission-plugins.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    admission_control: Vec<String>,
    /// AdmissionConfiguration: file with the configuration of admission plugins.
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// Toleration in seconds of not-ready:NoExecute that DefaultTolerationSeconds adds to pods without such a
    /// toleration.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = whole(i64::MIN..=i64::MAX))]
    default_not_ready_toleration_seconds: i64,
    /// Toleration in seconds of unreachable:NoExecute that DefaultTolerationSeconds adds to pods without such a
    /// toleration.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = whole(i64::MIN..=i64::MAX))]
    default_unreachable_toleration_seconds: i64,
}

/// The admission plugins.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// The enabled plugins and their configurations.
    pub(crate) plugins: PluginConfig,
    /// Time that pods stay on a node that is not ready, in seconds.
    pub(crate) default_not_ready_toleration_seconds: i64,
    /// Time that pods stay on an unreachable node, in seconds.
    pub(crate) default_unreachable_toleration_seconds: i64,
}

impl AdmissionFlags {
    /// Validates the flags and reads the file. `on` and `off` are the plugins to enable and disable in addition to
    /// kube-apiserver's default, unless a flag names them.
    ///
    /// # Errors
    /// A name is unknown or in both lists, or the file is invalid.
    pub(super) fn validate(self, on: &[&str], off: &[&str]) -> Result<Admission, FlagError> {
        let mut enabled = named(self.enable_admission_plugins);
        let mut disabled = named(self.disable_admission_plugins);
        let only = named(self.admission_control);
        let (on, off) = if only.is_empty() { (on, off) } else { (&[][..], &[][..]) };
        if !only.is_empty() {
            if !enabled.is_empty() || !disabled.is_empty() {
                let why = "not with --enable-admission-plugins or --disable-admission-plugins";
                return Err(FlagError::new("admission-control", why));
            }
            let others =
                PLUGINS.iter().map(|entry| entry.name).filter(|&name| !only.iter().any(|it| it == name));
            disabled = others.map(str::to_owned).collect();
            enabled = only;
        }
        let is_named = |plugin: &&str| enabled.iter().chain(&disabled).any(|name| name == *plugin);
        let own = |list: &[&str]| {
            list.iter()
                .filter(|plugin| !is_named(plugin))
                .map(|&plugin| plugin.to_owned())
                .collect::<Vec<_>>()
        };
        let (on, off) = (own(on), own(off));
        enabled.extend(on);
        disabled.extend(off);
        let plugins = PluginConfig::new(&enabled, &disabled).map_err(|error| {
            let flag = match &error {
                ConfigError::Unknown { flag, .. } => flag,
                _ => "disable-admission-plugins",
            };
            FlagError::new(flag, error.to_string())
        })?;
        let plugins = match &self.admission_control_config_file {
            None => plugins,
            Some(file) => plugins
                .with_file(file)
                .map_err(|error| FlagError::new("admission-control-config-file", error.to_string()))?,
        };
        Ok(Admission {
            plugins,
            default_not_ready_toleration_seconds: self.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: self.default_unreachable_toleration_seconds,
        })
    }
}

/// Normalizes a list of names: a single empty name is an empty list, as in kube-apiserver.
fn named(mut names: Vec<String>) -> Vec<String> {
    if names.iter().all(String::is_empty) {
        names.clear();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(enable: &[&str], disable: &[&str]) -> AdmissionFlags {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AdmissionFlags {
            enable_admission_plugins: owned(enable),
            disable_admission_plugins: owned(disable),
            admission_control: Vec::new(),
            admission_control_config_file: None,
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
        }
    }

    #[test]
    fn enables_and_disables_plugins_by_name() {
        for (enable, disable, name, runs) in [
            (&[][..], &[][..], "NodeRestriction", true),
            (&[], &["NodeRestriction"], "NodeRestriction", false),
            (&["NodeRestriction"], &[], "NodeRestriction", true),
            (&[], &[], "ServiceAccount", true),
            (&[], &["ServiceAccount"], "ServiceAccount", false),
            (&[], &[], "AlwaysPullImages", false),
            (&["AlwaysPullImages"], &[], "AlwaysPullImages", true),
            (&[""], &[""], "ServiceAccount", true),
            (&[], &[], "NamespaceLifecycle", false),
            (&["NamespaceLifecycle"], &[], "NamespaceLifecycle", true),
        ] {
            let admission =
                flags(enable, disable).validate(&[NODE_RESTRICTION], &[NAMESPACE_LIFECYCLE]).unwrap();
            let entry = PLUGINS.iter().find(|entry| entry.name == name).unwrap();
            assert_eq!(admission.plugins.is_enabled(entry), runs, "{enable:?} {disable:?} {name}");
        }
    }

    #[test]
    fn the_deprecated_list_is_complete() {
        let only = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let given = AdmissionFlags { admission_control: only(&["AlwaysPullImages"]), ..flags(&[], &[]) };
        let plugins = given.validate(&[NODE_RESTRICTION], &[NAMESPACE_LIFECYCLE]).unwrap().plugins;
        let enabled = PLUGINS.iter().filter(|entry| plugins.is_enabled(entry)).map(|entry| entry.name);
        assert_eq!(enabled.collect::<Vec<_>>(), ["AlwaysPullImages"]);
        let both = AdmissionFlags { admission_control: only(&["Priority"]), ..flags(&["Priority"], &[]) };
        assert_eq!(both.validate(&[], &[]).unwrap_err().flag, "admission-control");
    }

    #[test]
    fn rejects_unknown_and_contradictory_names() {
        for (enable, disable, why) in [
            (&["X"][..], &[][..], "--enable-admission-plugins"),
            (&[], &["X"], "--disable-admission-plugins"),
            (
                &["Priority"],
                &["Priority"],
                "--disable-admission-plugins: Priority is also in --enable-admission-plugins",
            ),
        ] {
            let error = flags(enable, disable)
                .validate(&[NODE_RESTRICTION], &[NAMESPACE_LIFECYCLE])
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
