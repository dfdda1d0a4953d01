//! Private keys that sign tokens.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_machinery::Value;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::json;

use super::{KeyError, PublicKey};

const CURVES: [&EcdsaSigningAlgorithm; 3] =
    [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED_SIGNING];
/// Characters per line of a PEM file.
const PEM_LINE: usize = 64;

/// A key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl SigningKey {
    /// Parses a PEM file with exactly one key.
    ///
    /// # Errors
    /// The file does not contain exactly one key, or the kind of key is not supported.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| KeyError::Unknown)?;
            if matches!(
                kind,
                SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey
            ) {
                if found.is_some() {
                    return Err(KeyError::Several);
                }
                found = Some(Self::from_section(kind, &der)?);
            }
        }
        found.ok_or(KeyError::None)
    }

    pub(super) fn from_section(kind: SectionKind, der: &[u8]) -> Result<Self, KeyError> {
        let rsa = match kind {
            SectionKind::RsaPrivateKey => RsaKeyPair::from_der(der).ok(),
            SectionKind::PrivateKey => RsaKeyPair::from_pkcs8(der).ok(),
            _ => None,
        };
        let pair = rsa.map(Pair::Rsa).or_else(|| {
            let read = |curve| match kind {
                SectionKind::EcPrivateKey => EcdsaKeyPair::from_private_key_der(curve, der).ok(),
                _ => EcdsaKeyPair::from_pkcs8(curve, der).ok(),
            };
            CURVES.into_iter().find_map(read).map(Pair::Ec)
        });
        let pair = pair.ok_or(KeyError::Unknown)?;
        let spki: Result<PublicKeyX509Der<'_>, Unspecified> = match &pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
        };
        let public = PublicKey::from_spki(spki.map_err(|_| KeyError::Unknown)?.as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public half, with upstream's key id.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims with RS256, ES256, ES384 or ES512, depending on the key.
    ///
    /// # Errors
    /// The cryptography library fails, which happens only without a source of randomness.
    pub fn sign(&self, claims: &Value) -> Result<String, Unspecified> {
        let header = json!({"alg": self.public.algorithm().name(), "kid": self.public.id});
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)?;
                signature
            }
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), signed.as_bytes())?.as_ref().to_vec(),
        };
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Generates an RSA key of 2048 bits, in PEM.
///
/// # Errors
/// The cryptography library fails, which happens only without a source of randomness.
pub fn generate_rsa_pem() -> Result<String, Unspecified> {
    let der: Pkcs8V1Der<'_> = RsaKeyPair::generate(KeySize::Rsa2048)?.as_der()?;
    let text = BASE64_STANDARD.encode(der.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % PEM_LINE == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    Ok(pem)
}
