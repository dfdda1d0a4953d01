//! Attacks on authentication and authorization.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_authn::jwt::{SigningKey, generate_rsa_pem};
use nave_tests::Server;
use serde_json::{Value, json};

use super::Caller;

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn rejects_forged_tokens() {
    let server = Server::start().await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    let token = token.trim();
    let caller = Caller::without_certificate(&server);
    assert!(caller.token(token).await.is_ok());
    let claims = payload(token);
    let parts: Vec<&str> = token.split('.').collect();
    let pki = server.folder().join("data/pki");
    let right = SigningKey::from_pem(&std::fs::read(pki.join("sa.key")).unwrap()).unwrap();
    let wrong = SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap();
    let changed = |change: fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        claims
    };
    assert!(caller.token(&right.sign(&claims).unwrap()).await.is_ok(), "the signature is valid");
    let admin = changed(|claims| {
        claims["sub"] = "system:serviceaccount:kube-system:admin".into();
        claims["kubernetes.io"]["namespace"] = "kube-system".into();
    });
    // Uses the public key, which every client can get, as a symmetric secret.
    let header = encode(&json!({"alg": "HS256", "kid": right.public().id}));
    let signed = format!("{header}.{}", parts[1]);
    let public = std::fs::read(pki.join("ca.crt")).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), signed.as_bytes());
    for (what, forged) in [
        ("no signature", format!("{}.{}.", encode(&json!({"alg": "none"})), parts[1])),
        ("no signature, and one", format!("{}.{}.{}", encode(&json!({"alg": "none"})), parts[1], parts[2])),
        ("none in other letters", format!("{}.{}.", encode(&json!({"alg": "nOnE"})), parts[1])),
        ("a shared secret", format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref()))),
        ("another key", wrong.sign(&claims).unwrap()),
        ("another's claims", format!("{}.{}.{}", parts[0], encode(&admin), parts[2])),
        ("an account that is not there", right.sign(&admin).unwrap()),
        ("over", right.sign(&changed(|claims| claims["exp"] = 1_600_000_000.into())).unwrap()),
        ("not yet", right.sign(&changed(|claims| claims["nbf"] = 9_600_000_000_i64.into())).unwrap()),
        ("for others", right.sign(&changed(|claims| claims["aud"] = json!(["vault"]))).unwrap()),
        ("for nobody", right.sign(&changed(|claims| claims["aud"] = json!([]))).unwrap()),
        ("of another issuer", right.sign(&changed(|claims| claims["iss"] = "https://x".into())).unwrap()),
        (
            "another uid",
            right
                .sign(&changed(|claims| claims["kubernetes.io"]["serviceaccount"]["uid"] = "1".into()))
                .unwrap(),
        ),
        ("an empty one", String::from(".")),
    ] {
        assert_eq!(caller.token(&forged).await, Err(401), "{what}");
    }
}

#[tokio::test]
async fn rejects_smuggled_and_oversized_credentials() {
    let server = Server::start().await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    let right = format!("Bearer {}", token.trim());
    let caller = Caller::without_certificate(&server);
    for other in ["Bearer other", "Basic YTpi", &right] {
        for pair in [[right.as_str(), other], [other, right.as_str()]] {
            let headers = pair.map(|value| ("authorization", value));
            assert_eq!(caller.user(&headers).await, Err(401), "two headers, the other one {other:.12}");
        }
    }
    let huge = format!("Bearer {}", "a".repeat(10 << 20));
    let answer = caller.get("/healthz", &[("authorization", &huge)]).await;
    assert!(matches!(answer, None | Some(400 | 401 | 431)), "{answer:?}");
    let large = format!("Bearer {}.{}.{}", "a".repeat(100_000), "b".repeat(100_000), "c".repeat(100_000));
    assert_eq!(caller.get("/healthz", &[("authorization", &large)]).await, Some(401));
    assert!(caller.user(&[("authorization", &right)]).await.is_ok(), "the server still works");
}

