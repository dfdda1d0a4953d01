//! Versions that `--runtime-config` enables: conversions, deprecations, managed fields, documents.

use nave_tests::Server;
use serde_json::{Value, json};

const BETA: &str = "
apiVersion: resource.k8s.io/v1beta1
kind: ResourceClaim
metadata: {name: gpus}
spec:
  devices:
    requests:
    - {name: one, deviceClassName: gpu}
    - name: some
      firstAvailable: [{name: big, deviceClassName: gpu, count: 2}]
";
const STABLE: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: gpus}
spec:
  devices:
    requests:
    - {name: one, exactly: {deviceClassName: gpu}}
    - name: some
      firstAvailable: [{name: big, deviceClassName: gpu, count: 2}]
";

async fn requests(server: &Server, resource: &str) -> Value {
    let text = server.kubectl(&["get", resource, "gpus", "-o", "jsonpath={.spec.devices.requests}"]).await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn beta_versions_are_converted_deprecated_and_documented() {
    let server = Server::start_with(&["--controllers=none", "--runtime-config=api/all=true"]).await;
    let versions = server.kubectl(&["api-versions"]).await;
    for version in ["resource.k8s.io/v1beta2", "networking.k8s.io/v1beta1", "coordination.k8s.io/v1alpha2"] {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    let apply =
        async |yaml: &str| server.kubectl_with(&["apply", "--server-side", "-f", "-"], yaml, &[]).await;
    let created = apply(BETA).await;
    let warning = "resource.k8s.io/v1beta1 ResourceClaim is deprecated in v1.35+, unavailable in v1.38+";
    assert!(created.stderr.contains(warning), "{}", created.stderr);
    let some = json!([{"name": "big", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}]);
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    let stable = json!([{"name": "one", "exactly": exactly}, {"name": "some", "firstAvailable": some}]);
    assert_eq!(requests(&server, "resourceclaims.v1.resource.k8s.io").await, stable);
    assert_eq!(requests(&server, "resourceclaims.v1beta2.resource.k8s.io").await, stable);
    let beta = json!([
        {"name": "one", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
        {"name": "some", "deviceClassName": "", "firstAvailable": some},
    ]);
    assert_eq!(requests(&server, "resourceclaims.v1beta1.resource.k8s.io").await, beta);
    // The same manager applies another version without a conflict.
    let again = apply(STABLE).await;
    assert!(again.status.success() && !again.stderr.contains("deprecated"), "{}", again.stderr);

    let address = "apiVersion: networking.k8s.io/v1beta1\nkind: IPAddress\nmetadata: {name: 192.0.2.1}\n\
        spec: {parentRef: {resource: services, namespace: default, name: a}}";
    server.apply(address).await;
    let version = server.kubectl(&["get", "ipaddress", "192.0.2.1", "-o", "jsonpath={.apiVersion}"]).await;
    assert_eq!(version, "networking.k8s.io/v1");
    let field = "resourceclaim.spec.devices.requests.deviceClassName";
    let explained = server.kubectl(&["explain", "--api-version=resource.k8s.io/v1beta1", field]).await;
    assert!(explained.contains("FIELD: deviceClassName <string>"), "{explained}");
}

#[tokio::test]
async fn kinds_without_a_stable_version_can_be_enabled() {
    let config = "--runtime-config=coordination.k8s.io/v1alpha2=true,resource.k8s.io/v1alpha3=true,resource.k8s.io/v1beta2=true";
    let server = Server::start_with(&["--controllers=none", config]).await;
    let candidate = "apiVersion: coordination.k8s.io/v1alpha2\nkind: LeaseCandidate\nmetadata: {name: a}\n\
        spec: {leaseName: l, binaryVersion: 1.36.0, emulationVersion: 1.36.0, strategy: OldestEmulationVersion}";
    server.apply(candidate).await;
    let table = server.kubectl(&["get", "leasecandidates"]).await;
    assert!(table.contains("LEASENAME") && table.contains("1.36.0"), "{table}");
    let rule = "apiVersion: resource.k8s.io/v1beta2\nkind: DeviceTaintRule\nmetadata: {name: r}\n\
        spec: {deviceSelector: {driver: a.example.com}, taint: {key: a, effect: NoExecute}}";
    server.apply(rule).await;
    let path = "jsonpath={.apiVersion} {.spec.deviceSelector.driver} {.spec.taint.effect}";
    let read = server.kubectl(&["get", "devicetaintrules.v1alpha3.resource.k8s.io", "r", "-o", path]).await;
    assert_eq!(read, "resource.k8s.io/v1alpha3 a.example.com NoExecute");
    let error = server.kubectl_fails(&["get", "resourceclaims.v1beta1.resource.k8s.io"]).await;
    assert!(error.contains("doesn't have a resource type"), "{error}");
}
