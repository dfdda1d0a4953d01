//! The flags that select APIs and features: runtime configuration, feature gates, emulated versions.

mod features;
mod runtime_config;

use clap::Args;

use super::FlagError;
pub(crate) use features::FeatureGates;
pub(crate) use runtime_config::RuntimeConfig;

const HEADING: &str = "APIs and features";
/// The minor versions of Kubernetes 1 that can be emulated. nave has the behaviour of the last one.
const EMULATED: std::ops::RangeInclusive<u16> = 33..=36;

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(super) struct ApiFlags {
    /// Built-in APIs to enable or disable: group/version[/resource]=true|false, and api/all, api/ga, api/beta and
    /// api/alpha for all versions of this form. Repeatable.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    runtime_config: Vec<String>,
    /// Feature gates of Kubernetes 1.36 as NAME=true|false. Unknown gates and changes of locked gates are refused. The
    /// gates have no effect: nave has the features of the defaults. Repeatable.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    feature_gates: Vec<String>,
    /// Version to emulate, from 1.33 to 1.36. Older versions than 1.36 have no effect.
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    emulated_version: Vec<String>,
    /// Oldest version to be compatible with, from 1.33 to the emulated version. Without effect.
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    min_compatibility_version: Vec<String>,
}

/// The selected APIs and features.
#[derive(Clone, Debug)]
pub(crate) struct Apis {
    /// The enabled and disabled APIs.
    pub(crate) runtime_config: RuntimeConfig,
    /// The feature gates that differ from their defaults.
    pub(crate) feature_gates: FeatureGates,
    /// True if an older version than nave's is to be emulated.
    pub(crate) emulates_older: bool,
}

impl ApiFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// A list is malformed, a feature gate is unknown or locked, or a version is out of range.
    pub(super) fn validate(&self) -> Result<Apis, FlagError> {
        let latest = *EMULATED.end();
        let emulated = minor("emulated-version", &self.emulated_version)?.unwrap_or(latest);
        let oldest = minor("min-compatibility-version", &self.min_compatibility_version)?;
        if oldest.is_some_and(|oldest| oldest > emulated) {
            let why = format!("must not be newer than the emulated version 1.{emulated}");
            return Err(FlagError::new("min-compatibility-version", why));
        }
        Ok(Apis {
            runtime_config: RuntimeConfig::parse(&self.runtime_config)?,
            feature_gates: FeatureGates::parse(&self.feature_gates)?,
            emulates_older: emulated < latest,
        })
    }
}

/// Parses `[kube=]1.MINOR`.
fn minor(flag: &'static str, versions: &[String]) -> Result<Option<u16>, FlagError> {
    let [text] = versions else {
        let why = "has more than one version";
        return if versions.is_empty() { Ok(None) } else { Err(FlagError::new(flag, why)) };
    };
    let version = text.strip_prefix("kube=").unwrap_or(text).trim();
    let minor = version.strip_prefix('v').unwrap_or(version).strip_prefix("1.");
    match minor.and_then(|minor| minor.parse().ok()) {
        Some(minor) if EMULATED.contains(&minor) => Ok(Some(minor)),
        _ => {
            let (first, last) = (EMULATED.start(), EMULATED.end());
            Err(FlagError::new(flag, format!("{text:?} is not a version from 1.{first} to 1.{last}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_within_the_range() {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let apis = |emulated: &[&str], oldest: &[&str]| {
            let flags = ApiFlags {
                runtime_config: Vec::new(),
                feature_gates: Vec::new(),
                emulated_version: texts(emulated),
                min_compatibility_version: texts(oldest),
            };
            flags.validate().map(|apis| apis.emulates_older).map_err(|error| error.flag)
        };
        assert_eq!(apis(&[], &[]), Ok(false));
        assert_eq!(apis(&["1.36"], &["1.35"]), Ok(false));
        assert_eq!(apis(&["kube=v1.35"], &[]), Ok(true));
        for wrong in ["1.32", "1.37", "1.36.2", "2.0", "kube=", "etcd=1.36"] {
            assert_eq!(apis(&[wrong], &[]), Err("emulated-version"), "{wrong}");
        }
        assert_eq!(apis(&["1.35", "1.36"], &[]), Err("emulated-version"));
        assert_eq!(apis(&["1.34"], &["1.35"]), Err("min-compatibility-version"));
    }
}
