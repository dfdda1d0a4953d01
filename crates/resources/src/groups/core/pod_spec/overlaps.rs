//! Warnings about overlapping files in a volume.

use std::collections::BTreeMap;

use super::warnings::Warnings;
use crate::validate::At;

/// The maximum number of files per volume to compare.
const MAX_FILES: usize = 256;
/// The maximum number of reported overlaps per file.
const MAX_OVERLAPS: usize = 8;

impl Warnings {
    pub(super) fn overlapping_paths(&mut self, spec: &At) {
        for volume in spec.field("volumes").items() {
            for (field, noun, name) in [
                ("configMap", "ConfigMap", "name"),
                ("secret", "Secret", "secretName"),
                ("downwardAPI", "", ""),
            ] {
                let source = volume.field(field);
                if source.field("items").len() == 0 {
                    continue;
                }
                let described = match noun {
                    "" => "DownwardAPI".to_owned(),
                    noun => format!("{noun} {:?}", source.field(name).text()),
                };
                let mut files = Files::new(&volume, described);
                source.field("items").items().for_each(|item| files.add(item.field("path"), "", self));
            }
            if volume.field("projected").is_set() {
                self.projected_paths(&volume);
            }
        }
    }

    fn projected_paths(&mut self, volume: &At) {
        let projected = volume.field("projected");
        let mut files = Files::new(volume, "Projected".to_owned());
        for source in projected.field("sources").items() {
            if source.len() == 0 {
                let name = volume.field("name").text().to_owned();
                self.add(|| format!("volume {name:?} (Projected) has no sources provided"));
            }
            for (field, noun) in [("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "")] {
                let at = source.field(field);
                if at.field("items").len() == 0 {
                    continue;
                }
                let origin = match noun {
                    "" => "DownwardAPI".to_owned(),
                    noun => format!("{noun} {:?}", at.field("name").text()),
                };
                at.field("items").items().for_each(|item| files.add(item.field("path"), &origin, self));
            }
            let token = source.field("serviceAccountToken");
            files.add(token.field("path"), "ServiceAccountToken", self);
        }
    }
}

/// The files of a volume so far, with their origin.
struct Files<'v> {
    volume: &'v str,
    described: String,
    seen: BTreeMap<String, String>,
}

impl<'v> Files<'v> {
    fn new(volume: &At<'_, 'v>, described: String) -> Self {
        Self { volume: volume.field("name").text(), described, seen: BTreeMap::new() }
    }

    fn add(&mut self, path: At, origin: &str, warnings: &mut Warnings) {
        let path = path.text().trim_end_matches('/');
        if path.is_empty() || self.seen.len() >= MAX_FILES {
            return;
        }
        let shown = |path: &str, origin: &str| match origin {
            "" => format!("{path:?}"),
            origin => format!("{path:?} ({origin})"),
        };
        let above = path.match_indices('/').filter_map(|(end, _)| self.seen.get_key_value(&path[..end]));
        let below = self.seen.range(format!("{path}/")..format!("{path}0"));
        let overlaps = self.seen.get_key_value(path).into_iter().chain(above).chain(below);
        for (other, its_origin) in overlaps.take(MAX_OVERLAPS) {
            let (volume, described) = (self.volume, &self.described);
            let (this, other) = (shown(path, origin), shown(other, its_origin));
            warnings
                .add(|| format!("volume {volume:?} ({described}): overlapping paths: {this} with {other}"));
        }
        self.seen.insert(path.to_owned(), origin.to_owned());
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
