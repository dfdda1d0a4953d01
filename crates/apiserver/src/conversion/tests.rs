use serde_json::{Value, json};

use super::*;

fn objects(names: &[&str]) -> Batch {
    let mut batch = Batch::default();
    for name in names {
        batch.add(json!({"apiVersion": "e.com/v1", "kind": "Site", "spec": {"a": 1},
            "metadata": {"name": name, "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"a": "b"}}}));
    }
    batch
}

/// Lets `answer` change a good response to a review of objects with these names; returns the outcome.
fn accept(
    version: ReviewVersion,
    names: &[&str],
    change: impl FnOnce(&mut Value),
) -> Result<Vec<Value>, (FailureClass, String)> {
    let review = Review::new(version, objects(names), &GroupVersion::new("e.com", "v2"));
    let request: Value = serde_json::from_slice(review.request()).unwrap();
    let mut converted = request["request"]["objects"].clone();
    for object in converted.as_array_mut().unwrap() {
        object["apiVersion"] = request["request"]["desiredAPIVersion"].clone();
        object["spec"] = json!({"b": 1});
    }
    let mut answer = json!({"apiVersion": request["apiVersion"], "kind": request["kind"], "response": {
        "uid": request["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": converted}});
    change(&mut answer);
    let outcome = review.accept(&GroupVersionKind::new("e.com", "v1", "Site"), answer.to_string().as_bytes());
    outcome.map_err(|failure| {
        let message = failure.message.strip_prefix("conversion webhook for e.com/v1, Kind=Site ").unwrap();
        (failure.class, message.to_owned())
    })
}

#[test]
fn keeps_the_order_and_the_metadata_of_the_originals() {
    let converted = accept(ReviewVersion::V1, &["x", "y"], |answer| {
        let first = &mut answer["response"]["convertedObjects"][0];
        first["metadata"]["labels"] = json!({"new": "label"});
        first["metadata"]["annotations"] = json!({"e.com/n": "m"});
        first["metadata"]["generation"] = json!(99);
        first["metadata"]["team"] = json!("x");
        answer["extra"] = json!(1);
    })
    .unwrap();
    assert_eq!(
        converted[0],
        json!({"apiVersion": "e.com/v2", "kind": "Site", "spec": {"b": 1},
            "metadata": {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"new": "label"}, "annotations": {"e.com/n": "m"}}})
    );
    assert_eq!(converted[1]["metadata"]["name"], "y");
    assert_eq!(converted[1]["metadata"]["labels"], json!({"a": "b"}));
}

#[test]
fn refuses_responses_that_are_no_answer_to_the_review() {
    use FailureClass::{Call, MalformedResponse as Malformed, PartialResponse as Partial};
    type Change = fn(&mut Value);
    let cases: &[(Change, FailureClass, &str)] = &[
        (|a| a["response"]["result"] = json!({"status": "Failed", "message": "no"}), Malformed, "failed: no"),
        (
            |a| a["response"]["result"] = json!({"status": "success"}),
            Malformed,
            "failed: response.result.status was 'success', not 'Success'",
        ),
        (
            |a| a["response"]["result"] = Value::Null,
            Malformed,
            "failed: response.result.status was '', not 'Success'",
        ),
        (|a| a["response"] = Value::Null, Malformed, "failed: no response provided"),
        (
            |a| a["apiVersion"] = json!("apiextensions.k8s.io/v1beta1"),
            Call,
            "failed: converting (v1beta1.ConversionReview) to (v1.ConversionReview): unknown conversion",
        ),
        (
            |a| a["apiVersion"] = Value::Null,
            Malformed,
            "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=ConversionReview",
        ),
        (
            |a| a["kind"] = json!("AdmissionReview"),
            Call,
            "failed: no kind \"AdmissionReview\" is registered for version \"apiextensions.k8s.io/v1\"",
        ),
        (
            |a| *a = json!([a.clone()]),
            Call,
            "failed: couldn't get version/kind; json parse error: expected '{'",
        ),
        (|a| a["response"]["convertedObjects"] = json!([]), Partial, "returned 0 objects, expected 1"),
        (|a| a["response"]["convertedObjects"] = Value::Null, Partial, "returned 0 objects, expected 1"),
    ];
    for (change, class, message) in cases {
        let refused = accept(ReviewVersion::V1, &["x"], change).unwrap_err();
        assert_eq!(refused, (*class, (*message).to_owned()));
    }
    let other = |answer: &mut Value| answer["response"]["uid"] = json!("x");
    let (class, message) = accept(ReviewVersion::V1, &["x"], other).unwrap_err();
    assert!(class == Malformed && message.ends_with("\", got \"x\""), "{message}");
    assert!(accept(ReviewVersion::V1Beta1, &["x"], other).is_ok(), "v1beta1 has no check of the uid");
    assert!(accept(ReviewVersion::V1Beta1, &["x"], |answer| answer["apiVersion"] = Value::Null).is_ok());
}

#[test]
fn refuses_objects_that_are_not_the_originals() {
    type Change = fn(&mut Value);
    let deep = |object: &mut Value| {
        object["spec"] = (0..200).fold(json!({}), |inner, _| json!({"x": inner}));
    };
    let cases: &[(Change, &str)] = &[
        (|o| o["metadata"]["name"] = json!("y"), "must have the same name: x != y"),
        (|o| o["metadata"]["namespace"] = json!("other"), "must have the same namespace: ns != other"),
        (|o| o["metadata"]["uid"] = Value::Null, "must have the same UID: u != "),
        (|o| o["kind"] = json!("Place"), "invalid kind (expected Site, received Place)"),
        (|o| o["kind"] = Value::Null, "Object 'Kind' is missing"),
        (
            |o| o["apiVersion"] = json!("e.com/v1"),
            "invalid groupVersion (expected e.com/v2, received e.com/v1)",
        ),
        (|o| *o = json!("x"), "the converted object is not a JSON object"),
        (|o| o["metadata"]["labels"] = json!({"a b": "c"}), "metadata.labels"),
        (|o| o["metadata"]["labels"] = json!({"a": 5}), "metadata.labels[a] must be a string"),
        (|o| o["metadata"]["labels"] = json!(["a"]), "metadata.labels is not a map of strings"),
        (|o| o["metadata"] = Value::Null, "must have the same name"),
        (deep, "exceeded max depth"),
        (
            |o| o["spec"]["b"] = json!("x".repeat(nave_machinery::limits::MAX_BODY_BYTES)),
            "the object is longer than 3145728 bytes",
        ),
    ];
    for (change, why) in cases {
        for names in [&["x"][..], &["w", "x"]] {
            let refused = accept(ReviewVersion::V1, names, |answer| {
                change(&mut answer["response"]["convertedObjects"][names.len() - 1]);
            });
            let (class, message) = refused.unwrap_err();
            assert!(class == FailureClass::InvalidObject && message.contains(why), "{why}: {message}");
            assert_eq!(message.contains("at index 1"), names.len() == 2, "{message}");
        }
    }
    let swap = |answer: &mut Value| answer["response"]["convertedObjects"].as_array_mut().unwrap().reverse();
    let (_, message) = accept(ReviewVersion::V1, &["x", "y"], swap).unwrap_err();
    assert!(message.ends_with("must have the same name: x != y"), "{message}");
}

#[test]
fn the_review_has_the_objects_as_they_are_stored() {
    let review = Review::new(ReviewVersion::V1Beta1, objects(&["x"]), &GroupVersion::new("e.com", "v2"));
    let request: Value = serde_json::from_slice(review.request()).unwrap();
    assert_eq!(request["apiVersion"], "apiextensions.k8s.io/v1beta1");
    assert_eq!(request["request"]["desiredAPIVersion"], "e.com/v2");
    assert!(request["request"]["objects"][0]["metadata"].get("resourceVersion").is_none());
}
