//! Resources that require a covering quota (`ResourceQuotaConfiguration`).

use k8s_openapi::api::core::v1::ScopedResourceSelectorRequirement;
use nave_resources::ResourceDef;
use nave_resources::quota::Usage;
use serde::Deserialize;

use crate::config::{ConfigError, PluginConfig};

const NAME: &str = "ResourceQuota";
/// The supported versions of the configuration; all have the same fields.
const API_VERSIONS: [&str; 4] = [
    "apiserver.config.k8s.io/v1",
    "resourcequota.admission.k8s.io/v1",
    "resourcequota.admission.k8s.io/v1beta1",
    "resourcequota.admission.k8s.io/v1alpha1",
];
const KINDS: [&str; 2] = ["ResourceQuotaConfiguration", "Configuration"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    limited_resources: Vec<Limited>,
}

/// A resource whose objects need a covering quota.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limited {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    /// Substrings of the resource names that need a quota.
    #[serde(default)]
    match_contains: Vec<String>,
    /// Scopes that need a quota.
    #[serde(default)]
    pub(super) match_scopes: Vec<ScopedResourceSelectorRequirement>,
}

impl Limited {
    /// Returns whether this applies to a resource.
    pub(super) fn concerns(&self, def: &ResourceDef) -> bool {
        self.api_group == def.group && self.resource == def.resource
    }

    /// The resource names in a usage that need a quota.
    pub(super) fn names<'a>(&'a self, usage: &'a Usage) -> impl Iterator<Item = &'a str> {
        let is_limited = |name: &str| self.match_contains.iter().any(|part| name.contains(part.as_str()));
        let taken = usage.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
        taken.map(|(name, _)| name.as_str()).filter(move |name| is_limited(name))
    }
}

/// The resources that need a covering quota.
pub(super) fn read(config: &PluginConfig) -> Result<Vec<Limited>, ConfigError> {
    let Some((configuration, _)) = config.read::<Configuration>(NAME)? else { return Ok(Vec::new()) };
    let Configuration { api_version, kind, limited_resources } = configuration;
    let wrong = |why| Err(ConfigError::Plugin { plugin: NAME, why });
    if !API_VERSIONS.contains(&api_version.as_str()) || !KINDS.contains(&kind.as_str()) {
        return wrong(format!("no kind {kind:?} is registered for version {api_version:?}"));
    }
    if let Some(at) = limited_resources.iter().position(|limited| limited.resource.is_empty()) {
        return wrong(format!("limitedResources[{at}].resource: Required value"));
    }
    Ok(limited_resources)
}
