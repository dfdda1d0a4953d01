//! The enabled plugins and their configuration files.
//!
//! | file | read by |
//! | --- | --- |
//! | `AdmissionConfiguration` (`--admission-control-config-file`) | [`PluginConfig::with_file`] |
//! | a plugin's `configuration` in that file, or the file at its `path` | [`PluginConfig::read`], by the plugin |

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use nave_machinery::Value;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::plugins::{Entry, PLUGINS};

/// The enabled plugins, and their configurations.
#[derive(Clone, Debug, Default)]
pub struct PluginConfig {
    enabled: Vec<String>,
    disabled: Vec<String>,
    plugins: Vec<Configured>,
}

/// A plugin's entry in an `AdmissionConfiguration`.
#[derive(Clone, Debug)]
struct Configured {
    name: String,
    content: Value,
    /// The base folder of relative paths in the content.
    folder: PathBuf,
}

/// The reasons why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag names an unknown plugin.
    #[error("{name:?} is not an admission plugin; the plugins are: {known}")]
    Unknown {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
        /// The names of all plugins.
        known: String,
    },
    /// Plugins are both enabled and disabled.
    #[error("{} {} also in --enable-admission-plugins", .0.join(", "), if .0.len() == 1 { "is" } else { "are" })]
    Overlap(Vec<String>),
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
    /// A file has the wrong kind or shape.
    #[error("{}: {why}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The error.
        why: String,
    },
    /// A plugin rejects its configuration.
    #[error("configuration of the admission plugin {plugin}: {why}")]
    Plugin {
        /// The plugin.
        plugin: &'static str,
        /// The error.
        why: String,
    },
}

impl PluginConfig {
    /// Enables the default plugins and the plugins in `--enable-admission-plugins`, except the plugins in
    /// `--disable-admission-plugins`.
    ///
    /// # Errors
    /// A name is unknown or in both lists.
    pub fn new(enabled: &[String], disabled: &[String]) -> Result<Self, ConfigError> {
        check_names("enable-admission-plugins", enabled)?;
        check_names("disable-admission-plugins", disabled)?;
        let both: Vec<_> = enabled.iter().filter(|name| disabled.contains(name)).cloned().collect();
        if !both.is_empty() {
            return Err(ConfigError::Overlap(both));
        }
        Ok(Self { enabled: enabled.to_vec(), disabled: disabled.to_vec(), plugins: Vec::new() })
    }

    /// Adds the plugins' configurations of an `AdmissionConfiguration` file.
    ///
    /// # Errors
    /// The file, or a file that it refers to, cannot be read or has the wrong kind, or it names a folder of static
    /// configurations, which would not be applied.
    pub fn with_file(mut self, path: &Path) -> Result<Self, ConfigError> {
        self.plugins = read_file(path)?;
        let folder =
            |plugin: &&Configured| plugin.content.get("staticManifestsDir").is_some_and(|it| it != "");
        if let Some(plugin) = self.plugins.iter().find(folder) {
            let gate = "the feature gate ManifestBasedAdmissionControlConfig, which nave does not have";
            let why = format!("plugin {}: staticManifestsDir requires {gate}", plugin.name);
            return Err(ConfigError::Shape { path: path.to_owned(), why });
        }
        Ok(self)
    }

    /// Returns whether a plugin is enabled.
    pub fn is_enabled(&self, entry: &Entry) -> bool {
        let is_in = |list: &[String]| list.iter().any(|name| name == entry.name);
        is_in(&self.enabled) || (entry.enabled_by_default && !is_in(&self.disabled))
    }

    /// Returns a plugin's configuration and the base folder of its relative paths; `None` if it has no configuration.
    ///
    /// # Errors
    /// The configuration does not match the type.
    pub fn read<T: DeserializeOwned>(&self, plugin: &'static str) -> Result<Option<(T, &Path)>, ConfigError> {
        let Some(configured) = self.plugins.iter().find(|configured| configured.name == plugin) else {
            return Ok(None);
        };
        let content = T::deserialize(&configured.content)
            .map_err(|error| ConfigError::Plugin { plugin, why: error.to_string() })?;
        Ok(Some((content, &configured.folder)))
    }

    /// Sets a plugin's configuration, as if it were in the file.
    pub fn with_plugin(mut self, name: &str, content: Value) -> Self {
        self.plugins.push(Configured { name: name.to_owned(), content, folder: PathBuf::new() });
        self
    }
}

fn check_names(flag: &'static str, names: &[String]) -> Result<(), ConfigError> {
    match names.iter().find(|name| !PLUGINS.iter().any(|entry| entry.name == **name)) {
        None => Ok(()),
        Some(name) => {
            let mut known: Vec<_> = PLUGINS.iter().map(|entry| entry.name).collect();
            known.sort_unstable();
            Err(ConfigError::Unknown { flag, name: name.clone(), known: known.join(", ") })
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    plugins: Vec<PluginEntry>,
}

#[derive(Deserialize)]
struct PluginEntry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Option<Value>,
}

/// The supported versions of `AdmissionConfiguration`.
const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
/// Legacy configuration files of a single plugin, which are accepted instead of an `AdmissionConfiguration`: the field
/// that identifies the file, and the plugin.
const LEGACY: [(&str, &str); 2] =
    [("imagePolicy", "ImagePolicyWebhook"), ("podNodeSelectorPluginConfig", "PodNodeSelector")];

fn read_file(path: &Path) -> Result<Vec<Configured>, ConfigError> {
    let content = parse_file(path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let shape = |why: String| ConfigError::Shape { path: path.to_owned(), why };
    let configuration =
        AdmissionConfiguration::deserialize(&content).map_err(|error| shape(error.to_string()))?;
    let legacy: Vec<_> = LEGACY.iter().filter(|(field, _)| content.get(field).is_some()).collect();
    if configuration.api_version.is_empty() && !legacy.is_empty() {
        let configured = |name: &str| Configured {
            name: name.to_owned(),
            content: content.clone(),
            folder: folder.clone(),
        };
        return Ok(legacy.into_iter().map(|(_, name)| configured(name)).collect());
    }
    if !API_VERSIONS.contains(&configuration.api_version.as_str())
        || configuration.kind != "AdmissionConfiguration"
    {
        return Err(shape(format!(
            "no kind {:?} is registered for version {:?}; the file must hold an AdmissionConfiguration of {}",
            configuration.kind, configuration.api_version, API_VERSIONS[0]
        )));
    }
    let mut configured: Vec<Configured> = Vec::new();
    for entry in configuration.plugins {
        let (content, folder) = match entry.configuration.filter(|content| !content.is_null()) {
            Some(content) => (content, folder.clone()),
            None if entry.path.is_empty() => continue,
            None => {
                let path = folder.join(&entry.path);
                (parse_file(&path)?, path.parent().unwrap_or(Path::new("")).to_owned())
            }
        };
        // If a name occurs several times, the first entry is used.
        if !configured.iter().any(|known| known.name == entry.name) {
            configured.push(Configured { name: entry.name, content, folder });
        }
    }
    Ok(configured)
}

/// Parses a YAML or JSON file.
fn parse_file(path: &Path) -> Result<Value, ConfigError> {
    let content =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    serde_saphyr::from_str(&content)
        .map_err(|error| ConfigError::Shape { path: path.to_owned(), why: error.to_string() })
}
