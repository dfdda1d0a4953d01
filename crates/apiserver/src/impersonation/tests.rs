use std::sync::Arc;

use async_trait::async_trait;
use http::Request;
use nave_authz::{Authorizer, Chain, Metrics, NamedAuthorizer, Verdict};

use super::*;
use crate::context::Client;

fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

/// Returns the user as which a list of pods is served.
async fn list(who: &UserInfo, headers: &mut HeaderMap, chain: &Chain) -> Result<UserInfo, Status> {
    let request = Request::get("/api/v1/namespaces/ns/pods").body(()).unwrap();
    let mut context = RequestContext::new(&request, Client::Remote(None));
    context.set_user(Arc::new(who.clone()));
    let metrics = ImpersonationMetrics::new(&prometheus::Registry::new()).unwrap();
    let impersonation = Impersonation { authorization: chain.clone(), metrics };
    impersonation.run(&mut context, headers).await?;
    assert_eq!(context.authenticated_user(), who);
    Ok(context.user().clone())
}

async fn as_admin(all: &[(&'static str, &str)]) -> Result<UserInfo, Status> {
    let masters = Chain::new(Vec::new(), Metrics::new(&prometheus::Registry::new()).unwrap());
    let mut headers = headers(all);
    let admin = user("admin", &["system:masters"]);
    let found = list(&admin, &mut headers, &masters).await?;
    assert!(headers.is_empty() || !all[0].0.starts_with("impersonate"), "headers go no further");
    Ok(found)
}

#[tokio::test]
async fn impersonates_a_user_with_all_attributes() {
    let found = as_admin(&[
        ("impersonate-user", "bob"),
        ("impersonate-uid", "u1"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-extra-scopes", "view"),
        ("impersonate-extra-scopes", "édit"),
        ("impersonate-extra-acme.com%2fproject", "x"),
        ("impersonate-extra-100%zz", "y"),
    ])
    .await
    .unwrap();
    assert_eq!((found.name.as_str(), found.uid.as_str()), ("bob", "u1"));
    assert_eq!(found.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(found.extra["scopes"], ["view", "édit"]);
    assert_eq!(found.extra["acme.com/project"], ["x"]);
    assert_eq!(found.extra["100%zz"], ["y"]);
}

#[tokio::test]
async fn groups_are_completed_as_upstream_does() {
    let groups = async |name: &str, groups: &[&str]| {
        let mut all = vec![("impersonate-user", name)];
        all.extend(groups.iter().map(|group| ("impersonate-group", *group)));
        as_admin(&all).await.unwrap().groups.clone()
    };
    assert_eq!(groups("bob", &[]).await, ["system:authenticated"]);
    assert_eq!(groups("bob", &["system:unauthenticated"]).await, ["system:unauthenticated"]);
    assert_eq!(groups("system:anonymous", &[]).await, ["system:unauthenticated"]);
    let robot = "system:serviceaccount:ns:robot";
    let own = ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"];
    assert_eq!(groups(robot, &[]).await, own);
    assert_eq!(groups(robot, &["dev"]).await, ["dev", "system:authenticated"]);
}

#[tokio::test]
async fn without_the_headers_nothing_changes() {
    assert_eq!(as_admin(&[("accept", "x")]).await.unwrap().name, "admin");
}

#[tokio::test]
async fn rejects_attributes_without_a_user_name() {
    let error = as_admin(&[("impersonate-group", "x")]).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert_eq!(
        error.message,
        r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"x"}, Extra:map[string][]string(nil)} without impersonating a user name"#
    );
    let error = as_admin(&[("impersonate-extra-a", "x"), ("impersonate-uid", "1")]).await.unwrap_err();
    assert!(
        error
            .message
            .contains(r#"UID:"1", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"x"}}}"#)
    );
}

/// Allows only the given requests, each written as `verb:group/resource/subresource/namespace/name`.
struct One(&'static [&'static str]);

#[async_trait]
impl Authorizer for One {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let Attributes { group, resource, subresource, namespace, name, .. } = *attributes;
        let request = format!("{}:{group}/{resource}/{subresource}/{namespace}/{name}", attributes.verb);
        let allowed = self.0.contains(&request.as_str());
        if allowed { Verdict::allow("") } else { Verdict::no_opinion("") }
    }
}

fn only(rights: &'static [&'static str]) -> Chain {
    let (name, authorizer) = (Arc::from("one"), Arc::new(One(rights)));
    Chain::new(
        vec![NamedAuthorizer { kind: "One", name, authorizer, resolver: None }],
        Metrics::new(&prometheus::Registry::new()).unwrap(),
    )
}

