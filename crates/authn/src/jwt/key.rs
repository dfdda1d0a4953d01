//! Public keys from PEM files, JSON web key sets and DER.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nave_machinery::Value;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::Scheme;
use super::{Algorithm, SigningKey};

/// The reasons why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The input contains no key.
    #[error("no key in PEM form")]
    None,
    /// The key is of an unsupported kind, or malformed.
    #[error("unsupported key: must be RSA with at least 2048 bits, or on the curve P-256, P-384 or P-521")]
    Unknown,
    /// The input contains several keys where exactly one is expected.
    #[error("more than one key")]
    Several,
}

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The key id in tokens: a hash of the key as in upstream, or the id in the key set; may be empty.
    pub id: String,
    /// The only allowed algorithm, if the key set restricts the key to one.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point on the algorithm's curve, uncompressed.
    Ec {
        algorithm: Algorithm,
        point: Vec<u8>,
    },
}

impl PublicKey {
    /// Parses a `SubjectPublicKeyInfo`. The id is a hash of its bytes, as in upstream.
    ///
    /// # Errors
    /// The kind of key is not supported.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Unknown)?;
        let material = match info.parsed().map_err(|_| KeyError::Unknown)? {
            Parsed::RSA(rsa) => Material::rsa(rsa.modulus, rsa.exponent).ok_or(KeyError::Unknown)?,
            Parsed::EC(point) => {
                let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
                let algorithm = match curve {
                    Some(oid) if oid == OID_EC_P256 => Algorithm::Es256,
                    Some(oid) if oid == OID_NIST_EC_P384 => Algorithm::Es384,
                    Some(oid) if oid == OID_NIST_EC_P521 => Algorithm::Es512,
                    _ => return Err(KeyError::Unknown),
                };
                Material::ec(algorithm, point.data().to_vec()).ok_or(KeyError::Unknown)?
            }
            _ => return Err(KeyError::Unknown),
        };
        let id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        Ok(Self { id, only: None, material })
    }

    /// Parses a key of a JSON web key set; `None` if it is malformed, unsupported, or not for signatures.
    pub fn from_jwk(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let only = match text("alg") {
            None => None,
            Some(name) => Some(Algorithm::from_name(name)?),
        };
        let material = match text("kty")? {
            "RSA" => Material::rsa(&bytes("n")?, &bytes("e")?)?,
            "EC" => {
                let algorithm = match text("crv")? {
                    "P-256" => Algorithm::Es256,
                    "P-384" => Algorithm::Es384,
                    "P-521" => Algorithm::Es512,
                    _ => return None,
                };
                Material::ec(algorithm, [&[4][..], &bytes("x")?, &bytes("y")?].concat())?
            }
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or_default().to_owned(), only, material })
    }

    /// The key as an entry of a JSON web key set.
    pub fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let algorithm = self.algorithm().name();
        match &self.material {
            Material::Rsa { modulus, exponent } => json!({
                "use": "sig", "kty": "RSA", "kid": self.id, "alg": algorithm,
                "n": encode(modulus), "e": encode(exponent),
            }),
            Material::Ec { algorithm: curve, point } => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let name = match curve {
                    Algorithm::Es384 => "P-384",
                    Algorithm::Es512 => "P-521",
                    _ => "P-256",
                };
                json!({
                    "use": "sig", "kty": "EC", "kid": self.id, "crv": name, "alg": algorithm,
                    "x": encode(x), "y": encode(y),
                })
            }
        }
    }

    /// The algorithm that Kubernetes uses to sign with a key of this kind.
    pub fn algorithm(&self) -> Algorithm {
        match &self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::Ec { algorithm, .. } => *algorithm,
        }
    }

    /// Returns whether this key signed the message with this algorithm.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        match (&self.material, algorithm.scheme()) {
            (Material::Rsa { modulus, exponent }, Scheme::Rsa(scheme)) => {
                PublicKeyComponents { n: modulus, e: exponent }.verify(scheme, message, signature).is_ok()
            }
            (Material::Ec { algorithm: own, point }, Scheme::Ecdsa(scheme)) if *own == algorithm => {
                UnparsedPublicKey::new(scheme, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl Material {
    /// Creates an RSA key; strips leading zeros from the numbers. Refuses moduli shorter than 2048 bits.
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let trim = |number: &[u8]| {
            let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
            number[start..].to_vec()
        };
        let (modulus, exponent) = (trim(modulus), trim(exponent));
        (modulus.len() >= 256 && !exponent.is_empty()).then_some(Self::Rsa { modulus, exponent })
    }

    fn ec(algorithm: Algorithm, point: Vec<u8>) -> Option<Self> {
        let coordinate = match algorithm {
            Algorithm::Es384 => 48,
            Algorithm::Es512 => 66,
            _ => 32,
        };
        let whole = point.len() == 1 + 2 * coordinate && point.first() == Some(&4);
        whole.then_some(Self::Ec { algorithm, point })
    }
}

/// Parses the keys of a PEM file: public keys, certificates, and the public halves of private keys.
///
/// # Errors
/// The file contains no key, or a key of an unsupported kind.
pub fn public_keys_from_pem(pem: &[u8]) -> Result<Vec<PublicKey>, KeyError> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| KeyError::Unknown)?;
        match kind {
            SectionKind::PublicKey => keys.push(PublicKey::from_spki(&der)?),
            SectionKind::Certificate => {
                let (_, found) = X509Certificate::from_der(&der).map_err(|_| KeyError::Unknown)?;
                keys.push(PublicKey::from_spki(found.public_key().raw)?);
            }
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                keys.push(SigningKey::from_section(kind, &der)?.public().clone());
            }
            _ => {}
        }
    }
    if keys.is_empty() { Err(KeyError::None) } else { Ok(keys) }
}
