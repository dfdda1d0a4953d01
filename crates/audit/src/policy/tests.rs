use nave_machinery::user::UserInfo;

use super::*;
use nave_machinery::RequestedResource;

fn rules(rules: &str) -> Policy {
    Policy::parse(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}").as_bytes()).unwrap()
}

fn error(document: &str) -> String {
    Policy::parse(document.as_bytes()).unwrap_err().to_string()
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(ToString::to_string).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

#[test]
fn matches_resources_by_group_name_and_wildcard() {
    let user = user("a", &[]);
    let requested = |group, resource, subresource, name| Request {
        user: &user,
        verb: "get",
        path: "",
        resource: Some(RequestedResource {
            group,
            version: "v1",
            resource,
            subresource,
            namespace: "ns",
            name,
        }),
    };
    for (listed, group, resource, subresource, matches) in [
        ("[{}]", "", "pods", "", true),
        ("[{}]", "", "pods", "log", true),
        ("[{}]", "apps", "pods", "", false),
        ("[{group: '*'}]", "apps", "deployments", "scale", true),
        ("[{resources: [pods]}]", "", "pods", "", true),
        ("[{resources: [pods]}]", "", "pods", "log", false),
        ("[{resources: [pods/log]}]", "", "pods", "log", true),
        ("[{resources: [pods/log]}]", "", "pods", "", false),
        ("[{resources: ['pods/*']}]", "", "pods", "log", true),
        ("[{resources: ['pods/*']}]", "", "pods", "", true),
        ("[{resources: ['pods/*']}]", "", "services", "", false),
        ("[{resources: ['*/scale']}]", "", "pods", "scale", true),
        ("[{resources: ['*/scale']}]", "", "scale", "", false),
        ("[{resources: ['*']}]", "", "pods", "exec", true),
        ("[{resources: [pods], resourceNames: [one]}]", "", "pods", "", true),
        ("[{resources: [pods], resourceNames: [two]}]", "", "pods", "", false),
    ] {
        let policy = rules(&format!("- {{level: Metadata, resources: {listed}}}"));
        let level = policy.evaluate(&requested(group, resource, subresource, "one")).level;
        assert_eq!(level == Level::Metadata, matches, "{listed}: {group} {resource}/{subresource}");
    }
    for (namespaces, matches) in [("[ns]", true), ("['']", false), ("[ms, ns]", true)] {
        let policy = rules(&format!("- {{level: Metadata, namespaces: {namespaces}}}"));
        assert_eq!(policy.evaluate(&requested("", "pods", "", "")).level == Level::Metadata, matches);
    }
}

#[test]
fn matches_paths_users_groups_and_verbs() {
    let user = user("a", &["g", "h"]);
    for (rule, matches) in [
        ("nonResourceURLs: ['*']", true),
        ("nonResourceURLs: [/api]", false),
        ("nonResourceURLs: ['/api*']", true),
        ("nonResourceURLs: [/apis/apps]", true),
        ("resources: [{group: '*'}]", false),
        ("namespaces: ['']", false),
        ("users: [b, a]", true),
        ("users: [b]", false),
        ("userGroups: [h]", true),
        ("userGroups: [i]", false),
        ("verbs: [get]", true),
        ("verbs: [list]", false),
        ("users: [a], verbs: [get], nonResourceURLs: ['/apis*']", true),
    ] {
        let policy = rules(&format!("- {{level: Request, {rule}}}"));
        let request = Request { user: &user, verb: "get", path: "/apis/apps", resource: None };
        assert_eq!(policy.evaluate(&request).level == Level::Request, matches, "{rule}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let document = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [a]}
- {level: Request, users: [b], omitStages: [Panic], omitManagedFields: false}
- {level: Metadata, users: [b, c], rules: null, users: [c]}
";
    let policy = Policy::parse(document.as_bytes()).unwrap();
    let recording =
        |name| policy.evaluate(&Request { user: &user(name, &[]), verb: "get", path: "/", resource: None });
    let received = Stages::default().with(Stage::RequestReceived);
    assert_eq!(recording("a").level, Level::None);
    let (level, omitted) = (Level::Request, received.with(Stage::Panic));
    assert_eq!(recording("b"), Recording { level, omitted, omit_managed_fields: false });
    let level = Level::Metadata;
    assert_eq!(recording("c"), Recording { level, omitted: received, omit_managed_fields: true });
    assert_eq!(recording("d").level, Level::None);
}

#[test]
fn refuses_invalid_policies() {
    let policy = |rest: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rest}");
    let rule = |rest: &str| policy(&format!("rules:\n- {rest}"));
    for (document, why) in [
        ("a: [".to_owned(), "failed decoding: "),
        (String::new(), "failed decoding: the file is empty"),
        ("# nothing yet\n".to_owned(), "failed decoding: the file is empty"),
        ("apiVersion: v1\nkind: Policy".to_owned(), "unknown group version field v1, Kind=Policy in policy"),
        (policy(""), "loaded illegal policy with 0 rules"),
        (policy("rules: x"), "failed decoding: "),
        (rule("{users: [a]}"), "rules[0].level: Required value"),
        (
            rule("{level: All}"),
            "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
        ),
        (
            rule("{level: None, omitStages: [Done]}"),
            "rules[0].omitStages[0]: Invalid value: \"Done\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
        ),
        (
            rule("{level: None, nonResourceURLs: [api]}"),
            "rules[0].nonResourceURLs[0]: Invalid value: \"api\": non-resource URL rules must begin with a '/' character",
        ),
        (
            rule("{level: None, nonResourceURLs: ['/a*b', '/*/*']}"),
            "rules[0].nonResourceURLs[1]: Invalid value: \"/*/*\": non-resource URL wildcards '*' must be the final character of the rule",
        ),
        (
            rule("{level: None, nonResourceURLs: [/a], namespaces: [b]}"),
            "rules cannot apply to both regular resources and non-resource URLs",
        ),
        (
            rule("{level: None, resources: [{group: a/v1}]}"),
            "rules[0].resources.group: Invalid value: \"a/v1\": ",
        ),
        (
            rule("{level: None, resources: [{resourceNames: [a]}]}"),
            "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource",
        ),
    ] {
        let error = error(&document);
        assert!(error.contains(why), "{document}: {error}");
    }
}

#[test]
fn reports_unknown_fields() {
    let value = nave_codec::yaml::decode(
        b"rule: 1\nmetadata: {name: x}\nrules: [{level: None, user: [a], resources: [{groups: a}]}]",
    );
    assert_eq!(
        validation::unknown_fields(&value.unwrap().value),
        [
            "unknown field \"rule\"",
            "unknown field \"rules[0].user\"",
            "unknown field \"rules[0].resources[0].groups\""
        ]
    );
}
