//! Which admission plugins run.

use clap::Args;
use nave_apiserver::admission::OPTIONAL_PLUGINS;

use super::FlagError;

const ADMISSION: &str = "Admission";
/// Plugins that always run, which it does no harm to ask for.
const ALWAYS: [&str; 2] = ["NamespaceLifecycle", "NodeRestriction"];

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = ADMISSION)]
pub(super) struct AdmissionFlags {
    /// Admission plugins to run beside those that run by default. All there are do.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that run by default and are not to.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
}

impl AdmissionFlags {
    /// The plugins that are left out.
    ///
    /// # Errors
    /// A name that is unknown, or in both lists.
    pub(super) fn disabled(self) -> Result<Vec<String>, FlagError> {
        let (enable, disable) = (self.enable_admission_plugins, self.disable_admission_plugins);
        let unknown = |name: &String| !OPTIONAL_PLUGINS.contains(&name.as_str());
        let why = |name: &String| format!("admission-control plugin {name:?} is unknown");
        if let Some(name) = enable.iter().find(|name| unknown(name) && !ALWAYS.contains(&name.as_str())) {
            return Err(FlagError::new("enable-admission-plugins", why(name)));
        }
        if let Some(name) = disable.iter().find(|name| unknown(name)) {
            return Err(FlagError::new("disable-admission-plugins", why(name)));
        }
        match disable.iter().find(|name| enable.contains(name)) {
            Some(name) => {
                Err(FlagError::new("disable-admission-plugins", format!("{name:?} is enabled too")))
            }
            None => Ok(disable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_left_out_by_name() {
        let disabled = |enable: &[&str], disable: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let flags = AdmissionFlags {
                enable_admission_plugins: owned(enable),
                disable_admission_plugins: owned(disable),
            };
            flags.disabled().map_err(|error| error.to_string())
        };
        assert_eq!(
            disabled(&["NodeRestriction", "Priority"], &["ServiceAccount"]).unwrap(),
            ["ServiceAccount"]
        );
        for (enable, disable, why) in [
            (&["X"][..], &[][..], "--enable-admission-plugins: admission-control plugin \"X\" is unknown"),
            (&[], &["NodeRestriction"], "--disable-admission-plugins: admission-control plugin"),
            (&["Priority"], &["Priority"], "is enabled too"),
        ] {
            let error = disabled(enable, disable).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
