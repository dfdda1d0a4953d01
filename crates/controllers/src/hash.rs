//! Hashes for names and labels.

/// Letters and digits without vowels, which cannot spell words; generated names in Kubernetes use the same set.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash that is stable across processes and versions: FNV-1a, written in characters valid in names and label
/// values.
pub(crate) fn name_safe_hash<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let hash = bytes
        .into_iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}
