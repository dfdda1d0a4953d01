use std::io::Write as _;

use super::*;

fn kubeconfig() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1/authorize'}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn parts() -> Parts {
    Parts {
        rbac: Arc::default(),
        node: Arc::new(crate::node::Node::new(Arc::default()).unwrap()),
        abac: None,
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        egress: nave_webhook::Egress::Direct,
    }
}

fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::parse(text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn builds_a_chain_from_a_full_configuration() {
    let file = kubeconfig();
    let text = format!(
        "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: first
  webhook:
    timeout: 3s
    unauthorizedTTL: 10s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {0}}}
    matchConditions:
    - expression: has(request.resourceAttributes)
- type: Node
  name: node
- type: RBAC
  name: rbac
- type: Webhook
  name: last
  webhook:
    timeout: 500ms
    subjectAccessReviewVersion: v1beta1
    failurePolicy: NoOpinion
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {0}}}
",
        file.path().display()
    );
    let configuration = parse(&text).unwrap();
    let webhook = configuration.authorizers[0].webhook.clone().unwrap();
    assert_eq!(webhook.timeout, Interval(Some(Duration::from_secs(3))));
    assert_eq!(webhook.authorized_ttl, Interval(Some(DEFAULT_AUTHORIZED_TTL)));
    assert_eq!(webhook.unauthorized_ttl, Interval(Some(Duration::from_secs(10))));
    let authorizers = configuration.build(&parts()).unwrap();
    let names: Vec<(&str, &str)> =
        authorizers.iter().map(|authorizer| (authorizer.kind, &*authorizer.name)).collect();
    assert_eq!(names, [("Webhook", "first"), ("Node", "node"), ("RBAC", "rbac"), ("Webhook", "last")]);
    assert_eq!(configuration.built_in(), ["Node", "RBAC"]);
}

#[test]
fn validation_messages_match_upstream() {
    let with = |authorizers: &str| {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        parse(&format!("{head}{authorizers}")).unwrap_err()
    };
    for (authorizers, error) in [
        ("", "authorizers: Required value: at least one authorization mode must be defined"),
        ("authorizers: [{name: a}]", "authorizers[0].type: Required value"),
        (
            "authorizers: [{type: Foo, name: a}]",
            r#"authorizers[0].type: Unsupported value: "Foo": supported values: "ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook""#,
        ),
        (
            "authorizers: [{type: Node, name: a}, {type: Node, name: b}]",
            r#"authorizers[1].type: Duplicate value: "Node""#,
        ),
        (
            "authorizers: [{type: Node, name: a}, {type: RBAC, name: a}]",
            r#"authorizers[1].name: Duplicate value: "a""#,
        ),
        ("authorizers: [{type: Node}]", "authorizers[0].name: Required value"),
        (
            "authorizers: [{type: Webhook, name: a}]",
            "authorizers[0].webhook: Required value: required when type=Webhook",
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: {timeout: 31s, subjectAccessReviewVersion: v2, matchConditions: [{expression: ''}]}}]",
            r#"[authorizers[0].timeout: Invalid value: "31s": must be > 0s and <= 30s, authorizers[0].subjectAccessReviewVersion: Unsupported value: "v2": supported values: "v1", "v1beta1", authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified, authorizers[0].failurePolicy: Required value, authorizers[0].connectionInfo.type: Required value, authorizers[0].matchConditions[0].expression: Required value]"#,
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: {timeout: 1s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: x}}}]",
            r#"authorizers[0].connectionInfo.kubeConfigFile: Invalid value: "x": must be an absolute path"#,
        ),
        (
            "authorizers: [{type: Node, name: a, x: 1}]",
            "unknown field `x`, expected one of `type`, `name`, `webhook`",
        ),
    ] {
        assert_eq!(with(authorizers), error);
    }
    assert!(parse("kind: Config").unwrap_err().contains("is not an AuthorizationConfiguration"));
    assert!(parse("a: [").is_err());
}

#[test]
fn authorizers_of_modes_are_named_after_their_type() {
    let configuration = Configuration::of_modes(["Node", "RBAC"], None);
    let authorizers = configuration.build(&parts()).unwrap();
    assert_eq!(authorizers.iter().map(|authorizer| &*authorizer.name).collect::<Vec<_>>(), ["node", "rbac"]);
    let abac = Configuration::of_modes(["ABAC"], None).build(&parts());
    assert_eq!(abac.err().unwrap().to_string(), "authorizer abac: no policy file is configured");
}

#[test]
fn reloads_a_changed_file_and_ignores_an_invalid_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorization.yaml");
    let write = |kinds: &[&str]| {
        let entries: Vec<String> =
            kinds.iter().map(|kind| format!("{{type: {kind}, name: {}}}", kind.to_lowercase())).collect();
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        std::fs::write(&path, format!("{head}authorizers: [{}]\n", entries.join(", "))).unwrap();
    };
    write(&["Node", "RBAC"]);
    let parts = parts();
    let (mut file, authorizers) = ConfigFile::open(path.clone(), parts.clone(), "server").unwrap();
    let chain = crate::Chain::new(authorizers, parts.metrics.clone());
    let names =
        || chain.authorizers().iter().map(|authorizer| authorizer.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(), ["node", "rbac"]);
    assert!(!file.reload(&chain).unwrap());
    write(&["RBAC", "Node"]);
    assert!(file.reload(&chain).unwrap());
    assert_eq!(names(), ["rbac", "node"]);
    for wrong in [&["RBAC"][..], &["RBAC", "Node", "AlwaysAllow"], &["RBAC", "Foo"], &[]] {
        write(wrong);
        assert!(file.reload(&chain).is_err(), "{wrong:?}");
        assert_eq!(names(), ["rbac", "node"]);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(file.reload(&chain).is_err());
    let reloads = parts.metrics.reloads();
    assert_eq!((reloads("success"), reloads("failure")), (1, 5));
}
