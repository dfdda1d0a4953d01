//! JSON web tokens with asymmetric signatures (RFC 7515, 7518, 7519).
//!
//! Uses the cryptography library of the TLS stack. Kubernetes also signs with ES512, which the common JWT crate does
//! not support. Symmetric algorithms and `none` are not supported, and each key verifies only its own algorithms, so a
//! token cannot choose how it is verified.

mod algorithm;
mod key;
mod signing;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_machinery::{Map, Value};

pub use algorithm::Algorithm;
pub use key::{KeyError, PublicKey, public_keys_from_pem};
pub use signing::{SigningKey, generate_rsa_pem};

/// The maximum length of a token, in bytes. Longer tokens are not parsed.
pub const MAX_TOKEN_BYTES: usize = 256 << 10;

/// A parsed token whose signature has not been verified.
pub struct Unverified<'a> {
    /// The algorithm in the header.
    pub algorithm: Algorithm,
    /// The key id in the header; may be empty.
    pub key_id: String,
    claims: Map,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Parses a token; `None` if it is not a JWT or its algorithm is not supported.
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let (header, claims) = (object(header)?, object(claims)?);
        // Tokens with critical extensions are refused, as none is supported.
        if header.contains_key("crit") {
            return None;
        }
        let text = |name| header.get(name).and_then(Value::as_str);
        Some(Self {
            algorithm: Algorithm::from_name(text("alg")?)?,
            key_id: text("kid").unwrap_or_default().to_owned(),
            claims,
            signed: signed.as_bytes(),
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// The unverified claim `iss`. Must only be used to select the authenticator.
    pub fn claimed_issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the claims if the signature is valid for one of the keys.
    pub fn verify<'k>(self, keys: impl IntoIterator<Item = &'k PublicKey>) -> Option<Claims> {
        let Self { algorithm, claims, signed, signature, .. } = self;
        let signs = |key: &PublicKey| key.verifies(algorithm, signed, &signature);
        keys.into_iter().any(signs).then_some(Claims(claims))
    }
}

/// Claims of a token with a verified signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map);

impl Claims {
    /// Returns a claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns a string claim; empty if it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns a time claim, in seconds since 1970.
    pub fn time(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_f64)
    }

    /// The audiences: the claim is a string or a list.
    pub fn audiences(&self) -> Vec<String> {
        match self.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Sets a claim that was verified separately.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// All claims.
    pub fn as_map(&self) -> &Map {
        &self.0
    }
}

fn object(part: &str) -> Option<Map> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
