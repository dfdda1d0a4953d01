//! Metadata changes on create, update and delete of any object (upstream: `BeforeCreate`, `BeforeUpdate` and
//! `BeforeDelete` in `registry/rest`). All functions are pure: they depend on the object, its previous state, and the
//! time.

use std::collections::HashSet;

use nave_machinery::options::{DeleteOptions, DeletionPropagation};
use nave_machinery::time::Timestamp;
use nave_machinery::{Status, Value, meta};
use nave_resources::{Generation, ResourceDef, Strategy};

/// The finalizer that keeps an object until its dependents are deleted.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// The finalizer that keeps an object until its dependents are orphaned.
pub const ORPHAN_FINALIZER: &str = "orphan";

/// Metadata that only the server sets. A kind without a generation keeps that of the client, as upstream.
const SERVER_SET_ON_CREATE: [&str; 3] = ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Sets the namespace and the server-set metadata of a new object.
///
/// # Errors
/// 400 if the object names another namespace.
pub fn before_create(
    def: &ResourceDef,
    object: &mut Value,
    namespace: &str,
    now: Timestamp,
) -> Result<(), Status> {
    ensure_namespace(object, namespace)?;
    for field in SERVER_SET_ON_CREATE {
        meta::remove(object, field);
    }
    meta::set(object, "uid", Value::String(uuid::Uuid::new_v4().to_string()));
    meta::set(object, "creationTimestamp", Value::String(now.rfc3339()));
    if def.rules.generation != Generation::Of(&[]) {
        meta::set(object, "generation", Value::from(1));
    }
    Ok(())
}

/// Sets the namespace of a new object and removes system fields, before admission.
///
/// # Errors
/// 400 if the object names another namespace.
pub fn wipe_system_fields(object: &mut Value, namespace: &str) -> Result<(), Status> {
    ensure_namespace(object, namespace)?;
    for field in SERVER_SET_ON_CREATE.into_iter().chain(["uid", "creationTimestamp", "resourceVersion"]) {
        meta::remove(object, field);
    }
    Ok(())
}

