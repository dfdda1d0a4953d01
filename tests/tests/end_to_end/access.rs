//! Authorization: roles and bindings, privilege escalation, and kubelets.

use nave_tests::Server;

const AS_BOB: [&str; 2] = ["--as=bob", "--namespace=team"];

/// Starts a server with a namespace in which bob may write roles and bindings and get pods.
async fn start() -> Server {
    let server = Server::start().await;
    server
        .apply(
            r#"
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: owner, namespace: team}
rules:
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, create, update, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: owner, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: owner}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
"#,
        )
        .await;
    allowed(&server, &["get", "pods", "--as=bob", "--namespace=team"]).await;
    server
}

/// Waits until a user is allowed an action, because authorization lags behind the store.
async fn allowed(server: &Server, question: &[&str]) {
    let arguments = [&["auth", "can-i"], question].concat();
    nave_tests::eventually("the right is there", async || {
        server.kubectl_with(&arguments, "", &[]).await.status.success()
    })
    .await;
}

/// Runs kubectl as bob with a document and returns the error output. The request must be rejected.
async fn refused(server: &Server, arguments: &[&str], document: &str) -> String {
    let arguments = [arguments, &AS_BOB].concat();
    let ran = server.kubectl_with(&arguments, document, &[]).await;
    assert!(!ran.status.success(), "bob succeeded: {arguments:?} {document}\n{}", ran.stdout);
    ran.stderr
}

/// Runs kubectl as bob with a document. The request must succeed.
async fn done(server: &Server, arguments: &[&str], document: &str) {
    let arguments = [arguments, &AS_BOB].concat();
    let ran = server.kubectl_with(&arguments, document, &[]).await;
    assert!(ran.status.success(), "bob failed: {arguments:?} {document}\n{}", ran.stderr);
}

fn role(name: &str, resource: &str) -> String {
    format!(
        r#"{{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{{{name}}},"rules":[{{"apiGroups":[""],"resources":["{resource}"],"verbs":["get"]}}]}}"#
    )
}

#[tokio::test]
async fn kubectl_auth_reports_and_reconciles_rights() {
    let server = start().await;
    assert_eq!(server.kubectl(&["auth", "can-i", "delete", "nodes"]).await, "yes\n");
    let no =
        server.kubectl_with(&["auth", "can-i", "delete", "pods", "--as=bob", "-n", "team"], "", &[]).await;
    assert_eq!((no.stdout.as_str(), no.status.success()), ("no\n", false));
    let list = server.kubectl(&["auth", "can-i", "--list", "--as=bob", "-n", "team"]).await;
    for line in ["pods  ", "rolebindings.rbac.authorization.k8s.io", "selfsubjectaccessreviews", "[/healthz]"]
    {
        assert!(list.contains(line), "{line} is not in\n{list}");
    }
    let roles = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lister}
rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lister}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lister}
subjects: [{kind: Group, name: listers, apiGroup: rbac.authorization.k8s.io}]
";
    for needed in [true, false] {
        let ran = server.kubectl_with(&["auth", "reconcile", "-f", "-"], roles, &[]).await;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.status.success() && said.contains("reconciliation required") == needed, "{said}");
    }
    allowed(&server, &["list", "pods", "--as=carl", "--as-group=listers"]).await;
}

