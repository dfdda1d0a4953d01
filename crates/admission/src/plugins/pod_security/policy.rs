//! Levels, versions, and the policy in a namespace's labels.

use std::fmt;

use nave_machinery::{FieldError, FieldPath, Map, Value};

use super::PREFIX;

/// A security level, from the least to the most strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Privileged, Self::Baseline, Self::Restricted];
        let found = all.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", all.map(Self::as_str).join(", ")))
    }
}

/// A policy version: the minor version of `v1.x`, or `latest`, which is newer than all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").filter(|minor| *minor == "0" || !minor.starts_with(['0', '+']));
        let minor = minor.and_then(|minor| minor.parse().ok());
        minor.map(Self::Minor).ok_or_else(|| "must be \"latest\" or \"v1.x\"".to_owned())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// A level with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl LevelVersion {
    pub(super) const PRIVILEGED: Self = Self { level: Level::Privileged, version: Version::Latest };
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// The levels of the three modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

/// The labels of a namespace.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a>(pub(super) Option<&'a Map>);

impl<'a> Labels<'a> {
    pub(super) fn get(self, key: &str) -> Option<&'a str> {
        let labels = self.0?;
        labels.get(&format!("{PREFIX}{key}")).and_then(Value::as_str)
    }
}

impl Policy {
    pub(super) const PRIVILEGED: Self = Self {
        enforce: LevelVersion::PRIVILEGED,
        audit: LevelVersion::PRIVILEGED,
        warn: LevelVersion::PRIVILEGED,
    };

    /// Parses the policy in a namespace's labels; also returns the errors. An invalid level counts as the strictest
    /// level for `enforce`, and as the least strict level for the other modes.
    pub(super) fn from_labels(labels: Labels<'_>, defaults: &Self) -> (Self, Vec<FieldError>) {
        let (mut policy, mut errors) = (*defaults, Vec::new());
        // Fast path: most namespaces have no such labels.
        if !labels.0.is_some_and(|labels| labels.keys().any(|key| key.starts_with(PREFIX))) {
            return (policy, errors);
        }
        let at = FieldPath::new("metadata").child("labels");
        let mut wrong = |key: &str, value: &str, why: String| {
            errors.push(FieldError::invalid(&at.key(&format!("{PREFIX}{key}")), value, why));
        };
        let mut enforces = false;
        let mut has_warn = false;
        for (mode, fallback, place) in [
            ("enforce", Level::Restricted, &mut policy.enforce),
            ("audit", Level::Privileged, &mut policy.audit),
            ("warn", Level::Privileged, &mut policy.warn),
        ] {
            if let Some(text) = labels.get(mode) {
                let level = Level::parse(text);
                enforces |= mode == "enforce" && level.is_ok();
                has_warn |= mode == "warn";
                place.level = level.unwrap_or_else(|why| {
                    wrong(mode, text, why);
                    fallback
                });
            }
            let key = format!("{mode}-version");
            if let Some(text) = labels.get(&key) {
                place.version = Version::parse(text).unwrap_or_else(|why| {
                    wrong(&key, text, why);
                    Version::Latest
                });
            }
        }
        // Without a `warn` label, workloads get warnings at the enforced level, as `enforce` does not apply to them.
        if enforces && !has_warn && policy.enforce.level > policy.warn.level {
            policy.warn = policy.enforce;
        }
        (policy, errors)
    }

    /// Returns whether the level of every mode is `privileged`; the mode `enforce` only counts with `enforces`.
    pub(super) fn is_privileged(&self, enforces: bool) -> bool {
        let is_privileged = |mode: LevelVersion| mode.level == Level::Privileged;
        (!enforces || is_privileged(self.enforce)) && is_privileged(self.audit) && is_privileged(self.warn)
    }
}

/// Joins errors into one message.
pub(super) fn join(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