const RIGHTS: [&str; 4] = [
    "impersonate:/users///bob",
    "impersonate:/groups///dev",
    "impersonate:authentication.k8s.io/userextras/scopes//view",
    "impersonate:authentication.k8s.io/uids///u1",
];
const WITHOUT: [&[&str]; 4] = [
    &[RIGHTS[1], RIGHTS[2], RIGHTS[3]],
    &[RIGHTS[0], RIGHTS[2], RIGHTS[3]],
    &[RIGHTS[0], RIGHTS[1], RIGHTS[3]],
    &[RIGHTS[0], RIGHTS[1], RIGHTS[2]],
];

#[tokio::test]
async fn each_attribute_needs_its_own_right() {
    let everything = [
        ("impersonate-user", "bob"),
        ("impersonate-uid", "u1"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-scopes", "view"),
    ];
    let ask = async |rights| {
        let chain = only(rights);
        list(&user("mallory", &[]), &mut headers(&everything), &chain).await
    };
    assert_eq!(ask(&RIGHTS).await.unwrap().name, "bob");
    for rights in WITHOUT {
        let error = ask(rights).await.unwrap_err();
        assert_eq!(error.code, 403);
        assert_eq!(
            error.message,
            r#"pods is forbidden: User "mallory" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "ns""#
        );
    }
}

const ON_PODS: &str = "impersonate-on:user-info:list:/pods//ns/";
const AS_BOB: &str = "impersonate:user-info:authentication.k8s.io/users///bob";

/// Requester, headers, rights, and the expected result: the groups of the user or the error.
type Case<'a> =
    (&'a UserInfo, &'a [(&'static str, &'a str)], &'static [&'static str], Result<&'a [&'a str], &'a str>);

