//! Credentials in headers, and JSON Web Tokens: arbitrary credentials never authenticate.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use nave_authn::jwt::{SigningKey, Unverified, generate_rsa_pem};
use nave_authn::{Authenticator, BearerTokens, Credentials, StaticTokens};

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_pem(generate_rsa_pem().expect("a key").as_bytes()).expect("a key"));
static TOKENS: LazyLock<BearerTokens> = LazyLock::new(|| {
    let audiences = vec!["api".to_owned()];
    // Longer than any token the fuzzer can generate.
    let known = StaticTokens::parse(format!("{},alice,1", "k".repeat(512))).expect("tokens");
    BearerTokens::new(Arc::new(known.for_audiences(audiences.clone())), audiences)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(token) = Unverified::parse(text)
    {
        let _ = token.claimed_issuer();
        assert!(token.verify([KEY.public()]).is_none());
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        let Some((kind, value)) = line.split_first() else { continue };
        let name = if kind % 2 == 0 { header::AUTHORIZATION } else { header::SEC_WEBSOCKET_PROTOCOL };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let credentials = Credentials { peer: None, headers: &headers, path: "/" };
    let found = futures_executor::block_on(TOKENS.authenticate(&credentials));
    assert!(!matches!(found, Ok(Some(_))));
    TOKENS.strip(&mut headers);
    assert!(!headers.contains_key(header::AUTHORIZATION));
});
