//! Charts in `tests/charts` that resemble popular ones. helm installs, tests, upgrades, rolls back and removes them;
//! kubectl applies, reads and deletes them.

use std::path::Path;

use nave_tests::cluster::{FakeNode, FakeProvisioner};
use nave_tests::{Server, cells, eventually};

/// A chart, its workloads, and the changes of an upgrade.
struct Chart {
    name: &'static str,
    workloads: &'static [&'static str],
    /// The values of the upgrade.
    upgrade: &'static str,
    /// The visible change: the object, the path in it, the text before and after.
    change: (&'static str, &'static str, &'static str, &'static str),
}

const CHARTS: [Chart; 10] = [
    Chart {
        name: "ingress-controller",
        workloads: &["deployment/demo"],
        upgrade: "replicas=3,logLevel=debug",
        change: ("configmap/demo", "{.data.log-level}", "info", "debug"),
    },
    Chart {
        name: "monitoring",
        workloads: &["statefulset/demo-server", "daemonset/demo-node", "deployment/demo-state"],
        upgrade: "replicas=2,retention=20d",
        change: ("statefulset/demo-server", "{.status.readyReplicas}", "1", "2"),
    },
    Chart {
        name: "database",
        workloads: &["statefulset/demo"],
        upgrade: "replicas=3,settings.max_connections=200,image=registry.example/postgres:17.1",
        change: ("statefulset/demo", "{.status.readyReplicas}", "2", "3"),
    },
    Chart {
        name: "queue",
        workloads: &["statefulset/demo"],
        upgrade: "partitions=16,image=registry.example/rabbitmq:4.1",
        change: (
            "statefulset/demo",
            "{.spec.template.spec.containers[0].image}",
            "registry.example/rabbitmq:4.0",
            "registry.example/rabbitmq:4.1",
        ),
    },
    Chart {
        name: "dashboard",
        workloads: &["deployment/demo"],
        upgrade: "replicas=2,title=other",
        change: ("configmap/demo-settings", "{.data.title}", "cluster", "other"),
    },
    Chart {
        name: "registry",
        workloads: &["deployment/demo"],
        upgrade: "image=registry.example/registry:3.1,delete=true",
        change: (
            "deployment/demo",
            "{.spec.template.spec.containers[0].image}",
            "registry.example/registry:3.0",
            "registry.example/registry:3.1",
        ),
    },
    Chart {
        name: "ci-runner",
        workloads: &["deployment/demo"],
        upgrade: "replicas=3,concurrent=20,schedule=0 4 * * *",
        change: ("cronjob/demo-cleanup", "{.spec.schedule}", "*/30 * * * *", "0 4 * * *"),
    },
    Chart {
        name: "cert-tooling",
        workloads: &["deployment/demo", "deployment/demo-webhook"],
        upgrade: "replicas=2,timeoutSeconds=5",
        change: ("mutatingwebhookconfiguration/demo-webhook", "{.webhooks[0].timeoutSeconds}", "10", "5"),
    },
    Chart {
        name: "logging-agent",
        workloads: &["daemonset/demo"],
        upgrade: "output=forward,image=registry.example/fluent-bit:4.1",
        change: (
            "daemonset/demo",
            "{.spec.template.spec.containers[0].image}",
            "registry.example/fluent-bit:4.0",
            "registry.example/fluent-bit:4.1",
        ),
    },
    Chart {
        name: "service-mesh",
        workloads: &["deployment/demo"],
        upgrade: "replicas=3,tracing=5",
        change: ("horizontalpodautoscaler/demo", "{.spec.minReplicas}", "2", "3"),
    },
];

/// A cluster with a node and volumes, and the namespace `apps`.
struct Cluster {
    server: Server,
    _node: FakeNode,
    _volumes: FakeProvisioner,
}

impl Cluster {
    async fn start() -> Self {
        let server = Server::start().await;
        let node = FakeNode::start(server.client().await).await;
        let volumes = FakeProvisioner::start(server.client().await);
        server.kubectl(&["create", "namespace", "apps"]).await;
        // Pods need the service account.
        server
            .kubectl(&["-n", "apps", "wait", "--for=create", "serviceaccount/default", "--timeout=60s"])
            .await;
        Self { server, _node: node, _volumes: volumes }
    }

    async fn helm(&self, verb: &str, arguments: &[&str]) -> String {
        let mut all = vec!["-n", "apps", verb, "demo"];
        all.extend(arguments);
        if matches!(verb, "install" | "upgrade" | "rollback") {
            all.extend(["--wait", "--wait-for-jobs", "--timeout=110s"]);
        }
        self.server.helm(&all).await
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", "apps"];
        all.extend(arguments);
        self.server.kubectl(&all).await
    }