#[tokio::test]
async fn paths_cannot_bypass_authorization() {
    let server = Server::start().await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    let robot = format!("Bearer {}", token.trim());
    let caller = Caller::without_certificate(&server);
    for path in [
        "/api/v1/namespaces/default/secrets",
        "//api/v1/namespaces/default/secrets",
        "/api//v1/namespaces/default/secrets",
        "/api/v1//namespaces/default/secrets",
        "/healthz/../api/v1/namespaces/default/secrets",
        "/healthz/..%2fapi/v1/namespaces/default/secrets",
        "/healthz%2f..%2fapi%2fv1%2fnamespaces%2fdefault%2fsecrets",
        "/api/v1/namespaces/default/%2e%2e/kube-system/secrets",
        "/api/v1/namespaces/default%2f..%2fkube-system/secrets",
        "/api/v1/namespaces/default/secrets/..%2fconfigmaps",
        "/API/v1/namespaces/default/secrets",
        "/api/v1/namespaces/default/Secrets",
        "/api/v1/namespaces/default/secrets/",
        "/./api/v1/secrets",
        "/api/v1/watch/secrets",
        "/version/../metrics",
        "/healthz//../../metrics",
    ] {
        for headers in [&[][..], &[("authorization", robot.as_str())]] {
            let status = caller.get(path, headers).await.unwrap();
            assert!(matches!(status, 400 | 401 | 403 | 404), "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn impersonation_requires_the_right() {
    let server = Server::start().await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    let token = server.kubectl(&["create", "token", "robot"]).await;
    let robot = format!("Bearer {}", token.trim());
    let caller = Caller::without_certificate(&server);
    let as_ = async |more: &[(&str, &str)]| {
        let mut headers = vec![("authorization", robot.as_str())];
        headers.extend(more);
        caller.user(&headers).await
    };
    let admin = [("impersonate-user", "admin"), ("impersonate-group", "system:masters")];
    assert_eq!(as_(&admin).await, Err(403));
    assert_eq!(as_(&admin[1..]).await, Err(400));
    assert_eq!(caller.get("/healthz", &admin).await, Some(403), "nor may nobody in particular");
    server
        .kubectl(&[
            "create",
            "clusterrole",
            "as-bob",
            "--verb=impersonate",
            "--resource=users",
            "--resource-name=bob",
        ])
        .await;
    server
        .kubectl(&[
            "create",
            "clusterrolebinding",
            "as-bob",
            "--clusterrole=as-bob",
            "--serviceaccount=default:robot",
        ])
        .await;
    let bob = [("impersonate-user", "bob")];
    nave_tests::eventually("the right is known", async || as_(&bob).await.is_ok()).await;
    assert_eq!(as_(&bob).await.unwrap(), ("bob".to_owned(), vec!["system:authenticated".to_owned()]));
    for more in [
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "1"),
        ("impersonate-extra-scopes", "all"),
    ] {
        assert_eq!(as_(&[bob[0], more]).await, Err(403), "{more:?}");
    }
    assert_eq!(as_(&[("impersonate-user", "system:serviceaccount:kube-system:x")]).await, Err(403));
    let error = server.kubectl_fails(&["get", "pods", "--as=carol"]).await;
    assert!(error.contains("User \"carol\" cannot list resource \"pods\""), "{error}");
}

/// Anonymous requests are rejected with AlwaysAllow.
#[tokio::test]
async fn refuses_anonymous_requests_with_always_allow() {
    for flags in [
        &["--authorization-mode=AlwaysAllow"][..],
        &["--authorization-mode=RBAC,AlwaysAllow", "--anonymous-auth=true"],
    ] {
        let server = Server::start_with(flags).await;
        let caller = Caller::without_certificate(&server);
        for path in ["/healthz", "/api/v1/secrets", "/api"] {
            assert_eq!(caller.get(path, &[]).await, Some(401), "{path} with {flags:?}");
        }
        assert!(server.log().contains("anonymous authentication is not allowed"), "{}", server.log());
        server.kubectl(&["get", "secrets", "--all-namespaces"]).await;
    }
}
