//! Measures whether the time to refuse a token reveals how many of its bytes are correct:
//! `cargo run --release -p nave-authn --example timing`.
//!
//! Presents tokens that differ from a valid one in the first, a middle or the last byte, in turn and many times. A
//! comparison that stops at the first difference takes nanoseconds longer for each matching byte. Each row shows the
//! medians, and Welch's t for the first byte against the last, without the slowest tenth of the batches. A value above
//! 4.5, the usual threshold of such tests, means that the times are distinguishable.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example that measures")]

use std::hint::black_box;
use std::time::Instant;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_authn::jwt::{PublicKey, SigningKey, Unverified, generate_rsa_pem};
use nave_authn::{StaticTokens, TokenAuthenticator};
use serde_json::json;

const BATCHES: usize = 2_000;
/// Refusals per timed batch.
const PER_BATCH: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let secret = "k".repeat(1_000);
    let tokens =
        StaticTokens::parse(format!("{secret},alice,1")).unwrap().for_audiences(vec!["api".to_owned()]);
    let audiences = ["api".to_owned()];
    let accepts =
        |token: &str| runtime.block_on(tokens.authenticate_token(token, &audiences)).unwrap().is_some();
    assert!(accepts(&secret));
    let wrong_at = |at: usize| {
        let mut token = secret.clone();
        token.replace_range(at..=at, "x");
        token
    };
    measure("static token of 1,000 bytes", &[0, 500, 999].map(wrong_at), |token| !accepts(token));

    let rsa = generate_rsa_pem().unwrap();
    for (what, pem) in [("RS256", rsa), ("ES256", rcgen::KeyPair::generate().unwrap().serialize_pem())] {
        let key = SigningKey::from_pem(pem.as_bytes()).unwrap();
        let token = key.sign(&json!({"iss": "https://i", "sub": "alice"})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        let wrong_at = |at: usize| {
            let mut signature = signature.clone();
            signature[at] ^= 1;
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        };
        let (middle, last) = (signature.len() / 2, signature.len() - 1);
        let public = [key.public().clone()];
        let refuses = |token: &str| verify(token, &public).is_none();
        assert!(!refuses(&token));
        measure(&format!("signature, {what}"), &[0, middle, last].map(wrong_at), refuses);
    }
}

fn verify(token: &str, keys: &[PublicKey]) -> Option<nave_authn::jwt::Claims> {
    Unverified::parse(token)?.verify(keys)
}

fn measure(what: &str, tokens: &[String; 3], refuses: impl Fn(&str) -> bool) {
    let mut times = [const { Vec::new() }; 3];
    for batch in 0..BATCHES {
        for turn in 0..tokens.len() {
            // Rotates the order, so that each token comes first equally often.
            let which = (batch + turn) % tokens.len();
            let started = Instant::now();
            for _ in 0..PER_BATCH {
                assert!(refuses(black_box(&tokens[which])));
            }
            times[which].push(started.elapsed().as_secs_f64() * 1e9 / PER_BATCH as f64);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
        times.truncate(BATCHES * 9 / 10);
    }
    let [first, middle, last] = times.each_ref().map(|times| times[times.len() / 2]);
    let t = welch(&times[0], &times[2]);
    println!(
        "{what:28} wrong at first {first:8.0} ns, middle {middle:8.0} ns, last {last:8.0} ns, t {t:5.2}"
    );
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let variance = |values: &[f64], mean: f64| {
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
    };
    let error = variance(a, mean_a) / a.len() as f64 + variance(b, mean_b) / b.len() as f64;
    (mean_a - mean_b) / error.sqrt()
}
