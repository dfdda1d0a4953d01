//! The feature gates of Kubernetes 1.36 (recorded: name, stage, default, locked).

use std::collections::BTreeMap;

use prometheus::{IntGaugeVec, Opts};

use crate::flags::FlagError;
use crate::flags::values::parse_bool;

const FLAG: &str = "feature-gates";

/// The feature gates that differ from their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureGates(BTreeMap<&'static str, bool>);

/// A known feature gate.
struct FeatureGate {
    name: &'static str,
    /// `ALPHA`, `BETA` or `DEPRECATED`; empty for a stable one.
    stage: &'static str,
    default: bool,
    /// True if the gate cannot be changed.
    is_locked: bool,
}

impl FeatureGates {
    /// Parses a list of `[kube:]NAME=BOOL`.
    ///
    /// # Errors
    /// An entry is malformed, or a gate is unknown or locked to another value.
    pub(super) fn parse(list: &[String]) -> Result<Self, FlagError> {
        let wrong = |why: String| FlagError::new(FLAG, why);
        let mut changed = BTreeMap::new();
        for entry in list.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()) {
            let gate = match entry.split_once(':') {
                Some(("kube", gate)) => gate,
                Some((component, _)) => return Err(wrong(format!("component not registered: {component}"))),
                None => entry,
            };
            let (name, value) =
                gate.split_once('=').ok_or_else(|| wrong(format!("missing bool value for {gate}")))?;
            let (name, value) = (name.trim(), value.trim());
            let value =
                parse_bool(value).map_err(|why| wrong(format!("invalid value of {name}={value}: {why}")))?;
            let known = known().find(|known| known.name == name);
            let known = known.ok_or_else(|| wrong(format!("unrecognized feature gate: {name}")))?;
            if known.is_locked && value != known.default {
                let why = format!("cannot set {name} to {value}, it is locked to {}", known.default);
                return Err(wrong(why));
            }
            if value == known.default {
                changed.remove(known.name);
            } else {
                changed.insert(known.name, value);
            }
        }
        Ok(Self(changed))
    }

    /// Returns `kubernetes_feature_enabled`. The values are the defaults, which the server has whatever the flag says.
    ///
    /// # Errors
    /// The name is invalid (a bug in this file).
    pub(crate) fn gauges() -> Result<IntGaugeVec, prometheus::Error> {
        let options = Opts::new("kubernetes_feature_enabled", "1 if the server has a feature, by its stage.");
        let gauges = IntGaugeVec::new(options, &["name", "stage"])?;
        for gate in known() {
            gauges.with_label_values(&[gate.name, gate.stage]).set(gate.default.into());
        }
        Ok(gauges)
    }

    /// Returns the changed gates as `NAME=BOOL`, separated by commas; `None` if no gate is changed.
    pub(crate) fn changed(&self) -> Option<String> {
        let changed: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!changed.is_empty()).then(|| changed.join(","))
    }
}

fn known() -> impl Iterator<Item = FeatureGate> {
    TABLE.lines().map(|line| {
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default();
        let stage = fields.next().filter(|stage| *stage != "GA").unwrap_or_default();
        let default = fields.next() == Some("true");
        FeatureGate { name, stage, default, is_locked: fields.next() == Some("locked") }
    })
}

const TABLE: &str = include_str!("features.tsv");

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(list: &[&str]) -> Result<Option<String>, String> {
        let list: Vec<String> = list.iter().map(|&entry| entry.to_owned()).collect();
        FeatureGates::parse(&list).map(|gates| gates.changed()).map_err(|error| error.why)
    }

    #[test]
    fn table_has_name_stage_and_default() {
        assert!(TABLE.lines().count() > 200);
        for line in TABLE.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert!(["ALPHA", "BETA", "GA", "DEPRECATED"].contains(&fields[1]), "{line}");
            assert!(parse_bool(fields[2]).is_ok(), "{line}");
        }
    }

    #[test]
    fn accepts_known_gates() {
        assert_eq!(changed(&[]), Ok(None));
        assert_eq!(changed(&["APIServerIdentity=true", ""]), Ok(None));
        assert_eq!(changed(&["kube:APIServerIdentity=false", "AllAlpha=1"]), {
            Ok(Some("APIServerIdentity=false,AllAlpha=true".to_owned()))
        });
        assert_eq!(changed(&["AllBeta=true", "AllBeta=false"]), Ok(None));
        assert_eq!(changed(&["APIServerTracing=true"]), Ok(None));
    }

    #[test]
    fn rejects_unknown_and_locked_gates() {
        for (entry, error) in [
            ("NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
            ("APIServerIdentity", "missing bool value for APIServerIdentity"),
            ("APIServerIdentity=yes", "invalid value of APIServerIdentity=yes"),
            ("APIServerTracing=false", "cannot set APIServerTracing to false, it is locked to true"),
            ("etcd:APIServerIdentity=true", "component not registered: etcd"),
        ] {
            let found = changed(&[entry]).unwrap_err();
            assert!(found.starts_with(error), "{entry}: {found}");
        }
    }
}