/// Removes owner references that occur before, and returns their uids.
pub fn remove_repeated_owners(object: &mut Value) -> Vec<String> {
    let owners = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(owners) = owners.and_then(Value::as_array_mut).filter(|owners| owners.len() > 1) else {
        return Vec::new();
    };
    let mut seen = HashSet::with_capacity(owners.len());
    let mut repeated = Vec::new();
    owners.retain(|owner| {
        let is_new = seen.insert(owner.clone());
        if !is_new {
            repeated.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        is_new
    });
    repeated
}

/// Restores the metadata that an update may not change.
///
/// # Errors
/// 400 if the object names another namespace.
pub fn before_update(object: &mut Value, old: &Value, namespace: &str) -> Result<(), Status> {
    ensure_namespace(object, namespace)?;
    meta::remove(object, "selfLink");
    for field in ["generation", "creationTimestamp"] {
        keep(object, old, field);
    }
    if meta::uid(object).is_empty() {
        keep(object, old, "uid");
    }
    // An unconditional update gets the stored resourceVersion, which a dry run returns.
    if matches!(meta::resource_version(object), "" | "0") {
        keep(object, old, "resourceVersion");
    }
    if meta::deletion_timestamp(old).is_some() {
        keep(object, old, "deletionTimestamp");
    }
    // Only an absent value is restored: validation rejects a changed one.
    if meta::field(object, "deletionGracePeriodSeconds").is_none() {
        keep(object, old, "deletionGracePeriodSeconds");
    }
    Ok(())
}

/// Increments the generation if the update changed a field that the generation covers.
pub fn bump_generation(def: &ResourceDef, object: &mut Value, old: &Value) {
    if def.rules.bumps_generation(object, old) {
        let next = meta::generation(old) + 1;
        meta::set(object, "generation", Value::from(next));
    }
}

/// Returns whether an object that is being deleted can be removed: it has no grace period and no finalizers.
pub fn is_deletable(def: &ResourceDef, object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && meta::finalizers(object).is_empty()
        && meta::field(object, "deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && !def.strategy.holds_deletion(object)
}

/// The result of a deletion request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The object is already being deleted and does not change.
    Pending,
    /// The object is marked for deletion. It stays until its grace period is over and its finalizers are removed.
    Marked,
    /// The object can be removed immediately.
    Now,
}

/// Marks an object for deletion according to the options and the resource's strategy.
///
/// # Errors
/// 409 if a precondition fails.
pub fn before_delete(
    def: &ResourceDef,
    object: &mut Value,
    options: &DeleteOptions,
    name: &str,
    now: Timestamp,
) -> Result<Deletion, Status> {
    check_preconditions(def, meta::uid(object), meta::resource_version(object), options, name)?;
    if def.rules.own_deletion && meta::deletion_timestamp(object).is_none() {
        set_propagation_finalizers(object, options, false);
        meta::set(object, "deletionTimestamp", Value::String(now.rfc3339()));
        def.strategy.begin_deletion(object);
        return Ok(Deletion::Marked);
    }
    if def.rules.own_deletion && def.strategy.holds_deletion(object) {
        return Ok(Deletion::Pending);
    }
    let graceful = mark_graceful(def.strategy.as_ref(), object, options, now);
    if graceful == Some(Grace::Pending) {
        return Ok(Deletion::Pending);
    }
    if !def.rules.without_dependents {
        set_propagation_finalizers(object, options, def.rules.orphans_dependents);
    }
    let kept = !meta::finalizers(object).is_empty() || def.strategy.holds_deletion(object);
    match graceful {
        Some(Grace::Seconds(seconds)) if seconds > 0 => Ok(Deletion::Marked),
        _ if kept => {
            mark_now(object, now);
            def.strategy.begin_deletion(object);
            Ok(Deletion::Marked)
        }
        _ => Ok(Deletion::Now),
    }
}

/// Checks the preconditions of a deletion.
///
/// # Errors
/// 409 that names the failed precondition.
pub fn check_preconditions(
    def: &ResourceDef,
    uid: &str,
    resource_version: &str,
    options: &DeleteOptions,
    name: &str,
) -> Result<(), Status> {
    let refuse = |what: &str, wanted: &str, found: &str, happened: &str| {
        if def.rules.own_deletion {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Status::conflict(&def.group_resource(), name, &why);
        }
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {happened}"
        );
        Status::conflict_of_kind(&def.group_kind(), name, &why)
    };
    if let Some(wanted) = &options.preconditions.uid
        && wanted != uid
    {
        return Err(refuse("UID", wanted, uid, "deleted and then recreated"));
    }
    if let Some(wanted) = &options.preconditions.resource_version
        && wanted != resource_version
    {
        return Err(refuse("ResourceVersion", wanted, resource_version, "modified"));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grace {
    Seconds(i64),
    Pending,
}

/// Sets the deletion timestamp for graceful deletion; `None` if the object is deleted without a grace period.
fn mark_graceful(
    strategy: &dyn Strategy,
    object: &mut Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Option<Grace> {
    let requested = options.grace_period_seconds.map(at_least_a_second_if_negative);
    let wanted = strategy.graceful_period(object, requested)?;
    let Some(deadline) = meta::deletion_timestamp(object).map(str::to_owned) else {
        set_deletion(object, now.plus_seconds(wanted), wanted);
        bump_if_counted(object);
        return Some(Grace::Seconds(wanted));
    };
    // The object is already being deleted, so the grace period can only become shorter. A grace period of zero, or no
    // grace period, does not keep the object.
    let running = meta::field(object, "deletionGracePeriodSeconds").and_then(Value::as_i64)?;
    let running = Some(at_least_a_second_if_negative(running)).filter(|running| *running != 0)?;
    match requested {
        Some(shorter) if shorter < running => {
            let begun = Timestamp::parse(&deadline).unwrap_or(now).plus_seconds(running.saturating_neg());
            let created = meta::field(object, "creationTimestamp").and_then(Value::as_str);
            let created = created.and_then(Timestamp::parse);
            // A deadline beyond the last representable time was clamped, so the start of the deletion cannot be
            // computed from it.
            let begun = if created.is_some_and(|created| begun < created) { now } else { begun };
            let deadline = begun.plus_seconds(shorter);
            // If the new deadline has passed, shortens the period to one second, so that the kubelet sees a change.
            let shorter = if deadline < now { shorter.min(1) } else { shorter };
            set_deletion(object, deadline.max(now), shorter);
            Some(Grace::Seconds(shorter))
        }
        _ => Some(Grace::Pending),
    }
}

/// Maps a negative grace period to one second, as upstream.
fn at_least_a_second_if_negative(seconds: i64) -> i64 {
    if seconds < 0 { 1 } else { seconds }
}

/// Marks an object that only finalizers keep for deletion, with a grace period of zero.
fn mark_now(object: &mut Value, now: Timestamp) {
    let deadline = meta::deletion_timestamp(object);
    let (is_first, is_over) =
        (deadline.is_none(), deadline.and_then(Timestamp::parse).is_some_and(|deadline| deadline <= now));
    if is_first {
        bump_if_counted(object);
    }
    if is_over {
        meta::set(object, "deletionGracePeriodSeconds", Value::from(0));
    } else {
        set_deletion(object, now, 0);
    }
}

fn set_deletion(object: &mut Value, at: Timestamp, grace_period_seconds: i64) {
    meta::set(object, "deletionTimestamp", Value::String(at.rfc3339()));
    meta::set(object, "deletionGracePeriodSeconds", Value::from(grace_period_seconds));
}

fn bump_if_counted(object: &mut Value) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::set(object, "generation", Value::from(generation + 1));
    }
}

/// Adds or removes the garbage collector's finalizers according to the propagation policy. Without a policy from the
/// client, the kind's default applies.
fn set_propagation_finalizers(object: &mut Value, options: &DeleteOptions, orphans_by_default: bool) {
    let finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match (options.propagation_policy, options.orphan_dependents) {
        (Some(DeletionPropagation::Orphan), _) | (None, Some(true)) => (true, false),
        (Some(DeletionPropagation::Foreground), _) => (false, true),
        (Some(DeletionPropagation::Background), _) | (None, Some(false)) => (false, false),
        (None, None) if has(ORPHAN_FINALIZER) => (true, false),
        (None, None) if has(FOREGROUND_FINALIZER) => (false, true),
        (None, None) => (orphans_by_default, false),
    };
    if orphan == has(ORPHAN_FINALIZER) && foreground == has(FOREGROUND_FINALIZER) {
        return;
    }
    let mut wanted: Vec<Value> = finalizers
        .iter()
        .filter(|name| *name != ORPHAN_FINALIZER && *name != FOREGROUND_FINALIZER)
        .map(|name| Value::String(name.clone()))
        .collect();
    if orphan {
        wanted.push(Value::String(ORPHAN_FINALIZER.to_owned()));
    }
    if foreground {
        wanted.push(Value::String(FOREGROUND_FINALIZER.to_owned()));
    }
    if wanted.is_empty() {
        meta::remove(object, "finalizers");
    } else {
        meta::set(object, "finalizers", Value::Array(wanted));
    }
}

/// Sets the namespace of the request in an object that has no namespace.
///
/// # Errors
/// 400 if the object names another namespace.
pub fn ensure_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let own = meta::namespace(object);
    if own == namespace {
        return Ok(());
    }
    if namespace.is_empty() {
        meta::remove(object, "namespace");
        return Ok(());
    }
    if own.is_empty() {
        meta::set(object, "namespace", Value::String(namespace.to_owned()));
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

fn keep(object: &mut Value, old: &Value, field: &str) {
    match meta::field(old, field) {
        Some(value) => meta::set(object, field, value.clone()),
        None => {
            meta::remove(object, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_machinery::options::Preconditions;
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    fn def(group: &str, resource: &str) -> std::sync::Arc<ResourceDef> {
        let registry = Registry::builtin(nave_schema::builtin());
        registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap().clone()
    }

    fn timestamp(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds, 0).unwrap()
    }

    fn deleted(def: &ResourceDef, object: &mut Value, options: &DeleteOptions, now: i64) -> Deletion {
        before_delete(def, object, options, "x", timestamp(now)).unwrap()
    }

    #[test]
    fn a_new_object_gets_its_own_system_fields() {
        let mut object = json!({"metadata": {"name": "web-a", "uid": "mine", "deletionTimestamp": "t"}});
        before_create(&def("apps", "deployments"), &mut object, "ns", timestamp(0)).unwrap();
        let metadata = &object["metadata"];
        assert_ne!(metadata["uid"], "mine");
        assert_eq!(
            (&metadata["namespace"], &metadata["generation"], &metadata["creationTimestamp"]),
            (&json!("ns"), &json!(1), &json!("1970-01-01T00:00:00Z"))
        );
        assert_eq!(metadata.get("deletionTimestamp"), None);
        // A kind without a generation keeps that of the client.
        let mut copied = json!({"metadata": {"name": "a", "generation": 7}});
        before_create(&def("", "configmaps"), &mut copied, "ns", timestamp(0)).unwrap();
        assert_eq!(copied["metadata"]["generation"], 7);
        let mut stray = json!({"metadata": {"namespace": "other"}});
        assert_eq!(before_create(&def("", "pods"), &mut stray, "ns", timestamp(0)).unwrap_err().code, 400);
    }

    #[test]
    fn an_update_keeps_system_fields() {
        let old = json!({"metadata": {"name": "x", "uid": "1", "generation": 4, "creationTimestamp": "t",
            "deletionTimestamp": "d", "deletionGracePeriodSeconds": 0}});
        let mut new = json!({"metadata": {"name": "x", "generation": 9, "creationTimestamp": "u"}});
        before_update(&mut new, &old, "").unwrap();
        assert_eq!(new, old);
    }

    #[test]
    fn the_first_deletion_of_a_namespace_or_definition_only_marks_it() {
        for (group, resource) in [("", "namespaces"), ("apiextensions.k8s.io", "customresourcedefinitions")] {
            let def = def(group, resource);
            let mut object = json!({
                "metadata": {"name": "x", "generation": 1},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"conditions": [{"type": "T"}]},
            });
            let marked = deleted(&def, &mut object, &DeleteOptions::default(), 100);
            assert_eq!(marked, Deletion::Marked, "{resource}");
            let metadata = &object["metadata"];
            assert_eq!(metadata["deletionTimestamp"], "1970-01-01T00:01:40Z");
            assert_eq!(
                (metadata.get("deletionGracePeriodSeconds"), &metadata["generation"]),
                (None, &json!(1))
            );
            assert_eq!(object["status"]["conditions"][0]["type"], "T");
            // Finalizers of the namespace's content hold it, those in the metadata hold a definition.
            let again = deleted(&def, &mut object, &DeleteOptions::default(), 200);
            let expected = if resource == "namespaces" { Deletion::Pending } else { Deletion::Marked };
            assert_eq!(again, expected, "{resource}");
        }
    }

    #[test]
    fn events_have_no_dependents() {
        let policy = Some(DeletionPropagation::Foreground);
        let options = DeleteOptions { propagation_policy: policy, ..DeleteOptions::default() };
        for group in ["", "events.k8s.io"] {
            let mut event = json!({"metadata": {"name": "x", "finalizers": ["example.com/a"]}});
            deleted(&def(group, "events"), &mut event, &options, 0);
            assert_eq!(event["metadata"]["finalizers"], json!(["example.com/a"]));
        }
    }

    #[test]
    fn a_scheduled_pod_is_deleted_gracefully_and_the_period_only_shrinks() {
        let pods = def("", "pods");
        let grace = |seconds| DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
        let mut pod = json!({"metadata": {"name": "x", "generation": 1}, "spec": {"nodeName": "n"}});
        assert_eq!(deleted(&pods, &mut pod, &grace(None), 100), Deletion::Marked);
        assert_eq!(pod["metadata"]["deletionTimestamp"], "1970-01-01T00:02:10Z");
        assert_eq!(
            (&pod["metadata"]["deletionGracePeriodSeconds"], &pod["metadata"]["generation"]),
            (&json!(30), &json!(2))
        );
        assert_eq!(deleted(&pods, &mut pod, &grace(Some(50)), 101), Deletion::Pending);
        assert_eq!(deleted(&pods, &mut pod, &grace(None), 101), Deletion::Pending);
        assert_eq!(deleted(&pods, &mut pod, &grace(Some(5)), 101), Deletion::Marked);
        assert_eq!(pod["metadata"]["deletionTimestamp"], "1970-01-01T00:01:45Z");
        // A negative period means one second, not immediate deletion.
        assert_eq!(deleted(&pods, &mut pod, &grace(Some(-1)), 102), Deletion::Marked);
        assert_eq!(pod["metadata"]["deletionTimestamp"], "1970-01-01T00:01:42Z");
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], json!(1));
        assert_eq!(deleted(&pods, &mut pod, &grace(Some(i64::MIN)), 102), Deletion::Pending);
        assert_eq!(deleted(&pods, &mut pod, &grace(Some(0)), 102), Deletion::Now);
        // If the deadline is beyond the last representable time, a shorter period starts at the current time.
        let mut endless = json!({"metadata": {"name": "x", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"}});
        assert_eq!(deleted(&pods, &mut endless, &grace(Some(i64::MAX)), 100), Deletion::Marked);
        assert_eq!(endless["metadata"]["deletionTimestamp"], "9999-12-31T23:59:59Z");
        assert_eq!(deleted(&pods, &mut endless, &grace(Some(5)), 101), Deletion::Marked);
        assert_eq!(endless["metadata"]["deletionTimestamp"], "1970-01-01T00:01:46Z");
        let mut over = json!({"metadata": {"name": "x", "deletionTimestamp": "1970-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0}, "spec": {"nodeName": "n"}});
        assert_eq!(deleted(&pods, &mut over, &grace(None), 102), Deletion::Now);
        let mut waiting = json!({"metadata": {"name": "x"}, "spec": {}});
        assert_eq!(deleted(&pods, &mut waiting, &grace(None), 100), Deletion::Now);
    }

    #[test]
    fn finalizers_keep_an_object_until_they_are_gone() {
        let maps = def("", "configmaps");
        let mut object = json!({"metadata": {"name": "x", "finalizers": ["a/b"]}});
        assert_eq!(deleted(&maps, &mut object, &DeleteOptions::default(), 0), Deletion::Marked);
        assert!(!is_deletable(&maps, &object));
        meta::remove(&mut object, "finalizers");
        assert!(is_deletable(&maps, &object));
        let policy = |policy| DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
        for (requested, finalizer) in [
            (DeletionPropagation::Orphan, ORPHAN_FINALIZER),
            (DeletionPropagation::Foreground, FOREGROUND_FINALIZER),
        ] {
            let mut object = json!({"metadata": {"name": "x"}});
            assert_eq!(deleted(&maps, &mut object, &policy(requested), 0), Deletion::Marked);
            assert_eq!(object["metadata"]["finalizers"], json!([finalizer]));
            assert_eq!(
                deleted(&maps, &mut object, &policy(DeletionPropagation::Background), 0),
                Deletion::Now
            );
        }
    }

    #[test]
    fn a_failed_precondition_changes_nothing() {
        let maps = def("", "configmaps");
        let preconditions = |uid: &str, version: &str| DeleteOptions {
            preconditions: Preconditions { uid: Some(uid.into()), resource_version: Some(version.into()) },
            ..DeleteOptions::default()
        };
        let object = json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": "7"}});
        for (uid, version, code) in [("u", "7", None), ("v", "7", Some(409)), ("u", "8", Some(409))] {
            let outcome =
                before_delete(&maps, &mut object.clone(), &preconditions(uid, version), "x", timestamp(0));
            assert_eq!(outcome.err().map(|status| status.code), code, "{uid} {version}");
        }
        for (def, why) in [
            (
                maps,
                "ConfigMap \"x\": the UID in the precondition (v) does not match the UID in record (u). The object might have been deleted and then recreated",
            ),
            (
                def("", "namespaces"),
                "namespaces \"x\": Precondition failed: UID in precondition: v, UID in object meta: u",
            ),
        ] {
            let refused = check_preconditions(&def, "u", "7", &preconditions("v", "7"), "x").unwrap_err();
            assert_eq!(refused.message, format!("Operation cannot be fulfilled on {why}"));
        }
    }
}
