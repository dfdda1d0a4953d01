//! `PodSecurityConfiguration`: the default policy, and exemptions.

use nave_machinery::{Value, names};
use serde::Deserialize;

use super::policy::{Level, LevelVersion, Policy, Version};
use crate::Attributes;
use crate::config::{ConfigError, PluginConfig};

const NAME: &str = "PodSecurity";
const GROUP: &str = "pod-security.admission.config.k8s.io/";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    #[serde(default)]
    enforce: String,
    #[serde(default)]
    enforce_version: String,
    #[serde(default)]
    audit: String,
    #[serde(default)]
    audit_version: String,
    #[serde(default)]
    warn: String,
    #[serde(default)]
    warn_version: String,
}

/// The exempt users, namespaces and runtime classes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exemptions {
    #[serde(default)]
    usernames: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    runtime_classes: Vec<String>,
}

impl Exemptions {
    /// The reason why a request is exempt, if it is.
    pub(super) fn of_request(&self, attributes: &Attributes<'_>) -> Option<&'static str> {
        if self.has_namespace(attributes.namespace) {
            return Some("namespace");
        }
        let user = &attributes.user.name;
        (!user.is_empty() && self.usernames.contains(user)).then_some("user")
    }

    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.iter().any(|exempt| exempt == name)
    }

    pub(super) fn has_runtime_class(&self, spec: &Value) -> bool {
        let class = spec.get("runtimeClassName").and_then(Value::as_str).filter(|class| !class.is_empty());
        class.is_some_and(|class| self.runtime_classes.iter().any(|exempt| exempt == class))
    }

    fn check(&self) -> Result<(), String> {
        let lists = [
            ("usernames", &self.usernames),
            ("namespaces", &self.namespaces),
            ("runtimeClasses", &self.runtime_classes),
        ];
        for (field, list) in lists {
            for (index, item) in list.iter().enumerate() {
                let at = format!("exemptions.{field}[{index}]");
                let wrong = match field {
                    "usernames" if item.trim().is_empty() => vec!["username must not be empty".to_owned()],
                    "usernames" => Vec::new(),
                    "namespaces" => names::is_dns1123_label(item),
                    _ => names::is_dns1123_subdomain(item),
                };
                if let Some(why) = wrong.first() {
                    return Err(format!("{at}: Invalid value: {item:?}: {why}"));
                }
                if list[..index].contains(item) {
                    return Err(format!("{at}: Duplicate value: {item:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The configured defaults and exemptions.
pub(super) fn read(config: &PluginConfig) -> Result<(Policy, Exemptions), ConfigError> {
    let Some((configuration, _)) = config.read::<Configuration>(NAME)? else {
        return Ok((Policy::PRIVILEGED, Exemptions::default()));
    };
    let Configuration { api_version, kind, defaults, exemptions } = configuration;
    let is_known = api_version.strip_prefix(GROUP).is_some_and(|version| VERSIONS.contains(&version));
    let outcome = if is_known && kind == "PodSecurityConfiguration" {
        exemptions.check().and_then(|()| defaults.policy())
    } else {
        Err(format!("no kind {kind:?} is registered for version {api_version:?}"))
    };
    let policy = outcome.map_err(|why| ConfigError::Plugin { plugin: NAME, why })?;
    Ok((policy, exemptions))
}

impl Defaults {
    fn policy(&self) -> Result<Policy, String> {
        Ok(Policy {
            enforce: mode("enforce", &self.enforce, &self.enforce_version)?,
            audit: mode("audit", &self.audit, &self.audit_version)?,
            warn: mode("warn", &self.warn, &self.warn_version)?,
        })
    }
}

fn mode(name: &str, level: &str, version: &str) -> Result<LevelVersion, String> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let level = given(level).map_or(Ok(Level::Privileged), |level| {
        Level::parse(&level).map_err(|why| format!("defaults.{name}: Invalid value: {level:?}: {why}"))
    });
    let version = given(version).map_or(Ok(Version::Latest), |version| {
        Version::parse(&version)
            .map_err(|why| format!("defaults.{name}-version: Invalid value: {version:?}: {why}"))
    });
    Ok(LevelVersion { level: level?, version: version? })
}
