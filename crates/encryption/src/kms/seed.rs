//! Keys of values, derived from a seed (upstream: `encrypt/aes/aes_extended_nonce.go`).

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};

use crate::TransformError;
use crate::ciphers::{gcm_key, open, random, seal};

/// The meaning of the encrypted source of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum SourceKind {
    /// The key of AES-GCM itself, as servers before 1.29 stored it.
    AesGcmKey = 0,
    /// A seed: each value has a random info from which HKDF with SHA-256 derives its key.
    HkdfSha256XnonceAesGcmSeed = 1,
}

/// A decrypted source of keys.
pub(super) enum Seed {
    Key(LessSafeKey),
    Seed(Prk),
}

impl Seed {
    /// Creates a seed; `None` if it has a wrong length.
    pub(super) fn new(kind: SourceKind, bytes: &[u8]) -> Option<Self> {
        match kind {
            SourceKind::AesGcmKey => gcm_key(bytes).map(Self::Key),
            SourceKind::HkdfSha256XnonceAesGcmSeed if bytes.len() < SEED => None,
            SourceKind::HkdfSha256XnonceAesGcmSeed => {
                Some(Self::Seed(Prk::new_less_safe(HKDF_SHA256, bytes)))
            }
        }
    }

    /// Creates a random seed and returns its bytes too.
    pub(super) fn generate() -> Result<(Self, Vec<u8>), TransformError> {
        let bytes = random::<SEED>()?;
        Ok((Self::Seed(Prk::new_less_safe(HKDF_SHA256, &bytes)), bytes.to_vec()))
    }

    /// Appends an encrypted value to `out`.
    pub(super) fn seal(&self, aad: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), TransformError> {
        match self {
            Self::Key(key) => seal(key, aad, value, out),
            Self::Seed(seed) => {
                let info = random::<INFO>()?;
                out.extend_from_slice(&info);
                seal(&derive(seed, &info)?, aad, value, out)
            }
        }
    }

    /// Decrypts a value.
    pub(super) fn open(&self, aad: &str, sealed: &[u8]) -> Result<Vec<u8>, TransformError> {
        match self {
            Self::Key(key) => open(key, aad, sealed),
            Self::Seed(seed) => {
                let (info, sealed) = sealed.split_first_chunk::<INFO>().ok_or(TransformError::TooShort)?;
                open(&derive(seed, info)?, aad, sealed)
            }
        }
    }
}

fn derive(seed: &Prk, info: &[u8]) -> Result<LessSafeKey, TransformError> {
    let info = [info];
    let derived = seed.expand(&info, &AES_256_GCM).map_err(|_| TransformError::Authentication)?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

const SEED: usize = 32;
const INFO: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_own_key() {
        let (seed, bytes) = Seed::generate().unwrap();
        let again = Seed::new(SourceKind::HkdfSha256XnonceAesGcmSeed, &bytes).unwrap();
        let mut stored = [Vec::new(), Vec::new()];
        for one in &mut stored {
            seed.seal("k", b"value", one).unwrap();
            assert_eq!(one.len(), INFO + 12 + 5 + 16);
            assert_eq!(again.open("k", one).unwrap(), b"value");
            assert_eq!(seed.open("other", one), Err(TransformError::Authentication));
        }
        assert_ne!(stored[0][..INFO], stored[1][..INFO]);
        // With the info of another value the key is another one.
        let swapped = [&stored[0][..INFO], &stored[1][INFO..]].concat();
        assert_eq!(seed.open("k", &swapped), Err(TransformError::Authentication));
        assert!(seed.open("k", &stored[0][..INFO - 1]).is_err());
    }

    #[test]
    fn short_seeds_are_invalid() {
        for (kind, length, is_valid) in [
            (SourceKind::HkdfSha256XnonceAesGcmSeed, 31, false),
            (SourceKind::HkdfSha256XnonceAesGcmSeed, 33, true),
            (SourceKind::AesGcmKey, 31, false),
            (SourceKind::AesGcmKey, 32, true),
        ] {
            assert_eq!(Seed::new(kind, &vec![1; length]).is_some(), is_valid, "{kind:?} {length}");
        }
    }
}
