//! External authenticators: identity providers and a webhook.

use std::path::Path;

use bytes::Bytes;
use http::Response;
use nave_authn::jwt::{SigningKey, generate_rsa_pem};
use nave_tests::{Server, eventually};
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::Caller;

/// Starts an identity provider that signs with a real key.
async fn provider(key: &SigningKey) -> HttpsServer {
    let set = json!({"keys": [key.public().to_jwk()]}).to_string();
    HttpsServer::start(move |request| {
        let url = format!("https://{}", request.headers()["host"].to_str().unwrap());
        Response::new(match request.uri().path() {
            "/keys" => Bytes::from(set.clone()),
            _ => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string().into(),
        })
    })
    .await
}

fn key() -> SigningKey {
    SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn configure(path: &Path, issuers: &[(&HttpsServer, &str)], anonymous: &str) {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n";
    let issuers = issuers.iter().map(|(provider, prefix)| {
        let (url, ca) = (provider.url(""), provider.ca.replace('\n', "\n      "));
        format!(
            "- issuer:\n    url: '{url}'\n    audiences: [nave]\n    certificateAuthority: |\n      {ca}\n  \
             claimMappings:\n    username: {{expression: '\"{prefix}\" + claims.sub'}}\n    groups: {{claim: groups, prefix: ''}}\n  \
             claimValidationRules: [{{expression: 'claims.?tenant.orValue(\"\") == \"t1\"', message: wrong tenant}}]\n  \
             userValidationRules: [{{expression: '!user.groups.exists(g, g.startsWith(\"system:\"))', message: reserved}}]\n"
        )
    });
    std::fs::write(path, [head.to_owned(), issuers.collect(), anonymous.to_owned()].concat()).unwrap();
}

#[tokio::test]
async fn follows_authentication_config() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let (one_key, two_key) = (key(), key());
    let (one, two) = (provider(&one_key).await, provider(&two_key).await);
    configure(&file, &[(&one, "one:")], "anonymous: {enabled: true, conditions: [{path: /livez}]}\n");
    let server = Server::start_in(folder, &[&format!("--authentication-config={}", file.display())]).await;
    let caller = Caller::without_certificate(&server);
    let token = |provider: &HttpsServer, key: &SigningKey, change: fn(&mut Value)| {
        let mut claims = json!({
            "iss": provider.url(""), "aud": ["nave"], "exp": now() + 600, "sub": "alice", "groups": ["dev"],
            "tenant": "t1",
        });
        change(&mut claims);
        key.sign(&claims).unwrap()
    };
    let (alice, other) = (token(&one, &one_key, |_| {}), token(&two, &two_key, |_| {}));
    assert_eq!(caller.token(&alice).await.as_deref(), Ok("one:alice"));
    assert_eq!(caller.token(&other).await, Err(401));
    for change in [
        (|claims| claims["exp"] = (now() - 1).into()) as fn(&mut Value),
        |claims| claims["nbf"] = (now() + 1000).into(),
        |claims| claims["aud"] = "others".into(),
        |claims| claims["iss"] = "https://issuer.example".into(),
        |claims| claims["tenant"] = "t2".into(),
        |claims| claims["groups"] = json!(["system:masters"]),
    ] {
        assert_eq!(caller.token(&token(&one, &one_key, change)).await, Err(401));
    }
    assert_eq!(caller.token(&token(&one, &two_key, |_| {})).await, Err(401), "another's key");
    assert_eq!(caller.get("/livez", &[]).await, Some(200));
    assert_eq!(caller.get("/version", &[]).await, Some(401));

    configure(&file, &[(&two, "two:")], "");
    eventually("the other issuer is believed", async || caller.token(&other).await.is_ok()).await;
    assert_eq!(caller.token(&other).await.as_deref(), Ok("two:alice"));
    assert_eq!(
        caller.get("/version", &[]).await,
        Some(200),
        "nothing is said of anonymous requests any more"
    );
    assert_eq!(caller.token(&token(&one, &one_key, |claims| claims["sub"] = "bob".into())).await, Err(401));
    let counted = async |status: &str, count: &str| {
        let name = "apiserver_authentication_config_controller_automatic_reloads_total{";
        let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
        let mut lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(status));
        lines.any(|line| line.ends_with(count))
    };
    assert!(counted("success", " 1").await && !counted("failure", " 1").await);
    std::fs::write(&file, "nonsense").unwrap();
    eventually("the mistake is counted", async || counted("failure", " 1").await).await;
    // A claim that is not a boolean cannot be used as a rule.
    configure(&file, &[(&two, "two:")], "");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("claims.?tenant.orValue(\"\") == \"t1\"", "claims.tenant")).unwrap();
    eventually("this one too", async || server.log().contains("must evaluate to bool but got dyn")).await;
    assert_eq!(caller.token(&other).await.as_deref(), Ok("two:alice"), "what cannot be used changes nothing");
}

#[tokio::test]
async fn authenticates_tokens_with_a_webhook() {
    let folder = tempdir().unwrap();
    let webhook = HttpsServer::start_for_clients(|request| {
        let mut review: Value = serde_json::from_slice(request.body()).unwrap();
        let user = json!({"username": "alice", "groups": ["dev"], "extra": {"example.com/k": ["v"]}});
        review["status"] = if review["spec"]["token"] == "opaque" {
            json!({"authenticated": true, "user": user})
        } else {
            json!({"authenticated": false})
        };
        Response::new(review.to_string().into())
    })
    .await;
    let show = "client-certificate: client.crt, client-key: client.key";
    let file = webhook.write_kubeconfig(folder.path(), "certificate-authority: ca.crt", show);
    let flag = format!("--authentication-token-webhook-config-file={}", file.display());
    let server = Server::start_in(
        folder,
        &[&flag, "--authentication-token-webhook-version=v1", "--anonymous-auth=false"],
    )
    .await;
    let caller = Caller::without_certificate(&server);
    assert_eq!(caller.token("opaque").await.as_deref(), Ok("alice"));
    assert_eq!(caller.token("unknown").await, Err(401));
    assert_eq!(caller.get("/healthz", &[]).await, Some(401), "nobody is anonymous");
    drop(webhook);
    assert_eq!(caller.token("opaque").await.as_deref(), Ok("alice"), "remembered while the webhook is away");
}
