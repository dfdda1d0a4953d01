use serde_json::json;

use super::*;

fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn list(pairs: &[(&str, &str)]) -> Result<ListOptions, u16> {
    ListOptions::parse(&query(pairs)).map_err(|status| status.code)
}

#[test]
fn rejects_conflicting_list_options() {
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<u16>);
    let cases: [Case<'_>; 24] = [
        (&[("resourceVersion", "0")], None),
        (&[("resourceVersion", "x")], Some(400)),
        (&[("resourceVersion", "+1")], Some(400)),
        (&[("resourceVersion", "18446744073709551616")], Some(400)),
        (&[("resourceVersionMatch", "Exact")], Some(422)),
        (&[("resourceVersion", "0"), ("resourceVersionMatch", "Exact")], Some(422)),
        (&[("resourceVersion", "1"), ("resourceVersionMatch", "NotOlderThan")], None),
        (&[("resourceVersion", "1"), ("resourceVersionMatch", "Bogus")], Some(422)),
        (&[("limit", "-1")], None),
        (&[("limit", "x")], Some(400)),
        (&[("sendInitialEvents", "true")], Some(422)),
        (&[("allowWatchBookmarks", "true")], None),
        (&[("watch", "1"), ("sendInitialEvents", "true")], Some(422)),
        (&[("watch", "1"), ("sendInitialEvents", "false")], Some(422)),
        (&[("watch", "1"), ("resourceVersionMatch", "NotOlderThan")], Some(422)),
        (&[("watch", "false"), ("sendInitialEvents", "false")], Some(422)),
        (&[("continue", "t"), ("resourceVersion", "1"), ("resourceVersionMatch", "Exact")], Some(422)),
        (&[("watch", "1"), ("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")], None),
        (&[("watch", "1"), ("resourceVersion", "x")], Some(500)),
        (&[("watch", "1"), ("continue", "t")], Some(422)),
        (&[("watch", "1"), ("continue", "t"), ("resourceVersion", "1")], None),
        (&[("fieldSelector", "=,a=b")], None),
        (&[("labelSelector", "a b")], Some(400)),
        (&[("fieldSelector", "a")], Some(400)),
    ];
    for (pairs, code) in cases {
        assert_eq!(list(pairs).err(), code, "{pairs:?}");
    }
}

#[test]
fn reports_errors_of_lists_as_upstream() {
    for (pairs, text) in [
        (
            &[("limit", "x"), ("resourceVersionMatch", "Exact")][..],
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &[("limit", "99999999999999999999")],
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            &[("resourceVersion", "x")],
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            &[("resourceVersion", "x"), ("watch", "1")],
            "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
    ] {
        let refusal = ListOptions::parse(&query(pairs)).unwrap_err();
        assert_eq!(refusal.message, text);
        assert!(!refusal.is_success(), "{pairs:?}");
    }
    // The error of the token, or that a version is given with it, comes first.
    assert!(ListOptions::parse(&query(&[("resourceVersion", "x"), ("continue", "t")])).is_ok());
    let refusal = CreateOptions::parse(&query(&[("dryRun", "x"), ("dryRun", "All")])).unwrap_err();
    let text = "dryRun: Unsupported value: [\"x\",\"All\"]: supported values: \"All\"";
    assert!(refusal.message.ends_with(text), "{}", refusal.message);
}

#[test]
fn rejects_unsupported_write_options() {
    assert!(CreateOptions::parse(&query(&[("dryRun", "All")])).unwrap().dry_run);
    for pair in [
        ("dryRun", "Some"),
        ("fieldValidation", "Bogus"),
        ("fieldManager", "a\nb"),
        ("fieldManager", "a\u{200b}"),
    ] {
        assert_eq!(CreateOptions::parse(&query(&[pair])).unwrap_err().code, 422);
    }
    assert_eq!(PatchOptions::parse(&query(&[("force", "true")]), false).unwrap_err().code, 422);
    assert_eq!(PatchOptions::parse(&query(&[]), true).unwrap_err().code, 422);
    assert!(PatchOptions::parse(&query(&[("force", "true"), ("fieldManager", "m")]), true).unwrap().force);
}

#[test]
fn options_for_admission_equal_those_of_the_client() {
    let options = CreateOptions::parse(&query(&[])).unwrap();
    let empty = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"});
    assert_eq!((options.validation(), options.to_value("CreateOptions")), (FieldValidation::Warn, empty));
    let pairs = [("dryRun", "All"), ("fieldManager", "m"), ("fieldValidation", "Strict")];
    let options = UpdateOptions::parse_update(&query(&pairs)).unwrap();
    let full = json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
        "fieldManager": "m", "fieldValidation": "Strict"});
    assert_eq!((options.validation(), options.to_value("UpdateOptions")), (FieldValidation::Strict, full));
    let full = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
        "gracePeriodSeconds": 0, "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u", "resourceVersion": "5"}});
    assert_eq!(DeleteOptions::parse(&[], &full).unwrap().to_value(), full);
    let old = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "orphanDependents": false});
    assert_eq!(DeleteOptions::parse(&[], &old).unwrap().to_value(), old);
}

