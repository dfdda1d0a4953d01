//! Lease candidates: the servers that could hold a lease (upstream: `pkg/apis/coordination/validation`).

use std::cmp::Ordering;

use nave_machinery::{FieldError, Value, names};

use crate::builder::{Builder, resource};
use crate::def::NameRule;
use crate::groups::resource::is_semantic_version;
use crate::strategy::Strategy;
use crate::table::{age, field, name};
use crate::validate::{At, Errors, immutable, required_text};

/// The only strategy without a domain.
const OLDEST: &str = "OldestEmulationVersion";

pub(super) fn candidates() -> Builder {
    resource("LeaseCandidate", "leasecandidates")
        .only(&["v1beta1", "v1alpha2"])
        .named(NameRule::With(names::is_config_map_key))
        .create_on_update()
        .conditional_update()
        .columns(vec![
            name(),
            field("LeaseName", "spec.leaseName", "")
                .described_by("coordination.v1alpha2.LeaseCandidateSpec", "leaseName"),
            field("BinaryVersion", "spec.binaryVersion", ""),
            field("EmulationVersion", "spec.emulationVersion", ""),
            age(),
        ])
        .strategy(CandidateStrategy)
}

struct CandidateStrategy;

impl Strategy for CandidateStrategy {
    fn validate(&self, candidate: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(candidate);
        let spec = root.field("spec");
        required_text(spec.field("leaseName"), &mut errors);
        let (emulated, binary) = (spec.field("emulationVersion"), spec.field("binaryVersion"));
        if !emulated.text().is_empty() {
            semantic_version(emulated, &mut errors);
        }
        if required_text(binary, &mut errors) {
            semantic_version(binary, &mut errors);
            if !emulated.text().is_empty() && Version::of(binary.text()) < Version::of(emulated.text()) {
                errors.push(binary.invalid("must be greater than or equal to `emulationVersion`"));
            }
        }
        let chosen = spec.field("strategy");
        if required_text(chosen, &mut errors) {
            if chosen.text() == OLDEST && Version::of(emulated.text()) == Version::default() {
                let why = "must be specified when `strategy` is 'OldestEmulationVersion'";
                errors.push(emulated.required(why));
            }
            strategy(chosen, &mut errors);
        }
        errors
    }

    fn validate_update(&self, candidate: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(candidate);
        let (new, old) = (At::root(candidate), At::root(old));
        immutable(new.field("spec").field("leaseName"), old.field("spec").field("leaseName"), &mut errors);
        errors
    }
}

/// Checks a strategy. As upstream, the errors name a field `strategy` of the strategy.
fn strategy(chosen: At, errors: &mut Errors) {
    let inner = chosen.field("strategy");
    let path = inner.path();
    if !chosen.text().contains('/') {
        if chosen.text() != OLDEST {
            errors.push(FieldError::not_supported(&path, chosen.text(), &[OLDEST]));
        }
        return;
    }
    let found = names::is_qualified_name(chosen.text());
    errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, chosen.text(), why)));
}

fn semantic_version(at: At, errors: &mut Errors) {
    if Version::parse(at.text()).is_none() {
        errors.push(at.invalid("must be a valid semantic version"));
    }
}

/// A semantic version in the order of semver.org; an invalid one is 0.0.0.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Version<'t> {
    numbers: [u64; 3],
    /// A release is newer than its pre-releases.
    release: Release<'t>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Release<'t>(&'t str);

impl<'t> Version<'t> {
    fn of(text: &'t str) -> Self {
        Self::parse(text).unwrap_or_default()
    }

    fn parse(text: &'t str) -> Option<Self> {
        if !is_semantic_version(text) {
            return None;
        }
        let text = text.split('+').next()?;
        let (core, release) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = core.split('.').map(|part| part.parse().ok());
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        Some(Self { numbers, release: Release(release) })
    }
}

impl Ord for Release<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (one, other) if one == other => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            // Numbers are older than words.
            (one, other) => {
                let key = |part: &str| (part.parse::<u64>().unwrap_or(u64::MAX), part.to_owned());
                one.split('.').map(key).cmp(other.split('.').map(key))
            }
        }
    }
}

impl PartialOrd for Release<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rejects_invalid_candidates() {
        let valid = json!({"leaseName": "a", "binaryVersion": "1.2.3", "emulationVersion": "1.2.0", "strategy": OLDEST});
        let of = |changes: Value| {
            let mut spec = valid.clone();
            spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let errors = CandidateStrategy.validate(&json!({"spec": spec}));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for (changes, expected) in [
            (json!({}), &[][..]),
            (json!({"strategy": "example.com/own", "emulationVersion": ""}), &[]),
            (json!({"leaseName": ""}), &["spec.leaseName: Required value"]),
            (
                json!({"binaryVersion": "1.2"}),
                &[
                    "spec.binaryVersion: Invalid value: \"1.2\": must be a valid semantic version",
                    "spec.binaryVersion: Invalid value: \"1.2\": must be greater than or equal to `emulationVersion`",
                ],
            ),
            (
                json!({"emulationVersion": "1.10.0"}),
                &[
                    "spec.binaryVersion: Invalid value: \"1.2.3\": must be greater than or equal to `emulationVersion`",
                ],
            ),
            (
                json!({"emulationVersion": "0.0.0"}),
                &[
                    "spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
                ],
            ),
            (
                json!({"strategy": "own"}),
                &[
                    "spec.strategy.strategy: Unsupported value: \"own\": supported values: \"OldestEmulationVersion\"",
                ],
            ),
        ] {
            assert_eq!(of(changes.clone()), expected, "{changes}");
        }
        let of_lease =
            |name: &str| json!({"spec": {"leaseName": name, "binaryVersion": "1.0.0", "strategy": "a/b"}});
        assert_eq!(CandidateStrategy.validate_update(&of_lease("a"), &of_lease("a")), []);
        assert_eq!(CandidateStrategy.validate_update(&of_lease("b"), &of_lease("a")).len(), 1);
    }

    #[test]
    fn versions_have_the_order_of_semver() {
        let ascending =
            ["0.9.9", "1.0.0-1", "1.0.0-2", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc", "1.0.0", "1.0.10"];
        for pair in ascending.windows(2) {
            assert!(Version::of(pair[0]) < Version::of(pair[1]), "{pair:?}");
        }
        assert_eq!(Version::of("1.0.0+a"), Version::of("1.0.0+b"));
        assert_eq!(Version::of("1.0"), Version::default());
    }
}
