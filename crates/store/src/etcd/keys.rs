//! Keys: the prefix of a server's keys in the cluster, and ranges.

use std::sync::Arc;

use bytes::Bytes;

use super::{from_wire, malformed};
use crate::etcdserverpb::StoredKey;
use crate::{KeyValue, StoreError};

/// Replaces `/registry` at the start of keys by the prefix in the cluster.
pub(super) struct Keys {
    /// `None` if it is `/registry`.
    prefix: Option<String>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Self { prefix: (prefix != ROOT).then_some(prefix) }
    }

    /// Returns a key as stored in the cluster.
    pub(super) fn stored(&self, key: &str) -> Bytes {
        match (&self.prefix, key.strip_prefix(ROOT)) {
            (Some(prefix), Some(rest)) if rest.starts_with('/') => format!("{prefix}{rest}").into(),
            _ => Bytes::copy_from_slice(key.as_bytes()),
        }
    }

    pub(super) fn key_value(&self, stored: StoredKey) -> Result<KeyValue, StoreError> {
        let key = std::str::from_utf8(&stored.key).map_err(|_| malformed("a key is not UTF-8"))?;
        let rest = self.prefix.as_ref().and_then(|prefix| key.strip_prefix(prefix.as_str()));
        let key: Arc<str> = match rest {
            Some(rest) => format!("{ROOT}{rest}").into(),
            None => key.into(),
        };
        Ok(KeyValue { key, value: stored.value, mod_revision: from_wire(stored.mod_revision) })
    }
}

/// Returns the first key after all keys with a prefix; `\0` (no end) if there is none.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let significant = prefix.iter().rposition(|byte| *byte < 0xff);
    let Some(last) = significant else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=last].to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    end.into()
}

/// Returns the first key after `key`.
pub(super) fn successor(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

const ROOT: &str = "/registry";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_prefix_in_both_directions() {
        for (prefix, key, stored) in [
            ("/registry", "/registry/pods/a/b", "/registry/pods/a/b"),
            ("kubernetes.io/registry/", "/registry/pods/a/b", "/kubernetes.io/registry/pods/a/b"),
            ("/tenant", "/registry/", "/tenant/"),
            ("/tenant", "/registryx", "/registryx"),
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.stored(key), stored);
            let kv = StoredKey { key: keys.stored(key), ..StoredKey::default() };
            assert_eq!(&*keys.key_value(kv).unwrap().key, key);
        }
    }

    #[test]
    fn prefix_ends_before_the_next_key() {
        assert_eq!(prefix_end(b"/registry/pods/"), "/registry/pods0");
        assert_eq!(prefix_end(b"a\xff\xff").as_ref(), b"b");
        assert_eq!(prefix_end(b"\xff").as_ref(), b"\0");
        assert_eq!(prefix_end(b"").as_ref(), b"\0");
    }
}