#[test]
fn delete_options_in_the_body_take_precedence() {
    let options = DeleteOptions::parse(&query(&[("gracePeriodSeconds", "5")]), &Value::Null).unwrap();
    assert_eq!(options.grace_period_seconds, Some(5));
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}, "propagationPolicy": "Orphan"});
    let options = DeleteOptions::parse(&query(&[("gracePeriodSeconds", "5")]), &body).unwrap();
    assert_eq!(options.preconditions.uid.as_deref(), Some("x"));
    assert_eq!(
        (options.grace_period_seconds, options.propagation_policy),
        (None, Some(DeletionPropagation::Orphan))
    );
    for (body, code) in [
        (json!({"kind": "Pod"}), 400),
        (json!([]), 400),
        (json!("DeleteOptions"), 400),
        (json!({"dryRun": "All"}), 400),
        (json!({"dryRun": [true]}), 400),
        (json!({"dryRun": ["Some"]}), 422),
        (json!({"dryRun": [""]}), 422),
        (json!({"kind": 5}), 400),
        (json!({"apiVersion": 1}), 400),
        (json!({"apiVersion": "a/b/c"}), 400),
        (json!({"gracePeriodSeconds": "5"}), 400),
        (json!({"gracePeriodSeconds": 1.5}), 400),
        (json!({"gracePeriodSeconds": 1e30}), 400),
        (json!({"preconditions": {"uid": 5}}), 400),
        (json!({"preconditions": {"resourceVersion": 5}}), 400),
        (json!({"preconditions": "x"}), 400),
        (json!({"preconditions": ["x"]}), 400),
        (json!({"propagationPolicy": true}), 400),
        (json!({"propagationPolicy": ""}), 422),
        (json!({"orphanDependents": "true"}), 400),
        (json!({"ignoreStoreReadErrorWithClusterBreakingPotential": "true"}), 400),
        (json!({"propagationPolicy": "Sideways"}), 422),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
    ] {
        assert_eq!(DeleteOptions::parse(&[], &body).unwrap_err().code, code, "{body}");
    }
}

#[test]
fn accepts_delete_options_of_any_group_version() {
    for version in ["", "v1", "meta.k8s.io/v1", "apps/v1", "example.com/v1alpha1"] {
        let body = json!({"kind": "DeleteOptions", "apiVersion": version, "gracePeriodSeconds": 7,
            "preconditions": null, "dryRun": null, "unknown": 5});
        assert_eq!(DeleteOptions::parse(&[], &body).unwrap().grace_period_seconds, Some(7), "{version}");
    }
}

#[test]
fn accepts_a_uid_in_the_query_of_a_delete() {
    let options = DeleteOptions::parse(&query(&[("uid", "x")]), &Value::Null).unwrap();
    assert_eq!(options.preconditions.uid.as_deref(), Some("x"));
    let options = DeleteOptions::parse(&query(&[("uid", "")]), &Value::Null).unwrap();
    assert_eq!(options.preconditions, Preconditions::default());
    for pair in [("gracePeriodSeconds", "x"), ("gracePeriodSeconds", "1.5")] {
        assert_eq!(DeleteOptions::parse(&query(&[pair]), &Value::Null).unwrap_err().code, 400);
    }
}
