//! Tests of issued and forged tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_machinery::time;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::TokenAuthenticator;
use crate::jwt::{SigningKey, generate_rsa_pem};

const ISSUER: &str = "https://kubernetes.default.svc";

/// Objects by resource, namespace and name.
#[derive(Default)]
struct Cluster(Mutex<BTreeMap<(String, String, String), Value>>);

impl Cluster {
    fn put(&self, resource: &str, namespace: &str, name: &str, uid: &str) -> Value {
        let object = json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}});
        self.replace(resource, object.clone());
        object
    }

    fn replace(&self, resource: &str, object: Value) {
        let key =
            key(resource, nave_machinery::meta::namespace(&object), nave_machinery::meta::name(&object));
        self.0.lock().insert(key, object);
    }

    fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.0.lock().remove(&key(resource, namespace, name));
    }
}

fn key(resource: &str, namespace: &str, name: &str) -> (String, String, String) {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Objects for Cluster {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.lock().get(&key(resource, namespace, name)).cloned()
    }
}

/// A cluster with one account, an issuer and the authenticators.
struct World {
    cluster: Arc<Cluster>,
    account: Value,
    ring: Arc<KeyRing>,
    issuer: Issuer,
    bound: BoundTokens,
    legacy: LegacyTokens,
}

fn world() -> World {
    let cluster = Arc::new(Cluster::default());
    let account = cluster.put("serviceaccounts", "default", "robot", "u1");
    let keys = Keys::new(SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap(), Vec::new());
    let ring = Arc::new(KeyRing::new(keys));
    let audiences = vec!["api".to_owned()];
    let config = IssuerConfig {
        issuer: ISSUER.to_owned(),
        audiences: audiences.clone(),
        max_expiration_seconds: None,
        extend_expiration: true,
    };
    let issuers = vec![ISSUER.to_owned(), "https://old".to_owned()];
    World {
        account,
        issuer: Issuer::new(config, ring.clone()),
        bound: BoundTokens::new(issuers, ring.clone(), cluster.clone()),
        legacy: LegacyTokens::new(ring.clone(), audiences, cluster.clone(), true),
        ring,
        cluster,
    }
}

impl World {
    async fn token(&self, bound: BoundObject) -> String {
        self.issuer.issue(&self.account, bound, &["api".to_owned()], 3600).await.unwrap().token
    }

    async fn user(&self, token: &str) -> Result<Option<UserInfo>, String> {
        self.user_for(token, "api").await
    }

    async fn user_for(&self, token: &str, audience: &str) -> Result<Option<UserInfo>, String> {
        let found = self.bound.authenticate_token(token, &[audience.to_owned()]).await;
        found.map(|found| found.map(|found| (*found.user).clone())).map_err(|error| error.to_string())
    }

