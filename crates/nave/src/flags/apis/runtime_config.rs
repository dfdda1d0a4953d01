//! `--runtime-config`: the enabled and disabled APIs (upstream: `resourceconfig.MergeAPIResourceConfigs`).

use std::collections::BTreeMap;

use nave_machinery::GroupVersionResource;
use nave_resources::Registry;
use nave_resources::optional::is_enabled_by_default;
use nave_schema::SchemaSet;

use crate::flags::FlagError;
use crate::flags::values::parse_bool;

const FLAG: &str = "runtime-config";

/// The parsed flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeConfig {
    /// The settings of all versions of a form, in order of precedence, the lowest first.
    forms: Vec<(VersionForm, bool)>,
    /// The settings by group, version and resource; the resource is empty for a whole version.
    apis: BTreeMap<(String, String, String), bool>,
}

/// A form of version names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VersionForm {
    All,
    Stable,
    Beta,
    Alpha,
}

impl RuntimeConfig {
    /// Parses `KEY[=BOOL]` entries. The last entry of a key applies.
    ///
    /// # Errors
    /// An entry is malformed, or all APIs are disabled.
    pub(super) fn parse(list: &[String]) -> Result<Self, FlagError> {
        let wrong = |why: String| FlagError::new(FLAG, why);
        let entries = list.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
        let entries: BTreeMap<&str, &str> =
            entries.map(|entry| entry.split_once('=').unwrap_or((entry, ""))).collect();
        let mut config = Self::default();
        for (name, form) in FORMS {
            match entries.get(name) {
                None => {}
                Some(&"true") => config.forms.push((form, true)),
                Some(&"false") => config.forms.push((form, false)),
                Some(value) => return Err(wrong(format!("invalid value {name}={value}"))),
            }
        }
        if entries.len() == 1 && config.forms == [(VersionForm::All, false)] {
            return Err(wrong("api/all=false alone leaves nothing to serve".to_owned()));
        }
        for (key, value) in entries {
            if FORMS.iter().any(|(name, _)| *name == key) || key == LEGACY {
                continue;
            }
            let enabled = match value {
                "" => true,
                value => {
                    parse_bool(value).map_err(|why| wrong(format!("invalid value {key}={value}: {why}")))?
                }
            };
            let parts: Vec<&str> = key.split('/').collect();
            let (group, version, resource) = match parts.as_slice() {
                ["v1"] | ["api", "v1"] => ("", "v1", ""),
                [group, version] => (*group, *version, ""),
                ["api", version, resource] => ("", *version, *resource),
                [group, version, resource] => (*group, *version, *resource),
                _ => return Err(wrong(format!("invalid key {key}, it is not group/version[/resource]"))),
            };
            if resource.to_lowercase() != resource {
                return Err(wrong(format!("invalid key {key}, a resource is a plural name in lower case")));
            }
            config.apis.insert((group.to_owned(), version.to_owned(), resource.to_owned()), enabled);
        }
        Ok(config)
    }

    /// Returns the enabled built-in resources.
    ///
    /// # Errors
    /// A group or version does not exist in Kubernetes 1.36.
    pub(crate) fn registry(&self, schemas: &SchemaSet) -> Result<Registry, FlagError> {
        if self == &Self::default() {
            return Ok(Registry::builtin(schemas));
        }
        for (group, versions) in UNSERVED {
            for version in versions {
                if self.of_form(version) == Some(true) {
                    tracing::warn!(group, version, "API of --runtime-config is not served by nave");
                }
            }
        }
        let registry = Registry::builtin_with(schemas, |_| true);
        for ((group, version, _), enabled) in &self.apis {
            let served = registry.group(group);
            if served.is_some_and(|served| served.versions.contains(version)) {
                continue;
            }
            let mut unserved = UNSERVED.iter().chain(&REMOVED);
            if unserved.any(|(known, versions)| known == group && versions.contains(&&**version)) {
                if *enabled {
                    tracing::warn!(group, version, "API of --runtime-config is not served by nave");
                }
                continue;
            }
            let why = match served {
                Some(_) => format!("group {group:?} has no version {version:?}"),
                None => format!("unknown API group {group:?}"),
            };
            return Err(FlagError::new(FLAG, why));
        }
        Ok(Registry::builtin_with(schemas, |resource| self.enables(resource)))
    }

