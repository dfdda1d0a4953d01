//! Admission policies with kubectl.

use nave_tests::{Server, eventually};

const POLICIES: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: sizes}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  variables:
  - {name: most, expression: 'int(params.data.most)'}
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: \"'at most ' + string(variables.most) + ' replicas'\"
  - expression: object.spec.unknown == 1 || true
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: sizes-deny}
spec:
  policyName: sizes
  validationActions: [Deny]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: {objectSelector: {matchLabels: {strict: 'yes'}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: sizes-warn}
spec:
  policyName: sizes
  validationActions: [Warn]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: default}
data: {most: '3'}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: owner}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: \"Object{metadata: Object.metadata{labels: {'created-by': request.userInfo.username}}}\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: owner}
spec: {policyName: owner}
";

const EVERYTHING: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: nothing}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: ['*'], apiVersions: ['*'], operations: ['*'], resources: ['*/*']}
  validations: [{expression: 'false', message: nothing may change}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: nothing}
spec:
  policyName: nothing
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}
";

fn deployment(name: &str, replicas: u32, strict: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{strict: '{strict}'}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: a}}}}
  template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: a, image: i}}]}}}}
"
    )
}

#[tokio::test]
async fn policies_refuse_warn_and_change_objects() {
    let server = Server::start().await;
    server.apply(POLICIES).await;
    let create = async |yaml: &str| server.kubectl_with(&["create", "-f", "-"], yaml, &[]).await;
    eventually("the refusal by the policy", async || {
        let (create, big) = (["create", "--dry-run=server", "-f", "-"], deployment("x", 4, "yes"));
        !server.kubectl_with(&create, &big, &[]).await.status.success()
    })
    .await;
    let refused = create(&deployment("big", 4, "yes")).await;
    assert!(
        refused.stderr.contains(
            // kubectl shows the causes of an invalid object, and this one has no field.
            "The deployments \"big\" is invalid: : ValidatingAdmissionPolicy 'sizes' with binding 'sizes-deny' \
             denied request: at most 3 replicas"
        ),
        "{}",
        refused.stderr
    );
    let warned = create(&deployment("warned", 4, "no")).await;
    assert!(warned.status.success(), "{}", warned.stderr);
    assert_eq!(
        warned.stderr.trim(),
        "Warning: Validation failed for ValidatingAdmissionPolicy 'sizes' with binding 'sizes-warn': at most 3 replicas"
    );
    eventually("the label by the mutating policy", async || {
        let server_side =
            ["create", "--dry-run=server", "-o", "jsonpath={.metadata.labels.created-by}", "-f", "-"];
        !server.kubectl_with(&server_side, &deployment("small", 1, "yes"), &[]).await.stdout.is_empty()
    })
    .await;
    assert!(create(&deployment("small", 1, "yes")).await.status.success());
    let label = ["get", "deployment", "small", "-o", "jsonpath={.metadata.labels.created-by}"];
    assert!(!server.kubectl(&label).await.is_empty());
    // A missing parameter denies.
    server.kubectl(&["delete", "configmap", "limits"]).await;
    eventually("the refusal without parameters", async || {
        let refused = create(&deployment("later", 1, "yes")).await;
        refused.stderr.contains("failed to configure binding: no params found for policy binding with `Deny`")
    })
    .await;
    // The controller checks expressions against the types of the matched kinds.
    eventually("the result of type checking", async || {
        let warning = "jsonpath={.status.typeChecking.expressionWarnings[0].warning}";
        let warning = server.kubectl(&["get", "validatingadmissionpolicy", "sizes", "-o", warning]).await;
        warning.contains("apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'unknown'")
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_refuses_everything_can_be_deleted() {
    let server = Server::start_without_controllers().await;
    server.apply(EVERYTHING).await;
    eventually("the refusal by the policy", async || {
        let create = ["create", "configmap", "a", "--dry-run=server"];
        !server.kubectl_with(&create, "", &[]).await.status.success()
    })
    .await;
    let refused = server.kubectl_fails(&["create", "configmap", "a"]).await;
    assert!(refused.contains("nothing may change"), "{refused}");
    server.kubectl(&["delete", "validatingadmissionpolicybinding", "nothing"]).await;
    server.kubectl(&["delete", "validatingadmissionpolicy", "nothing"]).await;
    eventually("the end of the policy", async || {
        server.kubectl_with(&["create", "configmap", "a"], "", &[]).await.status.success()
    })
    .await;
}
