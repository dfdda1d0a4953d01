use serde_json::json;

use super::*;
use crate::builtin;

fn run(kind: &str, mut value: Value) -> Result<(Value, Vec<String>), String> {
    let set = builtin();
    let id = set.find(&format!("io.k8s.{kind}")).unwrap();
    let found = normalize(set, id, &mut value, Mode::Report).map_err(|error| error.to_string())?;
    let mut again = value.clone();
    assert_eq!(normalize(set, id, &mut again, Mode::Report), Ok(Normalized::default()));
    assert_eq!(again, value, "normalizing twice");
    Ok((value, found.unknown))
}

const POD: &str = "api.core.v1.Pod";

#[test]
fn drops_empty_values_and_adds_zero_values() {
    let (pod, unknown) = run(POD, json!({
        "metadata": {"name": "a", "labels": {}, "finalizers": [], "annotations": {"k": null}, "creationTimestamp": null},
        "spec": {
            "hostNetwork": false, "automountServiceAccountToken": false, "nodeName": "", "priority": 0,
            "containers": [{"name": "c", "image": null, "ports": [], "stdin": false}],
            "securityContext": {},
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }))
    .unwrap();
    assert_eq!(unknown, [] as [&str; 0]);
    assert_eq!(
        pod,
        json!({
            "metadata": {"name": "a", "annotations": {"k": ""}},
            "spec": {
                "automountServiceAccountToken": false, "priority": 0,
                "containers": [{"name": "c", "resources": {}}],
                "securityContext": {},
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {},
        })
    );
}

#[test]
fn completes_zero_structs() {
    let (set, _) = run("api.apps.v1.ReplicaSet", json!({"spec": {"selector": null}})).unwrap();
    let template = json!({"metadata": {}, "spec": {"containers": null}});
    assert_eq!(
        set,
        json!({"metadata": {}, "spec": {"selector": null, "template": template}, "status": {"replicas": 0}})
    );
}

#[test]
fn empty_lists_of_always_fields_are_null() {
    let (role, _) = run("api.rbac.v1.Role", json!({"metadata": {"name": "a"}, "rules": []})).unwrap();
    assert_eq!(role["rules"], json!(null));
    let (list, _) = run("api.rbac.v1.RoleList", json!({"items": []})).unwrap();
    assert_eq!(list["items"], json!([]));
}

#[test]
fn reports_unknown_fields_by_path() {
    let (_, unknown) = run(
        POD,
        json!({
            "a": 1,
            "metadata": {"labels": {"x": "y"}, "ownerReferences": [{"kind": "K", "b": 1}]},
            "spec": {"containers": [{"name": "c"}, {"c": 1, "resources": {"d": {}}}]},
        }),
    )
    .unwrap();
    let expected =
        ["a", "metadata.ownerReferences[0].b", "spec.containers[1].c", "spec.containers[1].resources.d"];
    assert_eq!(unknown, expected);
}

#[test]
fn limits_reported_fields() {
    let many: Map = (0..1000).map(|n| (format!("x{n}"), Value::Null)).collect();
    assert_eq!(run(POD, many.into()).unwrap().1.len(), UNKNOWN_MAX);
}

#[test]
fn type_errors_have_upstreams_text() {
    let says = |kind: &str, value: Value, message: &str| assert_eq!(run(kind, value).unwrap_err(), message);
    let name = "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string";
    says(POD, json!({"metadata": {"name": true}}), name);
    let port = "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32";
    says(POD, json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}), port);
    says(POD, json!([]), "json: cannot unmarshal array into Go value of type v1.Pod");
    let spec = "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec";
    says(POD, json!({"spec": "x"}), spec);
    let labels = "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string";
    says(POD, json!({"metadata": {"labels": []}}), labels);
    let large =
        "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32";
    says(POD, json!({"spec": {"priority": 3_000_000_000_u64}}), large);
    let part = "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32";
    says(POD, json!({"spec": {"priority": 1.5}}), part);
    says("api.core.v1.Secret", json!({"data": {"a": "%"}}), "illegal base64 data at input byte 0");
    let byte = "json: cannot unmarshal number 256 into Go struct field Secret.data of type uint8";
    says("api.core.v1.Secret", json!({"data": {"a": [1, 256]}}), byte);
    let time = r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#;
    says(POD, json!({"status": {"startTime": "x"}}), time);
}

