//! Measures the cost of authentication per request: `cargo run --release -p nave-authn --example cost`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example that measures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use nave_authn::jwt::{SigningKey, generate_rsa_pem};
use nave_authn::service_account::{BoundObject, BoundTokens, Issuer, IssuerConfig, KeyRing, Keys};
use nave_authn::{
    BearerTokens, CachedTokens, Chain, ClientCa, ClientCertificates, Credentials, Objects, PeerCertificate,
    StaticTokens, TokenAuthenticator, TokenUnion,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::{Value, json};

/// Requests per measurement.
const ROUNDS: u32 = 20_000;

struct Robot;

impl Objects for Robot {
    fn get(&self, _: &str, _: &str, _: &str) -> Option<Value> {
        Some(account())
    }
}

fn account() -> Value {
    json!({"metadata": {"name": "robot", "namespace": "default", "uid": "u1"}})
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let audiences = vec!["api".to_owned()];
    let key = SigningKey::from_pem(generate_rsa_pem().unwrap().as_bytes()).unwrap();
    let keys = Arc::new(KeyRing::new(Keys::new(key, Vec::new())));
    let config =
        IssuerConfig { issuer: "https://i".into(), audiences: audiences.clone(), ..IssuerConfig::default() };
    let issuer = Issuer::new(config, Arc::clone(&keys));
    let token = issuer.issue(&account(), BoundObject::None, &audiences, 3600).await.unwrap().token;
    let fixed = StaticTokens::parse("s3cret,alice,1,dev").unwrap().for_audiences(audiences.clone());
    let bound = BoundTokens::new(vec!["https://i".into()], keys, Arc::new(Robot));
    let kinds: Arc<dyn TokenAuthenticator> =
        Arc::new(TokenUnion::new(vec![Arc::new(fixed), Arc::new(bound)]));
    let ttl = Duration::from_hours(1);
    let cached: Arc<dyn TokenAuthenticator> =
        Arc::new(CachedTokens::new(Arc::clone(&kinds), ttl, Duration::ZERO));
    let (peer, ca) = certificate();

    for (what, tokens, token, peer) in [
        ("static token, cached", &cached, Some("s3cret"), None),
        ("service account token, cached", &cached, Some(token.as_str()), None),
        ("service account token, verified", &kinds, Some(token.as_str()), None),
        ("client certificate of a connection", &cached, None, Some(&peer)),
    ] {
        let chain = Chain::new(vec![
            Arc::new(ClientCertificates::new(Arc::clone(&ca))),
            Arc::new(BearerTokens::new(Arc::clone(tokens), audiences.clone())),
        ]);
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        }
        let credentials = Credentials { peer, headers: &headers, path: "/" };
        let started = Instant::now();
        for _ in 0..ROUNDS {
            chain.authenticate(&credentials).await.unwrap();
        }
        println!("{what}: {:.2} µs", started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    }
}

fn certificate() -> (PeerCertificate, Arc<ClientCa>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &root).unwrap();
    let ca = ClientCa::new(vec![root.der().clone()]).unwrap();
    (PeerCertificate::presented(vec![leaf.der().clone()]), Arc::new(ca))
}
