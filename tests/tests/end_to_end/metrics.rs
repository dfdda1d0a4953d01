//! `/metrics` beside the metrics of a recorded kube-apiserver. docs/differences.md lists the metrics that nave does not
//! have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nave_loadtest::http::Call;
use nave_tests::{Server, eventually};

/// A metric's type and the names of its labels.
type Shape = (String, BTreeSet<String>);

/// Labels that the recorded server adds to upstream's.
const FOREIGN_LABELS: [&str; 2] = ["system_client", "ocp_namespace"];

/// Metrics that exist only after an event that takes minutes, or only with an etcd cluster, KMS, a lossy audit backend or
/// a webhook that answers.
const SELDOM: [&str; 5] = [
    "apiserver_audit_error_total",
    "apiserver_storage_consistency_checks_total",
    "apiserver_storage_envelope_transformation_cache_misses_total",
    "etcd_bookmark_total",
    "rest_client_response_size_bytes",
];

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: exposed}
spec: {type: NodePort, ports: [{port: 80}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: names}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: ['*'], operations: [CREATE], resources: [configmaps]}]
  matchConditions: [{name: short, expression: size(object.metadata.name) < 20}]
  validations: [{expression: object.metadata.name != 'forbidden'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: names}
spec: {policyName: names, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hooks}
webhooks:
- name: ignored.example.com
  clientConfig: {url: 'https://127.0.0.1:1/'}
  rules: [{apiGroups: [''], apiVersions: ['*'], operations: [CREATE], resources: [secrets]}]
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
- name: required.example.com
  clientConfig: {url: 'https://127.0.0.1:1/'}
  rules: [{apiGroups: [''], apiVersions: ['*'], operations: [CREATE], resources: [limitranges]}]
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.absent.example.com}
spec:
  group: absent.example.com
  version: v1
  groupPriorityMinimum: 10
  versionPriority: 10
  insecureSkipTLSVerify: true
  service: {name: absent, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec: {nodeName: missing, containers: [{name: c, image: i}]}
";

/// Starts a server and makes requests that touch most of its parts.
async fn busy_server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let flags = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", folder.path().join("audit.log").display()),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = Server::start_in(folder, &flags).await;
    server.apply(OBJECTS).await;
    // The watch caches read the objects from the store.
    server.terminate().await;
    server.restart().await;
    eventually("the policy and the webhook apply", async || {
        let refused = async |object: &[&str]| !server.kubectl_with(object, "", &[]).await.status.success();
        refused(&["create", "configmap", "forbidden"]).await
            && refused(&["create", "quota", "q", "--dry-run=server", "--as=nobody"]).await
    })
    .await;
    server.kubectl(&["create", "secret", "generic", "s"]).await;
    server.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"]).await;
    server.kubectl(&["run", "evaluated", "--image=i"]).await;
    let limits = "{apiVersion: v1, kind: LimitRange, metadata: {name: l}}";
    eventually("the required webhook is called", async || {
        !server.kubectl_with(&["create", "-f", "-"], limits, &[]).await.status.success()
    })
    .await;
    server.kubectl(&["get", "pods", "-A", "--as=someone", "--as-group=system:masters"]).await;
    server.kubectl(&["get", "endpoints"]).await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    let arguments = ["auth", "whoami", "--token", token.trim(), "--kubeconfig=/dev/null"];
    let url = format!("--server={}", server.url());
    let arguments = [&arguments[..], &[&url, "--insecure-skip-tls-verify"]].concat();
    server.kubectl_with(&arguments, "", &[]).await;
    for limit in [" --insecure-skip-tls-verify-backend", ""] {
        let arguments: Vec<&str> = ["logs", "pod"].into_iter().chain(limit.split_whitespace()).collect();
        server.kubectl_with(&arguments, "", &[]).await;
    }
    let pool = server.target().pool(1).await.unwrap();
    for path in [
        "/api/v1/pods?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "/api/v1/pods?limit=1",
        "/apis/absent.example.com/v1/things",
    ] {
        let _ = pool.call(&Call::get(path)).await;
    }
    server
}