#[tokio::test]
async fn users_cannot_grant_rights_they_lack() {
    let server = start().await;
    let missing = "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
    let new = role(r#""name":"new""#, "secrets");
    for arguments in
        [&["create", "-f", "-"][..], &["create", "--dry-run=server", "-f", "-"], &["apply", "-f", "-"]]
    {
        let complaint = refused(&server, arguments, &new).await;
        assert!(complaint.contains(missing), "{complaint}");
        assert!(complaint.contains(r#"user "bob" (groups=["system:authenticated"])"#), "{complaint}");
    }
    // Neither a generated name, nor a wildcard, nor an existing role circumvents the check.
    refused(&server, &["create", "-f", "-"], &role(r#""generateName":"new-""#, "secrets")).await;
    refused(&server, &["create", "-f", "-"], &role(r#""name":"new""#, "*")).await;
    let add = r#"[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}}]"#;
    let complaint = refused(&server, &["patch", "role", "owner", "--type=json", "-p", add], "").await;
    assert!(complaint.contains(missing), "{complaint}");
    // Bob may grant rights that he has.
    done(&server, &["create", "-f", "-"], &role(r#""name":"own""#, "pods")).await;
    done(&server, &["create", "rolebinding", "own", "--role=own", "--user=carl"], "").await;
    // Cluster roles with more rights.
    for role in ["cluster-admin", "system:aggregate-to-edit"] {
        let flag = format!("--clusterrole={role}");
        refused(&server, &["create", "rolebinding", "more", &flag, "--user=bob"], "").await;
    }
    let gone = refused(&server, &["create", "rolebinding", "gone", "--role=gone", "--user=bob"], "").await;
    assert!(gone.contains(r#"roles.rbac.authorization.k8s.io "gone" not found"#), "{gone}");
    // The role of a binding is immutable, even for the administrator.
    let other = r#"{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}"#;
    let complaint = server
        .kubectl_fails(&["patch", "rolebinding", "own", "-n", "team", "--type=merge", "-p", other])
        .await;
    assert!(complaint.contains("cannot change roleRef"), "{complaint}");
}

#[tokio::test]
async fn escalate_and_bind_apply_to_the_named_role() {
    let server = start().await;
    server
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: more, namespace: team}
rules:
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles], resourceNames: [own], verbs: [escalate]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: ['system:aggregate-to-view'], verbs: [bind]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: more, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: more}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
",
        )
        .await;
    allowed(&server, &["escalate", "roles/own", "--as=bob", "--namespace=team"]).await;
    // The right to escalate a named role does not allow creating it.
    refused(&server, &["create", "-f", "-"], &role(r#""name":"own""#, "secrets")).await;
    done(&server, &["create", "-f", "-"], &role(r#""name":"own""#, "pods")).await;
    done(&server, &["replace", "-f", "-"], &role(r#""name":"own","namespace":"team""#, "secrets")).await;
    done(
        &server,
        &["create", "rolebinding", "v", "--clusterrole=system:aggregate-to-view", "--user=carl"],
        "",
    )
    .await;
    refused(
        &server,
        &["create", "rolebinding", "e", "--clusterrole=system:aggregate-to-edit", "--user=carl"],
        "",
    )
    .await;
}

#[tokio::test]
async fn put_that_creates_requires_create() {
    let server = start().await;
    server
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: updater, namespace: team}
rules: [{apiGroups: [rbac.authorization.k8s.io, coordination.k8s.io], resources: [roles, leases], verbs: [get, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: updater, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: updater}
subjects: [{kind: User, name: eve, apiGroup: rbac.authorization.k8s.io}]
",
        )
        .await;
    allowed(&server, &["update", "leases", "--as=eve", "--namespace=team"]).await;
    let lease = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l","namespace":"team"}}"#;
    let path = "/apis/coordination.k8s.io/v1/namespaces/team/leases/l";
    let put = ["replace", "--raw", path, "-f", "-", "--as=eve"];
    let ran = server.kubectl_with(&put, lease, &[]).await;
    assert!(
        !ran.status.success() && ran.stderr.contains(r#"cannot create resource "leases""#),
        "{}",
        ran.stderr
    );
    // If the object exists, eve may update it, but the update is invalid without a resourceVersion.
    let ran = server.kubectl_with(&["create", "-f", "-"], lease, &[]).await;
    assert!(ran.status.success(), "{}", ran.stderr);
    let ran = server.kubectl_with(&put, lease, &[]).await;
    assert!(ran.stderr.contains("metadata.resourceVersion: Invalid value"), "{}", ran.stderr);
}

#[tokio::test]
async fn aggregated_role_requires_all_rights() {
    let server = start().await;
    server
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cluster-role-writer}
rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [get, create, update, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cluster-role-writer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-role-writer}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
",
        )
        .await;
    allowed(&server, &["create", "clusterroles", "--as=bob"]).await;
    let aggregated = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"all"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"kubernetes.io/bootstrapping":"rbac-defaults"}}]},"rules":[]}"#;
    let complaint = refused(&server, &["create", "-f", "-"], aggregated).await;
    assert!(
        complaint.contains("must have cluster-admin privileges to use the aggregationRule"),
        "{complaint}"
    );
    // The selectors of an existing aggregated role cannot be changed, and rules cannot be added to a role that it
    // aggregates.
    let widen = r#"{"aggregationRule":{"clusterRoleSelectors":[{}]}}"#;
    refused(&server, &["patch", "clusterrole", "view", "--type=merge", "-p", widen], "").await;
    let gathered = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"x","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
    refused(&server, &["create", "-f", "-"], gathered).await;
}

#[tokio::test]
async fn kubelet_may_access_objects_of_its_pods() {
    let server = start().await;
    let node = |name: &'static str| {
        move |arguments: &[&'static str]| {
            let user: &'static str = if name == "n1" { "--as=system:node:n1" } else { "--as=system:node:n2" };
            [arguments, &[user, "--as-group=system:nodes"]].concat()
        }
    };
    let (n1, n2) = (node("n1"), node("n2"));
    server
        .apply(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: team}
---
apiVersion: v1
kind: Secret
metadata: {name: needed, namespace: team}
---
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: team}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: team}
spec:
  nodeName: n1
  serviceAccountName: robot
  containers: [{name: c, image: i, envFrom: [{secretRef: {name: needed}}]}]
",
        )
        .await;
    nave_tests::eventually("the kubelet reaches the secret", async || {
        server.kubectl_with(&n1(&["get", "secret", "needed", "-n", "team"]), "", &[]).await.status.success()
    })
    .await;
    for (arguments, why) in [
        (
            n2(&["get", "secret", "needed", "-n", "team"]),
            "no relationship found between node 'n2' and this object",
        ),
        (
            n1(&["get", "secret", "other", "-n", "team"]),
            "no relationship found between node 'n1' and this object",
        ),
        (n1(&["get", "secrets", "-n", "team"]), "No Object name found"),
        (n1(&["get", "nodes"]), "node 'n1' cannot read all nodes, only its own Node object"),
        (
            n2(&["delete", "pod", "p", "-n", "team"]),
            r#"node "n2" can only delete pods with spec.nodeName set to itself"#,
        ),
        (n1(&["label", "pod", "p", "-n", "team", "a=b"]), "cannot patch resource"),
    ] {
        let complaint = server.kubectl_fails(&arguments).await;
        assert!(complaint.contains(why), "{arguments:?}: {complaint}");
    }
    let make = |name: &str, label: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","labels":{{{label}}}}}}}"#)
    };
    for (document, why) in [
        (make("n2", ""), r#"node "n1" is not allowed to modify node "n2""#),
        (
            make("n1", r#""node-restriction.kubernetes.io/x":"y""#),
            "is not allowed to set the following labels",
        ),
    ] {
        let ran = server.kubectl_with(&n1(&["create", "-f", "-"]), &document, &[]).await;
        assert!(!ran.status.success() && ran.stderr.contains(why), "{}", ran.stderr);
    }
    let ran = server
        .kubectl_with(&n1(&["create", "-f", "-"]), &make("n1", r#""kubernetes.io/os":"linux""#), &[])
        .await;
    assert!(ran.status.success(), "{}", ran.stderr);
    let taints = r#"{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}"#;
    let complaint = server.kubectl_fails(&n1(&["patch", "node", "n1", "-p", taints])).await;
    assert!(complaint.contains(r#"node "n1" is not allowed to modify taints"#), "{complaint}");
    let wrong = server.kubectl_fails(&n1(&["create", "token", "robot", "-n", "team"])).await;
    assert!(wrong.contains("node requested token not bound to a pod"), "{wrong}");
}