#[test]
fn makes_texts_canonical() {
    let (pod, _) = run(POD, json!({
        "status": {"startTime": "2026-01-02T03:04:05.678+01:00"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x": "1000"}}}]},
    }))
    .unwrap();
    assert_eq!(pod["status"]["startTime"], "2026-01-02T02:04:05Z");
    let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({"cpu": "500m", "memory": "1Gi", "x": "1k"}));
    let (secret, _) =
        run("api.core.v1.Secret", json!({"data": {"a": "YW\nI=", "b": "", "c": null}})).unwrap();
    assert_eq!(secret["data"], json!({"a": "YWI=", "b": "", "c": ""}));
}

#[test]
fn normalizes_json_schemas() {
    let (schema, unknown) = run(
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        json!({
            "additionalProperties": {"type": "", "x": 1},
            "items": [{"y": 1}],
            "default": {"anything": null},
            "multipleOf": 2.0,
            "enum": [null, 1],
        }),
    )
    .unwrap();
    let expected = json!({"additionalProperties": {}, "items": [{}], "default": {"anything": null}, "multipleOf": 2, "enum": [null, 1]});
    assert_eq!(schema, expected);
    // As upstream, fields of values with a decoder of their own are dropped and not reported.
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn rounds_resource_amounts_up_to_thousandths() {
    let cases =
        [("1u", "1m"), ("0.0015", "2m"), ("1e-4", "1e-3"), ("1500m", "1500m"), ("0.00000000001", "1m")];
    for (text, wanted) in cases {
        let (quota, _) = run("api.core.v1.ResourceQuota", json!({"spec": {"hard": {"cpu": text}}})).unwrap();
        assert_eq!(quota["spec"]["hard"]["cpu"], wanted, "{text}");
    }
    // Other types keep nano precision.
    let (class, _) =
        run("api.node.v1.RuntimeClass", json!({"overhead": {"podFixed": {"cpu": "1u"}}})).unwrap();
    assert_eq!(class["overhead"]["podFixed"]["cpu"], "1u");
}

#[test]
fn micro_times_have_six_digits() {
    let lease = |time: &str| run("api.coordination.v1.Lease", json!({"spec": {"renewTime": time}}));
    assert!(lease("2026-01-02T03:04:05.123456Z").is_ok());
    for time in ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.1234567Z"] {
        assert!(lease(time).unwrap_err().contains("2006-01-02T15:04:05.000000Z07:00"), "{time}");
    }
}

#[test]
fn pointers_without_omitempty_are_null() {
    let (ingress, _) =
        run("api.networking.v1.IngressBackend", json!({"resource": {"kind": "K", "name": "n"}})).unwrap();
    assert_eq!(ingress, json!({"resource": {"apiGroup": null, "kind": "K", "name": "n"}}));
    let (claim, _) =
        run("api.core.v1.PersistentVolumeClaimSpec", json!({"dataSource": {"kind": "K", "name": "n"}}))
            .unwrap();
    assert_eq!(claim["dataSource"]["apiGroup"], Value::Null);
    let (claim, _) = run(
        "api.core.v1.PersistentVolumeClaimSpec",
        json!({"dataSource": {"apiGroup": "", "kind": "K", "name": "n"}}),
    )
    .unwrap();
    assert_eq!(claim["dataSource"]["apiGroup"], "");
}

#[test]
fn required_fields_with_omitempty_stay_absent() {
    let (address, _) = run("api.networking.v1.IPAddressSpec", json!({})).unwrap();
    assert_eq!(address, json!({}));
    let (binding, _) =
        run("api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", json!({})).unwrap();
    assert_eq!(binding, json!({}));
}
