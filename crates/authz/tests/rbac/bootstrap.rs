//! Compares the bootstrap policy with the objects recorded from a kube-apiserver.

use nave_authz::bootstrap;
use serde_json::Value;

/// The folder in `NAVE_REFERENCE`, by default beside the repository.
fn reference() -> std::path::PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    std::env::var_os("NAVE_REFERENCE").map_or_else(|| default.into(), Into::into)
}

#[test]
fn policy_matches_the_recording() {
    let file = reference().join("bootstrap-rbac.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: {} does not exist", file.display());
        return;
    };
    let mut recorded: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut own: Vec<Value> = bootstrap::policy().unwrap().into_iter().map(|it| it.object).collect();
    let order = |object: &Value| {
        let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        (object["kind"].as_str().unwrap().to_owned(), name("namespace"), name("name"))
    };
    recorded.sort_by_key(order);
    own.sort_by_key(order);
    let names = |objects: &[Value]| objects.iter().map(order).collect::<Vec<_>>();
    assert_eq!(names(&own), names(&recorded));
    for (own, recorded) in own.iter().zip(&recorded) {
        assert_eq!(own, recorded, "{:?}", order(own));
    }
}

#[test]
fn reconciling_a_default_object_changes_nothing() {
    let objects = bootstrap::policy().unwrap();
    assert!(objects.len() > 130, "{}", objects.len());
    for object in objects {
        let reconciled = bootstrap::reconcile(&object.object, &object.object);
        assert_eq!(reconciled, bootstrap::Reconciled::Right, "{}", object.name);
    }
}
