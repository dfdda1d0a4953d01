//! Warnings about overlapping files in a volume.

use std::collections::BTreeMap;
use std::fmt;

use super::warnings::Warnings;
use crate::validate::At;

/// The maximum number of files per volume to compare.
const MAX_FILES: usize = 256;
/// The maximum number of reported overlaps per file.
const MAX_OVERLAPS: usize = 8;

impl Warnings {
    pub(super) fn overlapping_paths(&mut self, spec: &At) {
        for volume in spec.field("volumes").items() {
            for (field, kind, name) in [
                ("configMap", "ConfigMap", Some("name")),
                ("secret", "Secret", Some("secretName")),
                ("downwardAPI", "DownwardAPI", None),
            ] {
                let source = volume.field(field);
                let origin = Origin { kind, name: name.map(|name| source.field(name).text()) };
                let mut files = Files::new(&volume, origin);
                source.field("items").items().for_each(|item| files.add(item.field("path"), None, self));
            }
            if volume.field("projected").is_set() {
                self.projected_paths(&volume);
            }
        }
    }

    fn projected_paths(&mut self, volume: &At) {
        let projected = volume.field("projected");
        let mut files = Files::new(volume, Origin { kind: "Projected", name: None });
        for source in projected.field("sources").items() {
            if source.len() == 0 {
                let name = volume.field("name").text().to_owned();
                self.add(|| format!("volume {name:?} (Projected) has no sources provided"));
            }
            for (field, kind, name) in [
                ("configMap", "ConfigMap", Some("name")),
                ("secret", "Secret", Some("name")),
                ("downwardAPI", "DownwardAPI", None),
            ] {
                let at = source.field(field);
                let origin = Origin { kind, name: name.map(|name| at.field(name).text()) };
                at.field("items").items().for_each(|item| files.add(item.field("path"), Some(origin), self));
            }
            let token = source.field("serviceAccountToken");
            files.add(token.field("path"), Some(Origin { kind: "ServiceAccountToken", name: None }), self);
        }
    }
}

/// The source of files, such as `ConfigMap "name"`.
#[derive(Clone, Copy)]
struct Origin<'v> {
    kind: &'static str,
    name: Option<&'v str>,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(out, "{} {name:?}", self.kind),
            None => out.write_str(self.kind),
        }
    }
}

/// The files of a volume so far. Files of a projected volume have origins.
struct Files<'v> {
    volume: &'v str,
    source: Origin<'v>,
    seen: BTreeMap<&'v str, Option<Origin<'v>>>,
}

impl<'v> Files<'v> {
    fn new(volume: &At<'_, 'v>, source: Origin<'v>) -> Self {
        Self { volume: volume.field("name").text(), source, seen: BTreeMap::new() }
    }

    fn add(&mut self, path: At<'_, 'v>, origin: Option<Origin<'v>>, warnings: &mut Warnings) {
        let path = path.text().trim_end_matches('/');
        if path.is_empty() || self.seen.len() >= MAX_FILES {
            return;
        }
        let shown = |path: &str, origin: Option<Origin>| match origin {
            None => format!("{path:?}"),
            Some(origin) => format!("{path:?} ({origin})"),
        };
        let above = path.match_indices('/').filter_map(|(end, _)| self.seen.get_key_value(&path[..end]));
        let with_prefix = self.seen.range(path..).take_while(|(other, _)| other.starts_with(path));
        let below = with_prefix.filter(|(other, _)| other[path.len()..].starts_with('/'));
        let overlaps = self.seen.get_key_value(path).into_iter().chain(above).chain(below);
        for (other, its_origin) in overlaps.take(MAX_OVERLAPS) {
            let (volume, source) = (self.volume, self.source);
            let (this, other) = (shown(path, origin), shown(other, *its_origin));
            warnings.add(|| format!("volume {volume:?} ({source}): overlapping paths: {this} with {other}"));
        }
        self.seen.insert(path, origin);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::warnings::pod;

    fn warned(volume: Value) -> Vec<String> {
        pod(&json!({"metadata": {"name": "p"}, "spec": {"volumes": [volume]}}))
    }

    #[test]
    fn warns_about_overlapping_files() {
        let items =
            |paths: &[&str]| paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>();
        for (paths, expected) in [
            (&["a", "b/c"][..], &[][..]),
            (&["a", "a/"], &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a""#]),
            (&["a", "a/b"], &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a""#]),
            (&["a/b", "a"], &[r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a/b""#]),
            (&["a0", "a"], &[]),
        ] {
            let volume = json!({"name": "v", "configMap": {"name": "m", "items": items(paths)}});
            assert_eq!(warned(volume), expected, "{paths:?}");
        }
        let volume = json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "s", "items": items(&["f"])}}, {"serviceAccountToken": {"path": "f"}}, {}
        ]}});
        let expected = [
            r#"volume "v" (Projected): overlapping paths: "f" (ServiceAccountToken) with "f" (Secret "s")"#,
            r#"volume "v" (Projected) has no sources provided"#,
        ];
        assert_eq!(warned(volume), expected);
    }

    #[test]
    fn comparisons_are_bounded() {
        let items: Vec<_> =
            (0..100_000).map(|n| json!({"key": "k", "path": format!("{}/a", n % 7)})).collect();
        let warnings = warned(json!({"name": "v", "secret": {"secretName": "s", "items": items}}));
        assert!(warnings.len() <= 64);
    }
}
