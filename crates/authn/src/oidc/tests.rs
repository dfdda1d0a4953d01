//! Tests against an in-process identity provider over HTTPS that signs with real keys.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode};
use nave_machinery::Value;
use nave_webhook::testing::HttpsServer;
use serde_json::json;

use super::*;
use crate::config::AuthenticationConfiguration;
use crate::jwt::{SigningKey, generate_rsa_pem};

/// A provider, and a count of its requests.
struct World {
    server: HttpsServer,
    key: SigningKey,
    set: Arc<Mutex<Value>>,
    requests: Arc<AtomicUsize>,
}

fn key() -> SigningKey {
    SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap()
}

async fn world() -> World {
    let key = key();
    let set = Arc::new(Mutex::new(json!({"keys": [key.public().to_jwk()]})));
    let (keys, requests) = (Arc::clone(&set), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&requests);
    let server = HttpsServer::start(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let host = request.headers()["host"].to_str().unwrap();
        let answer = match request.uri().path() {
            "/.well-known/openid-configuration" => {
                json!({"issuer": format!("https://{host}"), "jwks_uri": format!("https://{host}/keys")})
            }
            "/elsewhere" => {
                json!({"issuer": "https://named.example", "jwks_uri": format!("https://{host}/keys")})
            }
            "/keys" => keys.lock().unwrap().clone(),
            _ => json!({}),
        };
        Response::new(Bytes::from(answer.to_string()))
    });
    World { server: server.await, key, set, requests }
}

fn now() -> i64 {
    nave_machinery::time::now().unix_seconds()
}

impl World {
    fn tokens(&self, more: &str) -> IssuerTokens {
        self.tokens_of(&format!("url: '{}'", self.server.url("")), more)
    }

    fn tokens_of(&self, issuer: &str, more: &str) -> IssuerTokens {
        let ca = self.server.ca.replace('\n', "\n      ");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    {issuer}\n    \
             audiences: [kubernetes]\n    certificateAuthority: |\n      {ca}\n{more}"
        );
        let config = AuthenticationConfiguration::parse(&text, &[]).unwrap();
        IssuerTokens::new(&config.jwt[0], &[Algorithm::Rs256, Algorithm::Es256], &["api".to_owned()]).unwrap()
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "iss": self.server.url(""), "aud": "kubernetes", "exp": now() + 60, "sub": "alice",
            "email": "alice@example.com", "email_verified": true, "groups": ["dev", "ops"], "tenant": "t1",
        });
        change(&mut claims);
        self.key.sign(&claims).unwrap()
    }
}

async fn authenticate(tokens: &IssuerTokens, token: &str) -> Result<Option<Identity>, String> {
    tokens.authenticate_token(token, &["api".to_owned()]).await.map_err(|error| error.to_string())
}

const SIMPLE: &str =
    "  claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'g:'}}\n";

#[tokio::test]
async fn maps_claims_to_a_user() {
    let world = world().await;
    let user = authenticate(&world.tokens(SIMPLE), &world.token(|_| {})).await.unwrap().unwrap();
    assert_eq!(user.user.name, "o:alice");
    assert_eq!(user.user.groups, ["g:dev", "g:ops", "system:authenticated"]);
    assert_eq!(user.audiences, ["api"]);
    let tokens = world.tokens(
        "  claimMappings:\n    username: {expression: 'claims.email_verified ? claims.email : \"\"'}\n    \
         groups: {expression: 'claims.groups.map(g, claims.tenant + \":\" + g)'}\n    uid: {claim: sub}\n    \
         extra: [{key: example.com/tenant, valueExpression: claims.tenant}, \
         {key: example.com/none, valueExpression: 'claims.?none.orValue(\"\")'}]\n",
    );
    let user = authenticate(&tokens, &world.token(|_| {})).await.unwrap().unwrap().user;
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice@example.com", "alice"));
    assert_eq!(user.groups, ["t1:dev", "t1:ops", "system:authenticated"]);
    assert_eq!(user.extra, [("example.com/tenant".to_owned(), vec!["t1".to_owned()])].into());
    let error = authenticate(&tokens, &world.token(|claims| claims["email_verified"] = false.into()))
        .await
        .unwrap_err();
    assert_eq!(error, "oidc: the username is empty");
}

