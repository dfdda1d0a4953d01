//! The ciphers with keys from the configuration: AES-CBC, AES-GCM, secretbox.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};

use crate::TransformError;

/// A provider with keys in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// AES-CBC with PKCS#7 padding; not authenticated.
    AesCbc,
    /// AES-GCM with random nonces.
    AesGcm,
    /// XSalsa20-Poly1305 (NaCl's secretbox).
    Secretbox,
}

impl Algorithm {
    /// Returns the prefix of values.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::AesCbc => "k8s:enc:aescbc:v1:",
            Self::AesGcm => "k8s:enc:aesgcm:v1:",
            Self::Secretbox => "k8s:enc:secretbox:v1:",
        }
    }

    /// Returns the name in errors.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AesCbc | Self::AesGcm => "AES",
            Self::Secretbox => "Secretbox",
        }
    }

    /// Returns the supported lengths of keys in bytes.
    pub(crate) fn key_lengths(self) -> &'static [usize] {
        match self {
            Self::AesCbc | Self::AesGcm => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }
}

/// A cipher with its key.
pub(crate) enum Cipher {
    AesCbc(Box<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>),
    AesGcm(LessSafeKey),
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// Creates a cipher; `None` if the key has a wrong length.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::AesCbc => {
                let aes = match key.len() {
                    16 => &cipher::AES_128,
                    24 => &cipher::AES_192,
                    32 => &cipher::AES_256,
                    _ => return None,
                };
                let key = || UnboundCipherKey::new(aes, key).ok();
                let encrypting = PaddedBlockEncryptingKey::cbc_pkcs7(key()?).ok()?;
                Self::AesCbc(Box::new((encrypting, PaddedBlockDecryptingKey::cbc_pkcs7(key()?).ok()?)))
            }
            Algorithm::AesGcm => Self::AesGcm(gcm_key(key)?),
            Algorithm::Secretbox => Self::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)),
        })
    }

    /// Appends the encrypted value of the object `aad` to `out`.
    pub(crate) fn encrypt(&self, aad: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), TransformError> {
        match self {
            Self::AesCbc(keys) => {
                let mut sealed = value.to_vec();
                let context = keys.0.encrypt(&mut sealed).map_err(|_| TransformError::Random)?;
                let DecryptionContext::Iv128(iv) = context else { return Err(TransformError::Random) };
                out.extend_from_slice(iv.as_ref());
                out.extend_from_slice(&sealed);
            }
            Self::AesGcm(key) => seal(key, aad, value, out)?,
            Self::Secretbox(cipher) => {
                let nonce = random::<SECRETBOX_NONCE>()?;
                let mut sealed = value.to_vec();
                let tag = cipher.encrypt_in_place_detached(&nonce.into(), b"", &mut sealed);
                out.extend_from_slice(&nonce);
                // NaCl has the tag in front.
                out.extend_from_slice(&tag.map_err(|_| TransformError::Random)?);
                out.extend_from_slice(&sealed);
            }
        }
        Ok(())
    }

    /// Decrypts a value of the object `aad`.
    pub(crate) fn decrypt(&self, aad: &str, sealed: &[u8]) -> Result<Vec<u8>, TransformError> {
        match self {
            Self::AesCbc(keys) => {
                let (iv, sealed) = sealed.split_first_chunk::<CBC_BLOCK>().ok_or(TransformError::TooShort)?;
                if sealed.len() % CBC_BLOCK != 0 {
                    return Err(TransformError::BlockSize);
                }
                let mut value = sealed.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(*iv));
                let opened = keys.1.decrypt(&mut value, context).map_err(|_| TransformError::Padding)?;
                let length = opened.len();
                value.truncate(length);
                Ok(value)
            }
            Self::AesGcm(key) => open(key, aad, sealed),
            Self::Secretbox(cipher) => {
                let short = TransformError::TooShort;
                let (nonce, sealed) = sealed.split_first_chunk::<SECRETBOX_NONCE>().ok_or(short.clone())?;
                let (tag, sealed) = sealed.split_first_chunk::<SECRETBOX_TAG>().ok_or(short)?;
                let (mut value, tag) = (sealed.to_vec(), (*tag).into());
                let opened = cipher.decrypt_in_place_detached(&(*nonce).into(), b"", &mut value, &tag);
                opened.map_err(|_| TransformError::Authentication)?;
                Ok(value)
            }
        }
    }
}

