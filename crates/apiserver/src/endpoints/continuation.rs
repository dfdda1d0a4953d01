//! Continue tokens: the position and the state from which a list continues (upstream: `storage/continue.go`).
//!
//! The format is the same as upstream's, so a client can read each page from a different server.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nave_machinery::Status;
use serde::{Deserialize, Serialize};

/// Version of the token format.
const VERSION: &str = "meta.k8s.io/v1";

/// Maximum length of a token, in bytes.
const TOKEN_MAX: usize = 4096;

/// The start of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The revision of the first page; `None` to continue in the latest state.
    pub revision: Option<u64>,
    /// The key of the last object of the previous page.
    pub start_after: String,
    /// The number of remaining objects, if the token has it.
    pub remaining: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    /// The start key, without the prefix: the last key with a zero byte appended.
    start: String,
    /// The number of remaining objects, which other servers ignore. Without it, each page would have to count them,
    /// which is as expensive as the whole list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
}

impl Continuation {
    /// Decodes the token of a list under `prefix`; `None` if it is empty.
    ///
    /// # Errors
    /// 400 for an invalid token.
    pub fn decode(token: &str, prefix: &str) -> Result<Option<Self>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        if token.len() > TOKEN_MAX {
            return Err(invalid("it is too long"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).or_else(|_| STANDARD.decode(token));
        let bytes = bytes
            .map_err(|_| invalid(&format!("illegal base64 data at input byte {}", first_illegal(token))))?;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| invalid("it is not JSON of the known form"))?;
        if token.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        let start = token.start.strip_suffix('\0').unwrap_or(&token.start);
        let revision = match u64::try_from(token.rv) {
            Ok(revision) if revision > 0 => Some(revision),
            Err(_) if token.rv == -1 => None,
            _ => return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        };
        if start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        // Check each segment, so that the key cannot leave the prefix when it is joined with it.
        if start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(&format!("invalid start key: {start:?}")));
        }
        Ok(Some(Self { revision, start_after: format!("{prefix}{start}"), remaining: token.remaining }))
    }

    /// Encodes the token for a list under `prefix`.
    pub fn encode(&self, prefix: &str) -> String {
        let rv = self.revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(-1);
        let start = format!("{}\0", self.start_after.strip_prefix(prefix).unwrap_or(&self.start_after));
        let token = Token { v: VERSION.to_owned(), rv, start, remaining: self.remaining };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }
}

/// Returns the position of the first character that Go's decoder rejects.
fn first_illegal(token: &str) -> usize {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    token.bytes().position(|byte| !is_legal(byte)).unwrap_or_else(|| token.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_round_trips() {
        let start_after = "/registry/pods/a/b".to_owned();
        for (revision, remaining, prefix) in
            [(Some(7), Some(3), "/registry/pods/"), (None, None, "/registry/pods/a/")]
        {
            let place = Continuation { revision, start_after: start_after.clone(), remaining };
            assert_eq!(Continuation::decode(&place.encode(prefix), prefix).unwrap(), Some(place));
        }
        assert_eq!(Continuation::decode("", "/x/").unwrap(), None);
    }

    #[test]
    fn rejects_invalid_tokens() {
        let of = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let bad = [
            "zzz".to_owned(),
            "%%%".to_owned(),
            of("{}"),
            of(r#"{"v":"other","rv":1,"start":"a"}"#),
            of(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            of(r#"{"v":"meta.k8s.io/v1","rv":-5,"start":"a"}"#),
            of(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#),
            "a".repeat(TOKEN_MAX + 1),
        ];
        for token in bad {
            assert_eq!(Continuation::decode(&token, "/registry/pods/").unwrap_err().code, 400, "{token}");
        }
        for (token, place) in [("bogus", 4), ("a%b", 1), ("%", 0)] {
            let message = Continuation::decode(token, "/registry/pods/").unwrap_err().message;
            assert!(message.ends_with(&format!("illegal base64 data at input byte {place}")), "{message}");
        }
    }
}
