//! The order of the versions of a group.

use std::cmp::Ordering;

/// Compares two versions in order of preference: `v10`, `v2`, `v1`, `v11beta2`, `v10beta3`, `v3alpha1`, then other
/// names in alphabetical order (upstream: `version.CompareKubeAwareVersionStrings`).
pub fn compare(one: &str, other: &str) -> Ordering {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Returns whether a version is neither an alpha nor a beta version.
pub(crate) fn is_stable(version: &str) -> bool {
    parse(version).is_some_and(|(stability, ..)| stability == 2)
}

/// Parses the stability, major and minor number of a Kubernetes version; the larger tuple is preferred.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((stability, major, number(minor)?))
}

fn number(digits: &str) -> Option<u64> {
    let is_plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_stable_before_beta_and_newest_first() {
        let mut versions = [
            "foo1",
            "v3alpha1",
            "v1",
            "v12alpha1",
            "v10",
            "v11beta2",
            "foo10",
            "v10beta3",
            "v11alpha2",
            "v2",
            "latest",
            "v01",
        ];
        versions.sort_by(|one, other| compare(one, other));
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v12alpha1",
            "v11alpha2",
            "v3alpha1",
            "foo1",
            "foo10",
            "latest",
            "v01",
        ];
        assert_eq!(versions, expected);
    }
}
