//! Hashes of objects for names and labels.

/// Letters and digits of which no word can be made by chance (no vowels), as names generated in Kubernetes have.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash that is the same in every process and version: FNV-1a, in letters that a name or a label's value may have.
pub(crate) fn name_safe<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let hash = bytes
        .into_iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}
