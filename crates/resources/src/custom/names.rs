//! The accepted names of a custom resource, and the conditions that report them (upstream:
//! `pkg/controller/status` and `pkg/controller/apiapproval` of apiextensions-apiserver).

use std::collections::{HashMap, HashSet};

use nave_machinery::{Value, conditions, meta};
use serde_json::json;

use crate::groups::{Approval, is_protected_group};
use crate::read;

/// The accepted names of a definition (`status.acceptedNames`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    plural: String,
    singular: String,
    short_names: Vec<String>,
    kind: String,
    list_kind: String,
}

impl Accepted {
    /// Reads the accepted names of a definition.
    pub fn by(definition: &Value) -> Self {
        read::value_at(definition, "status.acceptedNames").map(Self::read).unwrap_or_default()
    }

    fn read(names: &Value) -> Self {
        let text = |field: &str| read::text(names, field).to_owned();
        let short_names = read::list(names, "shortNames").iter().filter_map(Value::as_str);
        Self {
            plural: text("plural"),
            singular: text("singular"),
            short_names: short_names.map(str::to_owned).collect(),
            kind: text("kind"),
            list_kind: text("listKind"),
        }
    }

    fn resources(&self) -> impl Iterator<Item = &str> {
        [&self.plural, &self.singular].into_iter().chain(&self.short_names).map(String::as_str)
    }

    fn kinds(&self) -> impl Iterator<Item = &str> {
        [&self.kind, &self.list_kind].into_iter().map(String::as_str)
    }
}

/// The names in use in one group, with the number of definitions that use each name.
#[derive(Clone, Debug, Default)]
pub struct NamesInUse {
    resources: HashMap<String, usize>,
    kinds: HashMap<String, usize>,
}

impl NamesInUse {
    /// Adds the names of a definition.
    pub fn add(&mut self, accepted: &Accepted) {
        add(&mut self.resources, accepted.resources());
        add(&mut self.kinds, accepted.kinds());
    }

    /// Removes the names of a definition that was added before.
    pub fn remove(&mut self, accepted: &Accepted) {
        remove(&mut self.resources, accepted.resources());
        remove(&mut self.kinds, accepted.kinds());
    }

    /// Returns whether no names are in use.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.kinds.is_empty()
    }
}

fn add<'n>(counts: &mut HashMap<String, usize>, names: impl Iterator<Item = &'n str>) {
    for name in names.filter(|name| !name.is_empty()) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}

fn remove<'n>(counts: &mut HashMap<String, usize>, names: impl Iterator<Item = &'n str>) {
    for name in names.filter(|name| !name.is_empty()) {
        if let Some(count) = counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
            }
        }
    }
}

/// Returns the definition with an updated status, or `None` if the status is up to date. The status has the accepted
/// names and the conditions `NamesAccepted`, `Established` and `KubernetesAPIApprovalPolicyConformant`. `in_use`
/// contains the names of the group, including the names of this definition. The names of a built-in resource
/// (`is_builtin`) are never accepted, because both resources would use the same storage keys. The caller must serve
/// the definition before it writes `Established`.
pub fn status(definition: &Value, in_use: &NamesInUse, is_builtin: bool, now: &str) -> Option<Value> {
    let mut changed = definition.clone();
    let (accepted, conflict) = accept(definition, in_use);
    let status = changed.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
    status.as_object_mut()?.insert("acceptedNames".to_owned(), accepted);
    let builtin = || ("BuiltInResource", "a built-in resource has this group and plural".to_owned());
    let conflict = conflict.or_else(|| is_builtin.then(builtin));
    let is_accepted = conflict.is_none();
    let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    set(&mut changed, "NamesAccepted", is_accepted, reason, &message, now);
    if is_accepted {
        let message = "the initial names have been accepted";
        set(&mut changed, "Established", true, "InitialNamesAccepted", message, now);
    } else if conditions::find(definition, "Established").is_none() {
        set(&mut changed, "Established", false, "NotAccepted", "not all names are accepted", now);
    }
    if let Some((is_approved, reason, message)) = approval(definition) {
        set(&mut changed, "KubernetesAPIApprovalPolicyConformant", is_approved, reason, &message, now);
    }
    (changed.get("status") != definition.get("status")).then_some(changed)
}