#[tokio::test]
async fn constrained_impersonation_allows_some_requests_only() {
    let node = |named: &str| {
        let extra = [(NODE_NAME.to_owned(), vec![named.to_owned()])].into();
        UserInfo { name: "system:serviceaccount:ns:robot".into(), extra, ..UserInfo::default() }
    };
    let mallory = user("mallory", &[]);
    let cases: [Case<'_>; 9] = [
        (&mallory, &[(USER, "bob")], &[ON_PODS, AS_BOB], Ok(&["system:authenticated"])),
        (
            &mallory,
            &[(USER, "bob")],
            &[AS_BOB],
            Err("cannot impersonate-on:user-info:list resource \"pods\""),
        ),
        (
            &mallory,
            &[(USER, "bob")],
            &[ON_PODS],
            Err("cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\""),
        ),
        (
            &mallory,
            &[(USER, "bob"), (GROUP, "dev")],
            &[ON_PODS, AS_BOB],
            Err("cannot impersonate:user-info resource \"groups\""),
        ),
        (
            &mallory,
            &[(USER, "system:serviceaccount:ns:robot")],
            &[
                "impersonate-on:serviceaccount:list:/pods//ns/",
                "impersonate:serviceaccount:authentication.k8s.io/serviceaccounts//ns/robot",
            ],
            Ok(&["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]),
        ),
        (
            &mallory,
            &[(USER, "system:node:n1")],
            &[
                "impersonate-on:arbitrary-node:list:/pods//ns/",
                "impersonate:arbitrary-node:authentication.k8s.io/nodes///n1",
            ],
            Ok(&["system:nodes", "system:authenticated"]),
        ),
        (&mallory, &[(USER, "system:node:n1")], &[ON_PODS], Err("cannot impersonate-on:arbitrary-node:list")),
        (
            &node("n1"),
            &[(USER, "system:node:n1")],
            &[
                "impersonate-on:associated-node:list:/pods//ns/",
                "impersonate:associated-node:authentication.k8s.io/nodes///*",
            ],
            Ok(&["system:nodes", "system:authenticated"]),
        ),
        (
            &node("n2"),
            &[(USER, "system:node:n1")],
            &[
                "impersonate-on:associated-node:list:/pods//ns/",
                "impersonate:associated-node:authentication.k8s.io/nodes///*",
            ],
            Err("cannot impersonate-on:arbitrary-node:list"),
        ),
    ];
    for (who, requested, rights, expected) in cases {
        match (list(who, &mut headers(requested), &only(rights)).await, expected) {
            (Ok(found), Ok(groups)) => assert_eq!(found.groups, groups, "{requested:?}"),
            (Err(status), Err(why)) => assert!(status.message.contains(why), "{}", status.message),
            (found, _) => panic!("{requested:?} by {rights:?}: {found:?}"),
        }
    }
}

/// Headers, and the error if they are refused.
type RefusedCase<'a> = (&'a [(&'static str, &'a str)], Option<&'a str>);

#[tokio::test]
async fn constrained_impersonation_refuses_powerful_and_odd_attributes() {
    let mallory = user("mallory", &[]);
    let everything: &'static [&'static str] = &[
        ON_PODS,
        AS_BOB,
        "impersonate:user-info:authentication.k8s.io/groups///system:masters",
        "impersonate:user-info:authentication.k8s.io/groups///",
        "impersonate:user-info:authentication.k8s.io/groups///*",
        "impersonate:user-info:authentication.k8s.io/userextras/scopes//x",
        "impersonate:user-info:authentication.k8s.io/userextras/*//*",
    ];
    let many = [(USER, "bob"), (GROUP, "a"), (GROUP, "b"), (GROUP, "c"), (GROUP, "d")];
    let values = [
        (USER, "bob"),
        ("impersonate-extra-acme.com%2fa", "1"),
        ("impersonate-extra-acme.com%2fa", "2"),
        ("impersonate-extra-acme.com%2fa", "3"),
        ("impersonate-extra-acme.com%2fb", "4"),
    ];
    let cases: [RefusedCase<'_>; 8] = [
        (
            &[(USER, "bob"), (GROUP, "system:masters")],
            Some("impersonating the system:masters group is not allowed"),
        ),
        (&[(USER, "bob"), (GROUP, "")], Some("impersonating the empty string group is not allowed")),
        (
            &[(USER, "bob"), ("impersonate-extra-scopes", "x")],
            Some(
                "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"scopes\": must be a domain-prefixed path",
            ),
        ),
        (
            &[(USER, "bob"), ("impersonate-extra-acme.com%2fa", "")],
            Some("impersonating the empty string value in extra is not allowed"),
        ),
        (
            &[(USER, "bob"), ("impersonate-extra-acme.com%2f%41", "x")],
            Some("impersonating a non-lowercase key in extra is not allowed: \"acme.com/A\""),
        ),
        (&many, None),
        (&values, None),
        // Without the right to all, each one is asked for.
        (&many[..4], Some("cannot impersonate:user-info resource \"groups\"")),
    ];
    for (requested, refused) in cases {
        let found = list(&mallory, &mut headers(requested), &only(everything)).await;
        match refused {
            None => assert!(found.is_ok(), "{requested:?}: {found:?}"),
            Some(why) => {
                let status = found.unwrap_err();
                assert_eq!(status.code, 403);
                assert!(status.message.contains(why), "{}", status.message);
            }
        }
    }
}

/// Allows everything to the user, and records the user's `extra`.
struct Recording(parking_lot::Mutex<Vec<BTreeMap<String, Vec<String>>>>);

#[async_trait]
impl Authorizer for Recording {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        self.0.lock().push(attributes.user.extra.clone());
        Verdict::allow("")
    }
}

#[tokio::test]
async fn an_associated_node_is_asked_for_with_the_keys_of_the_token() {
    let recording = Arc::new(Recording(parking_lot::Mutex::default()));
    let named = NamedAuthorizer {
        kind: "R",
        name: "r".into(),
        authorizer: Arc::clone(&recording) as _,
        resolver: None,
    };
    let chain = Chain::new(vec![named], Metrics::new(&prometheus::Registry::new()).unwrap());
    let extra = [NODE_NAME, "authentication.kubernetes.io/pod-name"]
        .map(|key| (key.to_owned(), vec!["n1".to_owned()]));
    let who = UserInfo {
        name: "system:serviceaccount:ns:robot".into(),
        extra: extra.into(),
        ..UserInfo::default()
    };
    list(&who, &mut headers(&[(USER, "system:node:n1")]), &chain).await.unwrap();
    let keys = vec![NODE_NAME.to_owned(), "authentication.kubernetes.io/pod-name".to_owned()];
    assert_eq!(recording.0.lock()[0], BTreeMap::from([(NODE_KEYS.to_owned(), keys)]));
    // This is no name of a node, so it is the name of an ordinary user.
    let found = list(&who, &mut headers(&[(USER, "system:node:Not_A_Node")]), &chain).await.unwrap();
    assert_eq!(found.groups, ["system:authenticated"]);
}