/// Creates a key of AES-GCM; `None` if it has a wrong length.
pub(crate) fn gcm_key(key: &[u8]) -> Option<LessSafeKey> {
    let aes = match key.len() {
        16 => &aead::AES_128_GCM,
        24 => &aead::AES_192_GCM,
        32 => &aead::AES_256_GCM,
        _ => return None,
    };
    UnboundKey::new(aes, key).ok().map(LessSafeKey::new)
}

/// Appends a random nonce and the value, sealed by AES-GCM, to `out`.
pub(crate) fn seal(
    key: &LessSafeKey,
    aad: &str,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TransformError> {
    let nonce = random::<{ aead::NONCE_LEN }>()?;
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(value);
    let Some(sealed) = out.get_mut(start..) else { return Err(TransformError::Random) };
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad.as_bytes()), sealed);
    out.extend_from_slice(tag.map_err(|_| TransformError::Random)?.as_ref());
    Ok(())
}

/// Opens what [`seal`] has written.
pub(crate) fn open(key: &LessSafeKey, aad: &str, sealed: &[u8]) -> Result<Vec<u8>, TransformError> {
    let (nonce, sealed) =
        sealed.split_first_chunk::<{ aead::NONCE_LEN }>().ok_or(TransformError::TooShort)?;
    let mut value = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut value);
    let length = opened.map_err(|_| TransformError::Authentication)?.len();
    value.truncate(length);
    Ok(value)
}

/// Returns random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], TransformError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TransformError::Random)?;
    Ok(bytes)
}

const CBC_BLOCK: usize = 16;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const ALL: [(Algorithm, usize); 3] =
        [(Algorithm::AesCbc, 16 + 11), (Algorithm::AesGcm, 12 + 16), (Algorithm::Secretbox, 24 + 16)];

    fn sealed(cipher: &Cipher) -> Vec<u8> {
        let mut sealed = Vec::new();
        cipher.encrypt("/registry/secrets/a/b", b"hello", &mut sealed).unwrap();
        sealed
    }

    #[test]
    fn damaged_values_are_errors() {
        for (algorithm, overhead) in ALL {
            let cipher = Cipher::new(algorithm, KEY).unwrap();
            let stored = sealed(&cipher);
            assert_eq!(stored.len(), 5 + overhead, "{algorithm:?}");
            assert_ne!(sealed(&cipher), stored, "{algorithm:?}");
            let decrypt = |stored: &[u8]| cipher.decrypt("/registry/secrets/a/b", stored);
            assert_eq!(decrypt(&stored).unwrap(), b"hello");
            for end in 0..stored.len() {
                assert!(decrypt(&stored[..end]).is_err(), "{algorithm:?} {end}");
            }
            for at in 0..stored.len() {
                let mut changed = stored.clone();
                changed[at] ^= 0x80;
                assert_ne!(decrypt(&changed), Ok(b"hello".to_vec()), "{algorithm:?} {at}");
            }
        }
    }

    #[test]
    fn empty_and_long_values_survive() {
        for (algorithm, _) in ALL {
            let cipher = Cipher::new(algorithm, KEY).unwrap();
            for length in [0, 1, 15, 16, 17, 70_000] {
                let (value, mut stored) = (vec![7; length], Vec::new());
                cipher.encrypt("k", &value, &mut stored).unwrap();
                assert_eq!(cipher.decrypt("k", &stored).unwrap(), value, "{algorithm:?} {length}");
            }
        }
    }

    #[test]
    fn keys_have_the_supported_lengths() {
        for (algorithm, _) in ALL {
            for length in 0..40 {
                let created = Cipher::new(algorithm, &vec![1; length]);
                assert_eq!(
                    created.is_some(),
                    algorithm.key_lengths().contains(&length),
                    "{algorithm:?} {length}"
                );
            }
        }
    }

    #[test]
    fn gcm_authenticates_the_key_of_the_object() {
        let cipher = Cipher::new(Algorithm::AesGcm, KEY).unwrap();
        let moved = cipher.decrypt("/registry/secrets/a/c", &sealed(&cipher));
        assert_eq!(moved, Err(TransformError::Authentication));
    }
}