    async fn get(&self, what: &str, path: &str) -> String {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]).await
    }

    /// Waits until the workloads have settled.
    async fn settled(&self, chart: &Chart) {
        for workload in chart.workloads {
            self.kubectl(&["rollout", "status", workload, "--timeout=110s"]).await;
        }
    }

    /// Checks that no object of the chart is left in the namespace or the cluster.
    async fn is_gone(&self) {
        let kinds = "deployments,statefulsets,daemonsets,jobs,cronjobs,services,configmaps,secrets,serviceaccounts,roles,\
                     rolebindings,poddisruptionbudgets,ingresses,networkpolicies,horizontalpodautoscalers,clusterroles,\
                     clusterrolebindings,ingressclasses,priorityclasses,mutatingwebhookconfigurations,\
                     validatingwebhookconfigurations";
        eventually("all gone", async || {
            let left =
                ["get", kinds, "-l", "app.kubernetes.io/instance=demo", "-o", "name", "--ignore-not-found"];
            let pods = self.get("pods", "{.items[*].metadata.name}").await;
            self.kubectl(&left).await.is_empty() && pods.is_empty()
        })
        .await;
    }
}

fn folder(chart: &Chart) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts").join(chart.name).to_string_lossy().into_owned()
}

/// Runs a release from its installation to its removal.
async fn lives(name: &str) {
    let chart = CHARTS.iter().find(|chart| chart.name == name).unwrap();
    let cluster = Cluster::start().await;
    let (folder, (object, path, before, after)) = (folder(chart), chart.change);

    let installed = cluster.helm("install", &[&folder]).await;
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    cluster.settled(chart).await;
    assert_eq!(cluster.get(object, path).await, before);
    let tested = cluster.helm("test", &[]).await;
    assert!(tested.contains("Succeeded"), "{tested}");

    let upgraded = cluster.helm("upgrade", &[&folder, "--set", chart.upgrade]).await;
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    cluster.settled(chart).await;
    assert_eq!(cluster.get(object, path).await, after);

    cluster.helm("rollback", &["1"]).await;
    cluster.settled(chart).await;
    assert_eq!(cluster.get(object, path).await, before);

    cluster.helm("uninstall", &["--wait", "--no-hooks"]).await;
    // helm does not delete the objects of hooks.
    cluster.kubectl(&["delete", "jobs,pods", "--all"]).await;
    cluster.is_gone().await;
    assert_eq!(cluster.server.helm(&["list", "-A", "--no-headers"]).await.trim(), "");
}

macro_rules! releases {
    ($($test:ident => $chart:literal,)*) => {$(
        #[tokio::test]
        async fn $test() {
            lives($chart).await;
        }
    )*};
}

releases! {
    helm_runs_an_ingress_controller => "ingress-controller",
    helm_runs_monitoring => "monitoring",
    helm_runs_a_database => "database",
    helm_runs_a_queue => "queue",
    helm_runs_a_dashboard => "dashboard",
    helm_runs_a_registry => "registry",
    helm_runs_a_ci_runner => "ci-runner",
    helm_runs_cert_tooling => "cert-tooling",
    helm_runs_a_logging_agent => "logging-agent",
    helm_runs_a_service_mesh => "service-mesh",
}

#[tokio::test]
async fn kubectl_applies_describes_and_deletes_what_charts_hold() {
    let cluster = Cluster::start().await;
    for chart in &CHARTS {
        let folder = folder(chart);
        let rendered = cluster.server.helm(&["template", "demo", &folder, "-n", "apps", "--no-hooks"]).await;
        let on_rendered = async |verb: &[&str]| {
            let all: Vec<&str> = ["-n", "apps"].iter().chain(verb).chain(&["-f", "-"]).copied().collect();
            let ran = cluster.server.kubectl_with(&all, &rendered, &[]).await;
            assert!(ran.status.success(), "{}: kubectl {verb:?}: {}{}", chart.name, ran.stdout, ran.stderr);
            ran.stdout
        };
        let applied = on_rendered(&["apply"]).await;
        assert!(applied.lines().all(|line| line.ends_with(" created")), "{}: {applied}", chart.name);
        cluster.settled(chart).await;
        let again = on_rendered(&["apply"]).await;
        assert!(!again.contains(" created"), "{}: {again}", chart.name);
        let differences = on_rendered(&["diff"]).await;
        assert_eq!(differences, "", "{}", chart.name);
        let wide = on_rendered(&["get", "-o", "wide"]).await;
        assert_eq!(
            cells(&wide).iter().filter(|row| row.first() == Some(&"NAME")).count(),
            kinds(&applied),
            "{wide}"
        );
        let described = on_rendered(&["describe"]).await;
        for workload in chart.workloads {
            let name = workload.split('/').next_back().unwrap_or_default();
            assert!(described.contains(name), "{workload}: {described}");
        }
        // The token of a service account is deleted with its account, possibly before kubectl deletes it.
        on_rendered(&["delete", "--wait", "--ignore-not-found"]).await;
        cluster.is_gone().await;
    }
}

/// Returns the number of kinds in the output of `kubectl apply`.
fn kinds(applied: &str) -> usize {
    let kinds = applied.lines().filter_map(|line| line.split('/').next());
    kinds.collect::<std::collections::BTreeSet<_>>().len()
}