    /// Returns whether a resource is served in a version.
    fn enables(&self, resource: &GroupVersionResource) -> bool {
        let setting = |resource_name: &str| {
            let key = (resource.group.clone(), resource.version.clone(), resource_name.to_owned());
            self.apis.get(&key).copied()
        };
        setting(&resource.resource)
            .or_else(|| setting(""))
            .or_else(|| self.of_form(&resource.version))
            .unwrap_or_else(|| is_enabled_by_default(&resource.version))
    }

    /// Returns the setting of all versions of a form, if the flag has one for this version.
    fn of_form(&self, version: &str) -> Option<bool> {
        self.forms.iter().rev().find(|(form, _)| form.matches(version)).map(|(_, on)| *on)
    }
}

impl VersionForm {
    fn matches(self, version: &str) -> bool {
        let is_of = |middle: &str| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            version
                .strip_prefix('v')
                .and_then(|rest| if middle.is_empty() { Some((rest, "0")) } else { rest.split_once(middle) })
                .is_some_and(|(major, minor)| digits(major) && digits(minor))
        };
        match self {
            Self::All => true,
            Self::Stable => is_of(""),
            Self::Beta => is_of("beta"),
            Self::Alpha => is_of("alpha"),
        }
    }
}

/// The keys of version forms, the lowest precedence first.
const FORMS: [(&str, VersionForm); 4] = [
    ("api/all", VersionForm::All),
    ("api/ga", VersionForm::Stable),
    ("api/beta", VersionForm::Beta),
    ("api/alpha", VersionForm::Alpha),
];
/// A key without effect, which old configurations contain.
const LEGACY: &str = "api/legacy";
/// The versions that kube-apiserver 1.36 serves if they are enabled, and nave does not.
const UNSERVED: [(&str, &[&str]); 1] = [("internal.apiserver.k8s.io", &["v1alpha1"])];
/// The versions that kube-apiserver 1.36 knows and serves in no case, or only with a feature gate that is off by default.
const REMOVED: [(&str, &[&str]); 16] = [
    ("apps", &["v1beta1", "v1beta2"]),
    ("authentication.k8s.io", &["v1alpha1", "v1beta1"]),
    ("authorization.k8s.io", &["v1beta1"]),
    ("batch", &["v1beta1"]),
    ("certificates.k8s.io", &["v1alpha1", "v1beta1"]),
    ("discovery.k8s.io", &["v1beta1"]),
    ("events.k8s.io", &["v1beta1"]),
    ("extensions", &["v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", &["v1beta1", "v1beta2", "v1beta3"]),
    ("imagepolicy.k8s.io", &["v1alpha1"]),
    ("node.k8s.io", &["v1alpha1", "v1beta1"]),
    ("policy", &["v1beta1"]),
    ("rbac.authorization.k8s.io", &["v1alpha1", "v1beta1"]),
    ("scheduling.k8s.io", &["v1alpha2", "v1beta1"]),
    ("storage.k8s.io", &["v1alpha1"]),
    ("storagemigration.k8s.io", &["v1beta1"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<RuntimeConfig, String> {
        let entries: Vec<String> = list.split(' ').map(str::to_owned).collect();
        RuntimeConfig::parse(&entries).map_err(|error| error.why)
    }

    fn registry(list: &str) -> Result<Registry, String> {
        parse(list)?.registry(&SchemaSet::default()).map_err(|error| error.why)
    }

    #[test]
    fn the_most_specific_setting_applies() {
        for (list, served, unserved) in [
            ("", &["apps/v1/deployments", "/v1/pods"][..], &[][..]),
            ("api/all=true", &["apps/v1/deployments"], &[]),
            ("apps/v1=false", &["/v1/pods"], &["apps/v1/deployments", "apps/v1/daemonsets"]),
            ("apps/v1/daemonsets=false", &["apps/v1/deployments"], &["apps/v1/daemonsets"]),
            ("apps/v1=false apps/v1/daemonsets", &["apps/v1/daemonsets"], &["apps/v1/deployments"]),
            ("", &[], &["resource.k8s.io/v1beta1/resourceclaims", "networking.k8s.io/v1beta1/ipaddresses"]),
            (
                "api/all=true",
                &[
                    "coordination.k8s.io/v1alpha2/leasecandidates",
                    "resource.k8s.io/v1alpha3/devicetaintrules",
                    "resource.k8s.io/v1beta2/deviceclasses",
                    "storage.k8s.io/v1beta1/volumeattributesclasses",
                ],
                &["networking.k8s.io/v1beta1/ingresses", "resource.k8s.io/v1alpha3/deviceclasses"],
            ),
            (
                "api/beta=true resource.k8s.io/v1beta1=false",
                &["resource.k8s.io/v1beta2/resourceslices", "resource.k8s.io/v1/resourceslices"],
                &[
                    "resource.k8s.io/v1beta1/resourceslices",
                    "admissionregistration.k8s.io/v1alpha1/mutatingadmissionpolicies",
                ],
            ),
            (
                "admissionregistration.k8s.io/v1alpha1/mutatingadmissionpolicies=true",
                &["admissionregistration.k8s.io/v1alpha1/mutatingadmissionpolicies"],
                &["admissionregistration.k8s.io/v1alpha1/mutatingadmissionpolicybindings"],
            ),
            ("api/all=false v1=true", &["/v1/pods"], &["apps/v1/deployments"]),
            ("api/all=false api/ga=true", &["/v1/pods", "apps/v1/deployments"], &[]),
            (
                "autoscaling/v1=false",
                &["autoscaling/v2/horizontalpodautoscalers"],
                &["autoscaling/v1/horizontalpodautoscalers"],
            ),
            ("api/v1/secrets=false api/legacy=true", &["/v1/pods"], &["/v1/secrets"]),
            ("apps/v1=true apps/v1=0", &[], &["apps/v1/deployments"]),
        ] {
            let registry = registry(list).unwrap();
            for (resources, expected) in [(served, true), (unserved, false)] {
                for name in resources {
                    let parts: Vec<&str> = name.split('/').collect();
                    let resource = GroupVersionResource::new(parts[0], parts[1], parts[2]);
                    assert_eq!(registry.lookup(&resource).is_some(), expected, "{list}: {name}");
                }
            }
        }
        assert!(registry("apps/v1=false").unwrap().group("apps").is_none());
        let versions =
            |list: &str| registry(list).unwrap().group("resource.k8s.io").unwrap().versions.clone();
        assert_eq!(versions(""), ["v1"]);
        assert_eq!(versions("api/all=true"), ["v1", "v1beta2", "v1beta1", "v1alpha3"]);
        assert_eq!(registry("autoscaling/v1=false").unwrap().group("autoscaling").unwrap().versions, ["v2"]);
    }

    #[test]
    fn versions_that_nave_lacks_are_no_error() {
        assert!(registry("internal.apiserver.k8s.io/v1alpha1=true batch/v1beta1=false").is_ok());
    }

    #[test]
    fn rejects_unknown_and_malformed_keys() {
        for (list, error) in [
            ("api/all=false", "api/all=false alone"),
            ("api/ga=maybe", "invalid value api/ga=maybe"),
            ("apps/v1=maybe", "invalid value apps/v1=maybe"),
            ("apps=true", "invalid key apps"),
            ("apps/v1/Deployments=false", "invalid key apps/v1/Deployments"),
            ("foo/v1=true", "unknown API group \"foo\""),
            ("apps/v9=true", "group \"apps\" has no version \"v9\""),
        ] {
            let found = registry(list).unwrap_err();
            assert!(found.starts_with(error), "{list}: {found}");
        }
    }
}