/// Sets a condition of a definition; no-op if the condition is unchanged.
pub fn set(definition: &mut Value, kind: &str, is_true: bool, reason: &str, message: &str, now: &str) {
    let status = if is_true { "True" } else { "False" };
    if let Some(old) = conditions::find(definition, kind)
        && (&old["status"], &old["reason"], &old["message"])
            == (&json!(status), &json!(reason), &json!(message))
    {
        return;
    }
    // An established definition stays established.
    if kind == "Established" && is_true && conditions::is_true(definition, kind) {
        return;
    }
    let condition = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    conditions::set(definition, condition);
}

/// Returns the new accepted names and the last conflict.
fn accept(definition: &Value, in_use: &NamesInUse) -> (Value, Option<(&'static str, String)>) {
    let (wanted, own) = (names_of_spec(definition), Accepted::by(definition));
    let mut accepted =
        read::value_at(definition, "status.acceptedNames").cloned().unwrap_or_else(|| json!({}));
    let mut conflict = None;
    for (field, held, counts, reason) in [
        ("plural", &own.plural, &in_use.resources, "PluralConflict"),
        ("singular", &own.singular, &in_use.resources, "SingularConflict"),
        ("kind", &own.kind, &in_use.kinds, "KindConflict"),
        ("listKind", &own.list_kind, &in_use.kinds, "ListKindConflict"),
    ] {
        let name = read::text(&wanted, field);
        if name != held && counts.contains_key(name) {
            conflict = Some((reason, format!("{name:?} is already in use")));
        } else {
            accepted[field] = json!(name);
        }
        if field == "singular" {
            let held: HashSet<&str> = own.short_names.iter().map(String::as_str).collect();
            let short = read::list(&wanted, "shortNames").iter().filter_map(Value::as_str);
            let taken: Vec<String> = short
                .filter(|name| !held.contains(name) && in_use.resources.contains_key(*name))
                .map(|name| format!("{name:?} is already in use"))
                .collect();
            match taken.as_slice() {
                [] => keep(&mut accepted, &wanted, "shortNames"),
                [one] => conflict = Some(("ShortNamesConflict", one.clone())),
                several => conflict = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
            }
        }
    }
    keep(&mut accepted, &wanted, "categories");
    (accepted, conflict)
}

fn keep(accepted: &mut Value, wanted: &Value, field: &str) {
    let Some(fields) = accepted.as_object_mut() else { return };
    match wanted.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// Returns `spec.names` with defaults.
fn names_of_spec(definition: &Value) -> Value {
    let mut names = read::value_at(definition, "spec.names").cloned().unwrap_or_else(|| json!({}));
    let kind = read::text(&names, "kind").to_owned();
    for (field, default) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if read::text(&names, field).is_empty() {
            names[field] = json!(default);
        }
    }
    names
}

/// The annotation that records the community's approval of an API in a protected group.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Returns whether a resource in a protected group is approved, with reason and message; `None` for other groups.
fn approval(definition: &Value) -> Option<(bool, &'static str, String)> {
    if !is_protected_group(read::text(definition, "spec.group")) {
        return None;
    }
    let annotation = meta::field(definition, "annotations")
        .and_then(|annotations| annotations.get(APPROVED)?.as_str())
        .unwrap_or_default();
    let (approval, message) = Approval::of(annotation);
    let (is_approved, reason) = match approval {
        Approval::Missing => (false, "MissingAnnotation"),
        Approval::Bypassed => (false, "UnapprovedAnnotation"),
        Approval::Approved => (true, "ApprovedAnnotation"),
        Approval::Invalid => (false, "InvalidAnnotation"),
    };
    Some((is_approved, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "kind": kind, "shortNames": short}}})
    }

    fn condition(definition: &Value, kind: &str) -> (String, String) {
        let found = conditions::find(definition, kind).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    }

    #[test]
    fn accepts_unused_names_and_establishes_the_definition() {
        let done =
            status(&definition("things", "Thing", &["th"]), &NamesInUse::default(), false, "now").unwrap();
        let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList",
            "shortNames": ["th"]});
        assert_eq!(done["status"]["acceptedNames"], names);
        assert_eq!(condition(&done, "NamesAccepted"), ("True".into(), "NoConflicts".into()));
        assert_eq!(condition(&done, "Established"), ("True".into(), "InitialNamesAccepted".into()));
        let mut in_use = NamesInUse::default();
        in_use.add(&Accepted::by(&done));
        assert_eq!(status(&done, &in_use, false, "later"), None, "an up-to-date status is not changed");
        in_use.remove(&Accepted::by(&done));
        assert!(in_use.is_empty());
    }

    #[test]
    fn reports_names_in_use_and_accepts_the_others() {
        let first =
            status(&definition("things", "Thing", &["th"]), &NamesInUse::default(), false, "now").unwrap();
        let mut in_use = NamesInUse::default();
        in_use.add(&Accepted::by(&first));
        for (plural, kind, short, reason) in [
            ("others", "Thing", &[][..], "ListKindConflict"),
            ("others", "Other", &["th"], "ShortNamesConflict"),
            ("others", "Other", &["things"], "ShortNamesConflict"),
            ("others", "ThingList", &[], "KindConflict"),
        ] {
            let second = status(&definition(plural, kind, short), &in_use, false, "now").unwrap();
            assert_eq!(condition(&second, "NamesAccepted"), ("False".into(), reason.into()));
            assert_eq!(condition(&second, "Established"), ("False".into(), "NotAccepted".into()));
            assert_eq!(second["status"]["acceptedNames"]["plural"], "others");
        }
        // An established definition with conflicting new names is served under its old names.
        let mut renamed = status(&definition("others", "Other", &[]), &in_use, false, "now").unwrap();
        in_use.add(&Accepted::by(&renamed));
        renamed["spec"]["names"]["kind"] = json!("Thing");
        let renamed = status(&renamed, &in_use, false, "now").unwrap();
        assert_eq!(renamed["status"]["acceptedNames"]["kind"], "Other");
        assert_eq!(condition(&renamed, "Established").0, "True");
        assert_eq!(condition(&renamed, "NamesAccepted").0, "False");
    }

    #[test]
    fn protected_groups_require_an_approval() {
        for (group, annotation, expected) in [
            ("example.com", "", None),
            ("notk8s.io", "", None),
            ("a.k8s.io", "", Some((false, "MissingAnnotation"))),
            ("kubernetes.io", "unapproved, testing", Some((false, "UnapprovedAnnotation"))),
            (
                "a.k8s.io",
                "https://github.com/kubernetes/kubernetes/pull/1",
                Some((true, "ApprovedAnnotation")),
            ),
            ("a.k8s.io", "yes", Some((false, "InvalidAnnotation"))),
        ] {
            let definition =
                json!({"metadata": {"annotations": {APPROVED: annotation}}, "spec": {"group": group}});
            let found = approval(&definition).map(|(is_approved, reason, _)| (is_approved, reason));
            assert_eq!(found, expected, "{group} {annotation}");
        }
    }

    #[test]
    fn names_of_builtin_resources_are_not_accepted() {
        let status =
            status(&definition("things", "Thing", &[]), &NamesInUse::default(), true, "now").unwrap();
        for condition in ["NamesAccepted", "Established"] {
            assert!(!conditions::is_true(&status, condition), "{status}");
        }
    }
}