#[tokio::test]
async fn validation_rules_are_enforced() {
    let world = world().await;
    let tokens = world.tokens(&format!(
        "{SIMPLE}  claimValidationRules: [{{claim: tenant, requiredValue: t1}}, \
         {{expression: 'size(claims.groups) < 3', message: too many}}]\n  \
         userValidationRules: [{{expression: '!user.username.endsWith(\"root\")', message: reserved}}]\n"
    ));
    assert!(authenticate(&tokens, &world.token(|_| {})).await.unwrap().is_some());
    let error = async |change: fn(&mut Value)| authenticate(&tokens, &world.token(change)).await.unwrap_err();
    assert!(error(|claims| claims["tenant"] = "t2".into()).await.contains("value does not match"));
    assert!(
        error(|claims| drop(claims.as_object_mut().unwrap().remove("tenant"))).await.contains("not present")
    );
    assert_eq!(error(|claims| claims["groups"] = json!(["a", "b", "c"])).await, "oidc: too many");
    assert_eq!(error(|claims| claims["sub"] = "root".into()).await, "oidc: reserved");
    assert!(error(|claims| drop(claims.as_object_mut().unwrap().remove("groups"))).await.contains("oidc: "));
}

#[tokio::test]
async fn rejects_invalid_tokens() {
    let world = world().await;
    let tokens = world.tokens(SIMPLE);
    for (change, why) in [
        ((|claims| claims["exp"] = (now() - 1).into()) as fn(&mut Value), "token is expired"),
        (|claims| drop(claims.as_object_mut().unwrap().remove("exp")), "token is expired"),
        (|claims| claims["nbf"] = (now() + 400).into(), "before the nbf"),
        (|claims| claims["nbf"] = "never".into(), "before the nbf"),
        (|claims| claims["aud"] = "others".into(), "expected audience"),
        (|claims| claims["aud"] = json!([]), "expected audience"),
        (|claims| claims["sub"] = 7.into(), "the username must be a string"),
        (|claims| claims["sub"] = "".into(), "the username is empty"),
        (|claims| claims["groups"] = json!({"a": 1}), "the groups must be a string or a list of strings"),
    ] {
        let error = authenticate(&tokens, &world.token(change)).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let token = world.token(|_| {});
    let other =
        key().sign(&json!({"iss": world.server.url(""), "aud": "kubernetes", "exp": now() + 60})).unwrap();
    assert!(authenticate(&tokens, &other).await.unwrap_err().contains("failed to verify signature"));
    assert!(authenticate(&tokens, &token).await.is_ok());
    assert!(authenticate(&tokens, &format!("{token}AAAA")).await.is_err());
    for foreign in [world.token(|claims| claims["iss"] = "https://other".into()), "opaque".to_owned()] {
        assert_eq!(authenticate(&tokens, &foreign).await, Ok(None));
    }
    assert_eq!(tokens.authenticate_token(&token, &["vault".to_owned()]).await, Ok(None));
    let unverified = world.tokens("  claimMappings: {username: {claim: email, prefix: ''}}\n");
    let error =
        authenticate(&unverified, &world.token(|claims| claims["email_verified"] = false.into())).await;
    assert_eq!(error.unwrap_err(), "oidc: email not verified");
}

#[tokio::test]
async fn rejects_disallowed_signature_algorithms() {
    let world = world().await;
    let mut tokens = world.tokens(SIMPLE);
    tokens.algorithms = vec![Algorithm::Es256];
    let error = authenticate(&tokens, &world.token(|_| {})).await.unwrap_err();
    assert_eq!(error, "oidc: verify token: unexpected algorithm RS256");
}

#[tokio::test]
async fn follows_key_rotation_and_limits_fetches() {
    let mut world = world().await;
    let tokens = world.tokens(SIMPLE);
    for _ in 0..3 {
        assert!(authenticate(&tokens, &world.token(|_| {})).await.is_ok());
    }
    assert_eq!(world.requests.load(Ordering::SeqCst), 2, "the configuration and the keys, once");
    world.key = key();
    let token = world.token(|_| {});
    for _ in 0..100 {
        assert!(authenticate(&tokens, &token).await.is_err());
    }
    let requests = world.requests.load(Ordering::SeqCst);
    assert!(requests < 50, "{requests} requests for unknown keys");
    *world.set.lock().unwrap() = json!({"keys": [world.key.public().to_jwk(), {"kty": "oct", "k": "AAAA"}]});
    let started = std::time::Instant::now();
    while authenticate(&tokens, &token).await.is_err() {
        assert!(started.elapsed() < Duration::from_mins(1), "the new key is never used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn discovery_url_may_differ_but_issuer_must_match() {
    let world = world().await;
    let elsewhere = world.server.url("/elsewhere");
    let tokens =
        world.tokens_of(&format!("url: 'https://named.example'\n    discoveryURL: '{elsewhere}'"), SIMPLE);
    let named = world.token(|claims| claims["iss"] = "https://named.example".into());
    assert!(authenticate(&tokens, &named).await.unwrap().is_some());
    let liar =
        world.tokens_of(&format!("url: 'https://other.example'\n    discoveryURL: '{elsewhere}'"), SIMPLE);
    let other = world.token(|claims| claims["iss"] = "https://other.example".into());
    assert!(authenticate(&liar, &other).await.unwrap_err().contains("issuer did not match"));
}

#[tokio::test]
async fn replaces_all_issuers_at_once() {
    let (one, two) = (world().await, world().await);
    let issuers = Issuers::default();
    let asks =
        async |token: &str| issuers.authenticate_token(token, &["api".to_owned()]).await.unwrap().is_some();
    let (first, second) = (one.token(|_| {}), two.token(|_| {}));
    assert!(!asks(&first).await);
    issuers.replace(vec![one.tokens(SIMPLE), two.tokens(SIMPLE)]);
    assert!(asks(&first).await && asks(&second).await);
    issuers.replace(vec![two.tokens(SIMPLE)]);
    assert!(!asks(&first).await && asks(&second).await);
}

/// Two providers: one for users, one for their groups.
async fn groups_provider(
    world: &World,
    answer: impl Fn(&str) -> Response<Bytes> + Send + Sync + 'static,
) -> HttpsServer {
    let set = world.set.lock().unwrap().clone().to_string();
    HttpsServer::start(move |request| {
        let url = format!("https://{}", request.headers()["host"].to_str().unwrap());
        let shown = request.headers().get("authorization").map_or("", |shown| shown.to_str().unwrap());
        match request.uri().path() {
            "/groups" => answer(shown),
            "/keys" => Response::new(Bytes::from(set.clone())),
            _ => Response::new(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string().into()),
        }
    })
    .await
}

#[tokio::test]
async fn resolves_distributed_groups_claim() {
    let world = world().await;
    let issued = Arc::new(Mutex::new(String::new()));
    let answer = Arc::clone(&issued);
    let other = groups_provider(&world, move |shown| {
        let mut response = Response::new(Bytes::from(answer.lock().unwrap().clone()));
        if shown != "Bearer s3cret" {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    })
    .await;
    // One CA bundle covers both servers.
    let ca = format!("{}{}", world.server.ca, other.ca).replace('\n', "\n      ");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: '{}'\n    \
         audiences: [kubernetes]\n    certificateAuthority: |\n      {ca}\n{SIMPLE}",
        world.server.url("")
    );
    let config = AuthenticationConfiguration::parse(&text, &[]).unwrap();
    let tokens = IssuerTokens::new(&config.jwt[0], &[Algorithm::Rs256], &["api".to_owned()]).unwrap();
    let token = |access: &str| {
        world.token(|claims| {
            claims.as_object_mut().unwrap().remove("groups");
            claims["_claim_names"] = json!({"groups": "src"});
            claims["_claim_sources"] =
                json!({"src": {"endpoint": other.url("/groups"), "access_token": access}});
        })
    };
    let issue = |change: fn(&mut Value)| {
        let mut claims = json!({
            "iss": other.url(""), "aud": "kubernetes", "exp": now() + 60, "groups": ["far", "away"],
        });
        change(&mut claims);
        *issued.lock().unwrap() = world.key.sign(&claims).unwrap();
    };
    issue(|_| {});
    let user = authenticate(&tokens, &token("s3cret")).await.unwrap().unwrap();
    assert_eq!(user.user.groups, ["g:far", "g:away", "system:authenticated"]);
    let refused = async |access: &str| authenticate(&tokens, &token(access)).await.unwrap_err();
    assert!(refused("wrong").await.contains("error while getting distributed claim JWT: 403"));
    for (change, why) in [
        ((|claims| claims["exp"] = (now() - 1).into()) as fn(&mut Value), "token is expired"),
        (|claims| claims["aud"] = "others".into(), "expected audience"),
        (|claims| claims["groups"] = Value::Null, ""),
        (|claims| claims["iss"] = "http://example.com".into(), "verifying untrusted issuer"),
        (
            |claims| {
                claims.as_object_mut().unwrap().remove("groups");
            },
            "did not contain claim: groups",
        ),
    ] {
        issue(change);
        match authenticate(&tokens, &token("s3cret")).await {
            Ok(found) => assert!(why.is_empty() && found.unwrap().user.groups == ["system:authenticated"]),
            Err(error_message) => {
                assert!(!why.is_empty() && error_message.contains(why), "{why}: {error_message}");
            }
        }
    }
    *issued.lock().unwrap() = key()
        .sign(&json!({"iss": other.url(""), "aud": "kubernetes", "exp": now() + 60, "groups": ["far"]}))
        .unwrap();
    assert!(
        refused("s3cret").await.contains("failed to verify signature"),
        "signed with the key of the other issuer"
    );
    // A token that contains its groups needs no source. A token that names a missing source is refused.
    let own = world.token(|claims| claims["_claim_names"] = json!({"groups": "src"}));
    assert!(authenticate(&tokens, &own).await.is_ok());
    let lost = world.token(|claims| {
        claims.as_object_mut().unwrap().remove("groups");
        claims["_claim_names"] = json!({"groups": "src"});
        claims["_claim_sources"] = json!({});
    });
    assert!(authenticate(&tokens, &lost).await.unwrap_err().contains("contained a source src missing"));
}
