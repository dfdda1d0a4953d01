use std::process::Command;

use serde_json::json;

use super::*;

/// Generates a key with openssl.
fn openssl(arguments: &[&str]) -> String {
    let ran = Command::new("openssl").args(arguments).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn keys() -> Vec<(Algorithm, String)> {
    vec![
        (Algorithm::Rs256, generate_rsa_pem().unwrap()),
        (Algorithm::Rs256, openssl(&["genrsa", "-traditional", "2048"])),
        (Algorithm::Es256, openssl(&["ecparam", "-name", "prime256v1", "-genkey"])),
        (Algorithm::Es384, openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-noout"])),
        (Algorithm::Es512, openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"])),
    ]
}

#[test]
fn only_the_matching_public_key_verifies() {
    let keys: Vec<_> =
        keys().into_iter().map(|(kind, pem)| (kind, SigningKey::from_pem(pem.as_bytes()).unwrap())).collect();
    let claims = json!({"iss": "me", "aud": ["a", "b"], "exp": 1.5});
    for (at, (algorithm, key)) in keys.iter().enumerate() {
        let token = key.sign(&claims).unwrap();
        for (other, (_, public)) in keys.iter().enumerate() {
            let parsed = Unverified::parse(&token).unwrap();
            assert_eq!((parsed.algorithm, parsed.claimed_issuer()), (*algorithm, "me"));
            assert_eq!(parsed.key_id, key.public().id);
            let verified = parsed.verify([public.public()]);
            assert_eq!(verified.is_some(), at == other);
            if let Some(found) = verified {
                assert_eq!((found.audiences(), found.time("exp")), (vec!["a".into(), "b".into()], Some(1.5)));
            }
        }
    }
}

#[test]
fn key_round_trips_through_a_key_set() {
    for (_, pem) in keys() {
        let key = SigningKey::from_pem(pem.as_bytes()).unwrap();
        let public = public_keys_from_pem(pem.as_bytes()).unwrap();
        assert_eq!(public, [key.public().clone()]);
        let jwk = key.public().to_jwk();
        let back = PublicKey::from_jwk(&jwk).unwrap();
        let token = key.sign(&json!({})).unwrap();
        assert!(Unverified::parse(&token).unwrap().verify([&back]).is_some());
        let mut other = jwk.clone();
        other["alg"] = "PS256".into();
        let back = PublicKey::from_jwk(&other).unwrap();
        assert!(
            Unverified::parse(&token).unwrap().verify([&back]).is_none(),
            "only the algorithm of the key set is accepted"
        );
        other["use"] = "enc".into();
        assert_eq!(PublicKey::from_jwk(&other), None);
    }
}

#[test]
fn rejects_a_changed_token() {
    let key = SigningKey::from_pem(keys()[2].1.as_bytes()).unwrap();
    let token = key.sign(&json!({"sub": "alice"})).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let verified =
        |token: &str| Unverified::parse(token).and_then(|parsed| parsed.verify([key.public()])).is_some();
    assert!(verified(&token));
    let (none, shared) = (part(json!({"alg": "none"})), part(json!({"alg": "HS256"})));
    for wrong in [
        format!("{}.{}.{}", parts[0], part(json!({"sub": "bob"})), parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{shared}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", part(json!({"alg": "ES384"})), parts[1], parts[2]),
        format!("{}.{}.{}", part(json!({"alg": "ES256", "crit": ["x"]})), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}.{}", parts[2]),
        format!("{token}AAAA"),
        token[..token.len() - 2].to_owned(),
        String::new(),
        "..".to_owned(),
        ".".repeat(10 << 20),
    ] {
        assert!(!verified(&wrong), "{}", &wrong[..wrong.len().min(200)]);
    }
}

#[test]
fn rejects_weak_and_unsupported_keys() {
    let small = openssl(&["genrsa", "1024"]);
    assert_eq!(SigningKey::from_pem(small.as_bytes()).unwrap_err(), KeyError::Unknown);
    let edwards = openssl(&["genpkey", "-algorithm", "ed25519"]);
    assert_eq!(public_keys_from_pem(edwards.as_bytes()), Err(KeyError::Unknown));
    assert_eq!(public_keys_from_pem(b"nothing"), Err(KeyError::None));
    let two = keys()[2].1.clone() + &keys()[3].1;
    assert_eq!(SigningKey::from_pem(two.as_bytes()).unwrap_err(), KeyError::Several);
    assert_eq!(public_keys_from_pem(two.as_bytes()).unwrap().len(), 2);
}

proptest::proptest! {
    /// Arbitrary text never causes a panic and is never accepted.
    #[test]
    fn arbitrary_text_never_panics_and_is_never_accepted(text in ".{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,60}", 1..5)) {
        let key = shared();
        for token in [text, parts.join(".")] {
            let verified = Unverified::parse(&token).and_then(|parsed| parsed.verify([key.public()]));
            proptest::prop_assert_eq!(verified, None);
        }
    }

    /// A token with one changed character fails verification.
    #[test]
    fn rejects_token_with_one_changed_character(at in 0_usize..400, with in "[A-Za-z0-9_.-]") {
        let key = shared();
        let token = key.sign(&json!({"sub": "alice", "exp": 1})).unwrap();
        let at = at % token.len();
        let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        let verified = Unverified::parse(&changed).and_then(|parsed| parsed.verify([key.public()]));
        // Also holds for the last base64 character, as its unused bits must be zero.
        proptest::prop_assert_eq!(verified.is_some(), changed == token, "{} at {}", with, at);
    }
}

/// One key shared by many cases.
fn shared() -> SigningKey {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    SigningKey::from_pem(pem.as_bytes()).unwrap()
}
