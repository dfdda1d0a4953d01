//! Compact UIDs: the graph has one for each owner and each owned object.

use std::fmt;
use std::sync::Arc;

/// An object's UID. The server generates UUIDs, which are stored as 16 bytes; an owner reference can have any text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Uid {
    /// A UUID in the server's own format.
    Uuid([u8; 16]),
    /// Any other text.
    Text(Arc<str>),
}

impl Uid {
    pub(crate) fn new(text: &str) -> Self {
        match uuid::Uuid::try_parse(text) {
            // A different spelling of the same UUID is a different UID.
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut [0; 36]) == text => Self::Uuid(uuid.into_bytes()),
            _ => Self::Text(Arc::from(text)),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_keep_their_text() {
        let uuid = "0c2f37a5-7d5f-4f0e-9a37-0b6a3f3f2f11";
        for text in
            [uuid, "0C2F37A5-7D5F-4F0E-9A37-0B6A3F3F2F11", "0c2f37a57d5f4f0e9a370b6a3f3f2f11", "u1", ""]
        {
            assert_eq!(Uid::new(text).to_string(), text);
        }
        assert!(matches!(Uid::new(uuid), Uid::Uuid(_)));
        assert!(matches!(Uid::new(&uuid.to_uppercase()), Uid::Text(_)));
        assert!(size_of::<Uid>() <= 24);
    }
}