    async fn refused(&self, token: &str, why: &str) {
        let error = self.user(token).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    /// A token with changed claims, signed with the server's key.
    async fn signed(&self, change: impl FnOnce(&mut Value)) -> String {
        let token = self.token(BoundObject::None).await;
        let mut claims = payload(&token);
        change(&mut claims);
        self.ring.get().await.signing().sign(&claims).unwrap()
    }
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn token_names_account_and_bound_object() {
    let world = world();
    let pod = world.cluster.put("pods", "default", "p", "u2");
    let node = Reference { name: "n".into(), uid: "u3".into() };
    let token = world.token(BoundObject::Pod(Reference::to(&pod), Some(node))).await;
    let claims = payload(&token);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(
        claims["kubernetes.io"],
        json!({
            "namespace": "default", "serviceaccount": {"name": "robot", "uid": "u1"},
            "pod": {"name": "p", "uid": "u2"}, "node": {"name": "n", "uid": "u3"},
        })
    );
    let user = world.user(&token).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:default:robot", "u1"));
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    let id = format!("JTI={}", claims["jti"].as_str().unwrap());
    for (key, value) in
        [("pod-name", "p"), ("pod-uid", "u2"), ("node-name", "n"), ("node-uid", "u3"), ("credential-id", &id)]
    {
        assert_eq!(user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
}

#[tokio::test]
async fn token_becomes_invalid_with_its_account() {
    let world = world();
    let token = world.token(BoundObject::None).await;
    assert!(world.user(&token).await.unwrap().is_some());
    world.cluster.put("serviceaccounts", "default", "robot", "another");
    world.refused(&token, "service account UID (another) does not match claim (u1)").await;
    world.cluster.remove("serviceaccounts", "default", "robot");
    world.refused(&token, "\"robot\" not found").await;
}

#[tokio::test]
async fn token_becomes_invalid_with_its_bound_object() {
    let world = world();
    for (resource, namespace, bind) in [
        ("pods", "default", (|to| BoundObject::Pod(to, None)) as fn(Reference) -> BoundObject),
        ("secrets", "default", BoundObject::Secret),
        ("nodes", "", BoundObject::Node),
    ] {
        let mut object = world.cluster.put(resource, namespace, "x", "u2");
        let token = world.token(bind(Reference::to(&object))).await;
        let now = time::now();
        for (deleted, alive) in [(None, true), (Some(now), true), (Some(now.plus_seconds(-70)), false)] {
            if let Some(at) = deleted {
                object["metadata"]["deletionTimestamp"] = at.rfc3339().into();
                world.cluster.replace(resource, object.clone());
            }
            assert_eq!(world.user(&token).await.is_ok(), alive, "{resource} deleted at {deleted:?}");
        }
        world.cluster.put(resource, namespace, "x", "another");
        world.refused(&token, "UID (another) does not match").await;
        world.cluster.remove(resource, namespace, "x");
        world.refused(&token, "service account token has been invalidated").await;
    }
}

#[tokio::test]
async fn checks_times_and_audiences() {
    let world = world();
    let now = time::now().unix_seconds();
    let shifted =
        async |name: &'static str, by: i64| world.signed(|claims| claims[name] = (now + by).into()).await;
    assert!(
        world.user(&shifted("exp", -30).await).await.is_ok(),
        "a clock difference of a minute is tolerated"
    );
    world.refused(&shifted("exp", -90).await, "service account token has expired").await;
    assert!(world.user(&shifted("nbf", 30).await).await.is_ok());
    world.refused(&shifted("nbf", 90).await, "service account token is not valid yet").await;
    world.refused(&shifted("iat", 90).await, "service account token is issued in the future").await;
    for name in ["exp", "nbf", "iat"] {
        let odd = world.signed(|claims| claims[name] = "soon".into()).await;
        world.refused(&odd, "could not be validated").await;
    }
    let token = world.token(BoundObject::None).await;
    let error = world.user_for(&token, "vault").await.unwrap_err();
    assert_eq!(error, r#"token audiences ["api"] is invalid for the target audiences ["vault"]"#);
    let none = world.signed(|claims| drop(claims.as_object_mut().unwrap().remove("aud"))).await;
    world.refused(&none, "is invalid for the target audiences").await;
}

#[tokio::test]
async fn accepts_current_and_previous_issuers() {
    let world = world();
    let from = async |issuer: &'static str| world.signed(|claims| claims["iss"] = issuer.into()).await;
    assert!(world.user(&from("https://old").await).await.unwrap().is_some());
    assert_eq!(world.user(&from("https://other").await).await, Ok(None));
    assert_eq!(world.user(&from("").await).await, Ok(None));
}

#[tokio::test]
async fn rejects_foreign_unsigned_and_symmetric_signatures() {
    let world = world();
    let token = world.token(BoundObject::None).await;
    let other = SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap();
    world.refused(&other.sign(&payload(&token)).unwrap(), "signature").await;
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = payload(&token);
    claims["sub"] = "system:serviceaccount:kube-system:admin".into();
    claims["kubernetes.io"]["namespace"] = "kube-system".into();
    let changed = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    world.refused(&format!("{}.{changed}.{}", parts[0], parts[2]), "signature").await;
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert_eq!(world.user(&format!("{none}.{}.", parts[1])).await, Ok(None), "not a valid JWT");
    // An HS256 signature that uses the published key as the secret.
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let jwk = world.ring.get().await.verifying()[0].to_jwk().to_string();
    let signed = format!("{header}.{}", parts[1]);
    let tag = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, jwk.as_bytes()),
        signed.as_bytes(),
    );
    let confused = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref()));
    assert_eq!(world.user(&confused).await, Ok(None), "not a valid JWT");
}

#[tokio::test]
async fn extends_lifetime_of_projected_tokens() {
    let world = world();
    let pod = world.cluster.put("pods", "default", "p", "u2");
    let bound = || BoundObject::Pod(Reference::to(&pod), None);
    let api = ["api".to_owned()];
    let year = 365 * 24 * 3600;
    for (bound, audiences, seconds, holds) in [
        (bound(), &api[..], 3607, year),
        (bound(), &api, 3600, 3600),
        (bound(), &["vault".to_owned()], 3607, 3607),
        (BoundObject::None, &api, 3607, 3607),
    ] {
        let issued = world.issuer.issue(&world.account, bound, audiences, seconds).await.unwrap();
        let claims = payload(&issued.token);
        let at = |name: &str| claims[name].as_i64().unwrap();
        assert_eq!(at("exp") - at("iat"), holds);
        assert_eq!(
            issued.expires.unix_seconds() - at("iat"),
            seconds,
            "the client sees the nominal expiration"
        );
        let warn = claims["kubernetes.io"].get("warnafter").and_then(Value::as_i64);
        assert_eq!(warn, (holds == year).then(|| at("iat") + seconds));
    }
}

#[tokio::test]
async fn caps_lifetime_at_the_maximum() {
    let World { ring, account, .. } = world();
    let config = IssuerConfig { max_expiration_seconds: Some(7200), ..IssuerConfig::default() };
    let issuer = Issuer::new(config, ring);
    for (requested, given) in [(3600, 3600), (7200, 7200), (7201, 7200)] {
        let issued = issuer.issue(&account, BoundObject::None, &[], requested).await.unwrap();
        assert_eq!(issued.expiration_seconds, given);
    }
}

#[tokio::test]
async fn legacy_token_is_valid_while_its_secret_holds_it() {
    let world = world();
    let mut secret = world.cluster.put("secrets", "default", "robot-token", "u4");
    let token = world.issuer.issue_legacy(&world.account, &secret).await.unwrap();
    let authenticate = async || {
        let found = world.legacy.authenticate_token(&token, &["api".to_owned()]).await;
        found.map(|found| found.unwrap().user.name.clone()).map_err(|error| error.to_string())
    };
    assert_eq!(authenticate().await, Err("Token does not match server's copy".into()));
    secret["data"] = json!({"token": BASE64_STANDARD.encode(&token)});
    world.cluster.replace("secrets", secret.clone());
    assert_eq!(authenticate().await, Ok("system:serviceaccount:default:robot".into()));
    let mut ended = secret.clone();
    ended["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-invalid-since": "2026-01-01"});
    world.cluster.replace("secrets", ended);
    assert!(authenticate().await.unwrap_err().contains("has been marked invalid"));
    world.cluster.replace("secrets", secret);
    world.cluster.put("serviceaccounts", "default", "robot", "another");
    assert!(authenticate().await.unwrap_err().contains("does not match claim"));
    world.cluster.remove("secrets", "default", "robot-token");
    assert_eq!(authenticate().await, Err("Token has been invalidated".into()));
    assert_eq!(
        world.user(&token).await,
        Ok(None),
        "bound and legacy authenticators reject each other's tokens"
    );
}

#[tokio::test]
async fn discovery_documents_verify_tokens() {
    let world = world();
    let discovery = discovery::Discovery {
        issuer: ISSUER.into(),
        jwks_uri: "https://x/openid/v1/jwks".into(),
        keys: world.ring.clone(),
    };
    let configuration = discovery.configuration().await;
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["RS256"]));
    let set = discovery.key_set().await;
    let key = crate::jwt::PublicKey::from_jwk(&set["keys"][0]).unwrap();
    let token = world.token(BoundObject::None).await;
    let parsed = crate::jwt::Unverified::parse(&token).unwrap();
    assert_eq!(parsed.key_id, key.id);
    assert!(parsed.verify([&key]).is_some());
}

#[test]
fn user_names_round_trip() {
    assert_eq!(split_user_name(&user_name("ns", "robot")), Some(("ns", "robot")));
    for other in
        ["alice", "system:serviceaccount:ns", "system:serviceaccount::a", "system:serviceaccount:a:b:c"]
    {
        assert_eq!(split_user_name(other), None, "{other}");
    }
}
