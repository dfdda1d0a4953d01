//! A file with many kinds, and kubectl's output and verbs for each kind.

use nave_tests::{Server, cells};

/// The kind in the output of `apply`, the name, the resource, and the header of the table.
const KINDS: [(&str, &str, &str, &[&str]); 14] = [
    ("serviceaccount", "clerk", "serviceaccounts", &["NAME", "AGE"]),
    ("configmap", "settings", "configmaps", &["NAME", "DATA", "AGE"]),
    ("secret", "key", "secrets", &["NAME", "TYPE", "DATA", "AGE"]),
    (
        "persistentvolumeclaim",
        "disk",
        "pvc",
        &[
            "NAME",
            "STATUS",
            "VOLUME",
            "CAPACITY",
            "ACCESS MODES",
            "STORAGECLASS",
            "VOLUMEATTRIBUTESCLASS",
            "AGE",
        ],
    ),
    ("service", "web", "services", &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]),
    ("pod", "single", "pods", &["NAME", "READY", "STATUS", "RESTARTS", "AGE"]),
    ("deployment.apps", "web", "deployments", &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]),
    ("statefulset.apps", "db", "statefulsets", &["NAME", "READY", "AGE"]),
    (
        "daemonset.apps",
        "agent",
        "daemonsets",
        &["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"],
    ),
    ("job.batch", "once", "jobs", &["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]),
    (
        "cronjob.batch",
        "nightly",
        "cronjobs",
        &["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "AGE"],
    ),
    (
        "ingress.networking.k8s.io",
        "front",
        "ingresses",
        &["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"],
    ),
    ("role.rbac.authorization.k8s.io", "reader", "roles", &["NAME", "CREATED AT"]),
    ("rolebinding.rbac.authorization.k8s.io", "clerks", "rolebindings", &["NAME", "ROLE", "AGE"]),
];

/// The first cells of a row, for kinds with computed cells.
const ROWS: [(&str, &[&str]); 6] = [
    ("configmaps/settings", &["settings", "2"]),
    ("secrets/key", &["key", "Opaque", "1"]),
    ("services/web", &["web", "ClusterIP"]),
    ("pods/single", &["single", "0/1", "Pending", "0"]),
    ("deployments/web", &["web", "0/3", "0", "0"]),
    ("namespaces/shop", &["shop", "Active"]),
];

async fn with_kinds() -> Server {
    // Without this controller, claims would never be removed.
    let server = Server::start_with(&["--controllers=persistentvolumeclaim-protection-controller"]).await;
    let said = server.apply(include_str!("kinds.yaml")).await;
    for (kind, name, _, _) in KINDS {
        assert!(said.contains(&format!("{kind}/{name} created")), "{kind}: {said}");
    }
    server
}

#[tokio::test]
async fn every_kind_is_applied_twice_and_printed_as_table() {
    let server = with_kinds().await;
    let again = server.apply(include_str!("kinds.yaml")).await;
    for (kind, name, resource, heads) in KINDS {
        assert!(again.contains(&format!("{kind}/{name} unchanged")), "{kind}: {again}");
        let table = server.kubectl(&["get", resource, "-n", "shop"]).await;
        let rows = cells(&table);
        assert_eq!(rows[0], heads, "{resource}");
        assert!(rows[1..].iter().any(|row| row[0] == name), "{resource}: {table}");
    }
    for (object, expected) in ROWS {
        let table = server.kubectl(&["get", object, "-n", "shop", "--no-headers"]).await;
        let rows = cells(&table);
        assert_eq!(rows[0][..expected.len()], *expected, "{object}");
    }
    let all = server.kubectl(&["get", "all", "-n", "shop"]).await;
    assert!(all.contains("pod/single") && all.contains("cronjob.batch/nightly"), "{all}");
    let names = server.kubectl(&["get", "cm,secret", "-n", "shop", "-o", "name"]).await;
    assert_eq!(names, "configmap/settings\nsecret/key\n");
}

#[tokio::test]
async fn every_kind_is_described_labelled_annotated_and_deleted() {
    let server = with_kinds().await;
    for (kind, name, resource, _) in KINDS {
        let described = server.kubectl(&["describe", resource, name, "-n", "shop"]).await;
        let words: Vec<_> = described.split_whitespace().take(2).collect();
        assert_eq!(words, ["Name:", name], "{described}");

        server.kubectl(&["label", resource, name, "-n", "shop", "tier=gold"]).await;
        server.kubectl(&["annotate", resource, name, "-n", "shop", "note=checked"]).await;
        let both = "{.metadata.labels.tier} {.metadata.annotations.note}";
        let both = format!("jsonpath={both}");
        assert_eq!(server.kubectl(&["get", resource, name, "-n", "shop", "-o", &both]).await, "gold checked");
        let found = server.kubectl(&["get", resource, "-n", "shop", "-l", "tier=gold", "-o", "name"]).await;
        assert_eq!(found.trim(), format!("{kind}/{name}"));
        server.kubectl(&["label", resource, name, "-n", "shop", "tier-"]).await;
        assert_eq!(
            server.kubectl(&["get", resource, "-n", "shop", "-l", "tier=gold", "-o", "name"]).await,
            ""
        );

        server.kubectl(&["delete", resource, name, "-n", "shop"]).await;
        let complaint = server.kubectl_fails(&["get", resource, name, "-n", "shop"]).await;
        assert!(complaint.contains("NotFound"), "{complaint}");
    }
}

#[tokio::test]
async fn objects_are_created_without_a_file() {
    let server = Server::start().await;
    server.kubectl(&["create", "namespace", "bare"]).await;
    let commands: [(&str, &str); 13] = [
        ("configmap settings --from-literal=a=1", "configmap/settings"),
        ("secret generic key --from-literal=a=1", "secret/key"),
        ("serviceaccount clerk", "serviceaccount/clerk"),
        ("deployment web --image=registry.example/web:1 --replicas=2", "deployment.apps/web"),
        ("service clusterip web --tcp=80:8080", "service/web"),
        ("service nodeport door --tcp=80:8080", "service/door"),
        ("job once --image=registry.example/once:1", "job.batch/once"),
        ("cronjob nightly --image=registry.example/n:1 --schedule=0_3_*_*_*", "cronjob.batch/nightly"),
        ("ingress front --rule=shop.example/=web:80", "ingress.networking.k8s.io/front"),
        ("role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader"),
        (
            "rolebinding clerks --role=reader --serviceaccount=bare:clerk",
            "rolebinding.rbac.authorization.k8s.io/clerks",
        ),
        ("quota limits --hard=pods=10", "resourcequota/limits"),
        ("poddisruptionbudget some --selector=app=web --min-available=1", "poddisruptionbudget.policy/some"),
    ];
    for (command, created) in commands {
        let words = command
            .split(' ')
            .map(|word| if word.starts_with("--schedule") { "--schedule=0 3 * * *" } else { word });
        let arguments: Vec<_> = ["create", "-n", "bare"].into_iter().chain(words).collect();
        assert_eq!(server.kubectl(&arguments).await, format!("{created} created\n"));
    }
    let twice = server.kubectl_fails(&["create", "-n", "bare", "serviceaccount", "clerk"]).await;
    assert!(twice.contains(r#"serviceaccounts "clerk" already exists"#), "{twice}");
    let run = server.kubectl(&["run", "-n", "bare", "shell", "--image=registry.example/sh:1"]).await;
    assert_eq!(run, "pod/shell created\n");
}
