use nave_machinery::Value;
use serde_json::json;

use super::addresses::{IpAddressStrategy, ServiceCidrStrategy};
use super::ingress::{IngressClassStrategy, IngressStrategy};
use super::policies::NetworkPolicyStrategy;
use crate::strategy::Strategy;

fn errors_of(strategy: &impl Strategy, object: &Value) -> Vec<String> {
    strategy.validate(object).iter().map(ToString::to_string).collect()
}

#[test]
fn rejects_invalid_ingresses() {
    let ingress =
        |path: Value| json!({"spec": {"rules": [{"host": "*.example.com", "http": {"paths": [path]}}]}});
    let service = json!({"service": {"name": "web", "port": {"number": 80}}});
    let whole = json!({"path": "/a", "pathType": "Prefix", "backend": service});
    assert_eq!(errors_of(&IngressStrategy, &ingress(whole)), [""; 0]);
    assert_eq!(
        errors_of(&IngressStrategy, &ingress(json!({"path": "a//b/..", "pathType": "Exact", "backend": {}}))),
        [
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//'"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..'"#,
            r#"spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required"#,
        ]
    );
    assert_eq!(
        errors_of(&IngressStrategy, &ingress(json!({"path": "/", "backend": service}))),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    );
    let host = json!({"spec": {"rules": [{"host": "10.0.0.1"}]}});
    assert_eq!(
        errors_of(&IngressStrategy, &host),
        [r#"spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address"#]
    );
    let host = json!({"spec": {"rules": [{"host": "2001:db8::1"}]}});
    assert_eq!(errors_of(&IngressStrategy, &host).len(), 2, "neither a DNS name nor a subdomain");
    // Names of services may start with a digit.
    let numeric = json!({"service": {"name": "0", "port": {"number": 80}}});
    let path = json!({"path": "/a", "pathType": "Prefix", "backend": numeric});
    assert_eq!(errors_of(&IngressStrategy, &ingress(path)), [""; 0]);
    // Without a type of path the backend is not checked.
    assert_eq!(
        errors_of(&IngressStrategy, &ingress(json!({"path": "/", "backend": {}}))),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    );
    let empty = errors_of(&IngressStrategy, &json!({"spec": {}}));
    assert!(empty.len() == 1 && empty[0].ends_with("either `defaultBackend` or `rules` must be specified"));
}

#[test]
fn checks_new_points_of_entry_of_ingresses() {
    let status = |ip: &str, host: &str| json!({"status": {"loadBalancer": {"ingress": [{"ip": ip, "hostname": host}]}}});
    for (ip, host, old, expected) in [
        ("10.0.0.1", "a.example.com", "", &[][..]),
        ("x", "", "", &["ip"]),
        ("x", "", "x", &[]),
        ("", "A", "", &["hostname"]),
        ("", "10.0.0.1", "", &["hostname"]),
    ] {
        let errors = IngressStrategy.validate_status_update(&status(ip, host), &status(old, ""));
        let found: Vec<String> = errors.iter().map(|error| error.field.to_string()).collect();
        let expected: Vec<String> =
            expected.iter().map(|field| format!("status.loadBalancer.ingress[0].{field}")).collect();
        assert_eq!(found, expected, "{ip} {host}");
    }
}

#[test]
fn ingress_class_and_annotation_are_equal() {
    let mut ingress = json!({
        "metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}},
        "spec": {"ingressClassName": "a", "defaultBackend": {"service": {"name": "web", "port": {"name": "http"}}}},
    });
    assert_eq!(errors_of(&IngressStrategy, &ingress), [""; 0]);
    ingress["spec"]["ingressClassName"] = json!("b");
    assert_eq!(
        errors_of(&IngressStrategy, &ingress),
        [
            r#"annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified"#
        ]
    );
}

#[test]
fn rejects_invalid_ingress_classes() {
    let class = |spec: Value| {
        let mut class = json!({"spec": spec});
        IngressClassStrategy.default(&mut class, "v1");
        class
    };
    let whole = class(json!({"controller": "example.com/a", "parameters": {"kind": "P", "name": "p"}}));
    assert_eq!(whole["spec"]["parameters"]["scope"], "Cluster");
    assert_eq!(errors_of(&IngressClassStrategy, &whole), [""; 0]);
    assert_eq!(
        errors_of(
            &IngressClassStrategy,
            &class(
                json!({"controller": "a", "parameters": {"kind": "P", "name": "p", "scope": "Namespace"}})
            )
        ),
        [
            r#"spec.controller: Invalid value: "a": must be a domain-prefixed path (such as "acme.io/foo")"#,
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ]
    );
    let changed =
        IngressClassStrategy.validate_update(&class(json!({"controller": "example.com/b"})), &whole);
    assert_eq!(changed.len(), 1, "{changed:?}");
}

#[test]
fn policy_types_default_to_existing_rules() {
    let of = |spec: Value| {
        let mut policy = json!({"spec": spec});
        NetworkPolicyStrategy.default(&mut policy, "v1");
        policy
    };
    let both = of(json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}));
    assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(both["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(of(json!({"podSelector": {}}))["spec"]["policyTypes"], json!(["Ingress"]));
    let wrong = of(json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8", "x"]}, "podSelector": {}}]},
        {"ports": [{"port": 80, "endPort": 0}, {"port": "web", "endPort": 1}, {"endPort": 1}]},
    ]}));
    assert_eq!(
        errors_of(&NetworkPolicyStrategy, &wrong),
        [
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
            r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`"#,
            r#"spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
            "spec.ingress[1].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            "spec.ingress[1].ports[0].endPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ingress[1].ports[1].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
            "spec.ingress[1].ports[2].endPort: Invalid value: 1: may not be specified when `port` is not specified",
        ]
    );
}

#[test]
fn service_cidrs_are_canonical_and_of_different_families() {
    let range = |cidrs: Value| json!({"spec": {"cidrs": cidrs}});
    assert_eq!(errors_of(&ServiceCidrStrategy, &range(json!(["10.0.0.0/8", "fd00::/64"]))), [""; 0]);
    assert_eq!(
        errors_of(&ServiceCidrStrategy, &range(json!(["10.0.0.1/8"]))),
        [r#"spec.cidrs[0]: Invalid value: "10.0.0.1/8": must be in canonical form ("10.0.0.0/8")"#]
    );
    assert_eq!(errors_of(&ServiceCidrStrategy, &range(json!(["10.0.0.0/8", "11.0.0.0/8"]))).len(), 1);
    let old = range(json!(["10.0.0.0/8"]));
    let more = ServiceCidrStrategy.validate_update(&range(json!(["10.0.0.0/8", "fd00::/64"])), &old);
    assert_eq!(more.len(), 0, "{more:?}");
    assert_eq!(ServiceCidrStrategy.validate_update(&range(json!(["11.0.0.0/8"])), &old).len(), 1);
    let fewer = ServiceCidrStrategy.validate_update(&old, &range(json!(["10.0.0.0/8", "fd00::/64"])));
    assert_eq!(fewer.len(), 1, "{fewer:?}");
    // Unchanged values are not validated again.
    let odd = range(json!(["10.0.0.1/8"]));
    assert_eq!(ServiceCidrStrategy.validate_update(&odd, &odd), []);
    assert_eq!(errors_of(&IpAddressStrategy, &json!({"spec": {}})), ["spec.parentRef: Required value"]);
    let parent = json!({"group": "A", "resource": "", "name": "a/b", "namespace": ".."});
    let fields: Vec<_> = IpAddressStrategy
        .validate(&json!({"spec": {"parentRef": parent}}))
        .iter()
        .map(|error| error.field.to_string())
        .collect();
    assert_eq!(fields, ["group", "resource", "name", "namespace"].map(|it| format!("spec.parentRef.{it}")));
}

#[test]
fn controller_is_a_domain_prefixed_path() {
    for (controller, wrong) in
        [("a.com/b", 0), ("a.com/", 1), ("/b", 1), ("a", 1), ("A_/b", 1), ("a.com/b c", 1), ("A_/b c", 2)]
    {
        let class = json!({"spec": {"controller": controller}});
        assert_eq!(errors_of(&IngressClassStrategy, &class).len(), wrong, "{controller}");
    }
    let parameters = json!({"apiGroup": "", "kind": "P", "name": "p", "scope": ""});
    let class = json!({"spec": {"controller": "a.com/b", "parameters": parameters}});
    let found = errors_of(&IngressClassStrategy, &class);
    assert_eq!(found.len(), 2, "{found:?}");
}