/// Parses Prometheus' text format.
fn parse(text: &str) -> BTreeMap<String, Shape> {
    let mut families: BTreeMap<String, Shape> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            continue;
        }
        let Some(end) = line.find(['{', ' ']).filter(|_| !line.starts_with('#')) else { continue };
        let (name, rest) = line.split_at(end);
        let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| name.strip_suffix(suffix));
        let name = std::iter::once(name).chain(parts).find(|name| families.contains_key(*name)).unwrap();
        families.get_mut(name).unwrap().1.extend(label_names(rest));
    }
    families
}

/// Returns the names of the labels of a sample, without those of buckets and quantiles.
fn label_names(sample: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut parts = sample.split('"');
    // Values of labels have no quotes in these tests.
    while let (Some(before), Some(_)) = (parts.next(), parts.next()) {
        names.push(before.trim_matches(['{', ',', '=']).to_owned());
    }
    names.retain(|name| name != "le" && name != "quantile");
    names
}

/// Reads the recorded metrics; `None` without them.
fn recorded() -> Option<BTreeMap<String, Shape>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let folder = std::env::var_os("NAVE_REFERENCE").map_or(beside, Into::into);
    let mut recorded: BTreeMap<String, Shape> = BTreeMap::new();
    for file in ["metrics.tsv", "metrics-after-requests.tsv"] {
        let Ok(text) = fs::read_to_string(folder.join(file)) else {
            println!("not compared with {file}: it is not in {}", folder.display());
            return None;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let labels =
                fields.last().unwrap().split(',').filter(|label| {
                    !label.is_empty() && *label != "quantile" && !FOREIGN_LABELS.contains(label)
                });
            let shape = (fields[1].to_owned(), labels.map(str::to_owned).collect());
            recorded.insert(fields[0].to_owned(), shape);
        }
    }
    Some(recorded)
}

/// Returns the metrics that docs/differences.md lists as missing. A name that ends in `*` is a prefix.
fn missing() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md");
    let page = fs::read_to_string(page).unwrap();
    let chapter = page.split_once("## Metrics\n").unwrap().1.split("\n## ").next().unwrap();
    let table = chapter.split_once("| missing metrics |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[tokio::test]
async fn metrics_are_those_of_the_recorded_server_or_listed_as_missing() {
    let server = busy_server().await;
    let found = parse(&server.kubectl(&["get", "--raw", "/metrics"]).await);
    let missing = missing();
    for pattern in &missing {
        let exists: Vec<_> = found.keys().filter(|name| matches(pattern, name)).collect();
        assert!(exists.is_empty(), "listed as missing, but nave has {exists:?}");
    }
    let Some(recorded) = recorded() else { return };
    for pattern in &missing {
        assert!(recorded.keys().any(|name| matches(pattern, name)), "{pattern} is not a recorded metric");
    }
    let is_expected =
        |name: &str| !missing.iter().any(|pattern| matches(pattern, name)) && !SELDOM.contains(&name);
    let wrong: Vec<String> = recorded
        .iter()
        .filter(|(name, shape)| is_expected(name) && found.get(*name) != Some(*shape))
        .map(|(name, shape)| format!("{name}: {shape:?}, nave has {:?}", found.get(name)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn clients_do_not_create_series() {
    let server = Server::start_without_controllers().await;
    let pool = server.target().pool(1).await.unwrap();
    let flood = async |mark: &str| {
        for number in 0..50 {
            let name = format!("{mark}{number}");
            for path in [
                format!("/{name}"),
                format!("/apis/{name}/v1/{name}"),
                format!("/api/v1/{name}"),
                format!("/api/v1/namespaces/{name}/pods/{name}/{name}"),
                format!("/healthz/{name}"),
                format!("/api/v1/pods?fieldValidation={name}&dryRun={name}&resourceVersion={name}"),
            ] {
                let _ = pool.call(&Call::get(&path).as_user(&name, &name)).await;
                let _ = pool.call(&Call::post(&path, "{}".to_owned())).await;
            }
        }
        server.kubectl(&["get", "--raw", "/metrics"]).await
    };
    let (first, second) = (flood("earlier").await, flood("later").await);
    let named = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter(|line| line.contains("later")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(named(&second), Vec::<String>::new());
    // The server's own work may add a few series in between; 600 requests of new names must not.
    let (before, after) = (first.lines().count(), second.lines().count());
    assert!(after < before + 50, "{before} lines became {after}");
}
