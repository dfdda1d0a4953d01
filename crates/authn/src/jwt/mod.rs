//! JSON web tokens, signed with a private key (RFC 7515, 7518, 7519).
//!
//! Written on the cryptography that TLS uses already, because Kubernetes signs with ES512 too, which the usual crate
//! does not know. There is no algorithm here that works with a shared secret and none that signs nothing, and each
//! key fits its own algorithms only: a token cannot choose how it is checked.

mod algorithm;
mod key;
mod signing;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_machinery::{Map, Value};

pub use algorithm::Algorithm;
pub use key::{KeyError, PublicKey, public_keys_from_pem};
pub use signing::{SigningKey, generate_rsa_pem};

/// A token longer than this is nobody's, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256 << 10;

/// A token as it came, before its signature was checked.
pub struct Unverified<'a> {
    /// How it says it is signed.
    pub algorithm: Algorithm,
    /// The key it says it is signed with; may be empty.
    pub key_id: String,
    claims: Map,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Reads a token; `None` if it is none, or is signed in a way that is never believed.
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let (header, claims) = (object(header)?, object(claims)?);
        // Extensions that must be understood are not.
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

    /// The issuer the token claims, to find out who has to check it.
    pub fn claimed_issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// The claims, if one of the keys has signed them.
    pub fn verify<'k>(self, keys: impl IntoIterator<Item = &'k PublicKey>) -> Option<Claims> {
        let Self { algorithm, claims, signed, signature, .. } = self;
        let signs = |key: &PublicKey| key.verifies(algorithm, signed, &signature);
        keys.into_iter().any(signs).then_some(Claims(claims))
    }
}

/// Claims whose signature was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map);

impl Claims {
    /// One claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that is text; empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A time, in seconds since 1970.
    pub fn time(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_f64)
    }

    /// Whom the token is for: one, or several.
    pub fn audiences(&self) -> Vec<String> {
        match self.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Puts a claim in that was checked by other means.
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
