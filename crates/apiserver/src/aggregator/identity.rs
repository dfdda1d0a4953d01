//! The identities that aggregated servers see: this server's client certificate and the user in headers (upstream:
//! `transport.SetAuthProxyHeaders`).

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};
use nave_machinery::user::UserInfo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The client certificate for aggregated servers (`--proxy-client-cert-file`); none by default. Clones share it.
#[derive(Clone, Default)]
pub struct ProxyIdentity(Option<Arc<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>>);

impl ProxyIdentity {
    /// Creates the identity of a certificate chain and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self(Some(Arc::new((chain, key))))
    }

    /// Returns a copy of the certificate chain and its key.
    pub(super) fn get(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        self.0.as_deref().map(|(chain, key)| (chain.clone(), key.clone_key()))
    }
}

impl PartialEq for ProxyIdentity {
    /// Returns whether both are the same instance.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// A user whose name, group or attribute cannot be written in a header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// The value contains control characters.
    #[error("the user contains characters that a header cannot have")]
    Value(#[from] InvalidHeaderValue),
    /// The key of an attribute is too long.
    #[error("an attribute of the user is no header name")]
    Name(#[from] InvalidHeaderName),
}

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA_PREFIX: &str = "x-remote-extra-";
/// The beginning of all headers with users. Some servers take `_` for `-`.
const PREFIX: &str = "x-remote-";

/// Writes the user into headers, in place of those of the client.
///
/// # Errors
/// The user cannot be written. The headers must not be used then.
pub(crate) fn set_user(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), UserError> {
    let is_reserved = |name: &&HeaderName| name.as_str().replace('_', "-").starts_with(PREFIX);
    let reserved: Vec<HeaderName> = headers.keys().filter(is_reserved).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::try_from(format!("{EXTRA_PREFIX}{}", escape(key)))?;
        for each in values {
            headers.append(&name, value(each)?);
        }
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, UserError> {
    Ok(HeaderValue::from_bytes(text.as_bytes())?)
}

/// Percent-encodes the characters that header names cannot contain, and the percent sign.
fn escape(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            uid: "u1".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: [("example.com/x y%".to_owned(), vec!["1".to_owned(), "2".to_owned()])].into(),
        }
    }

    #[test]
    fn replaces_the_headers_of_the_client() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-scopes", "x_remote_user"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("system:masters"));
        }
        headers.insert("accept", HeaderValue::from_static("*/*"));
        set_user(&mut headers, &user("né")).unwrap();
        let mut written: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", std::str::from_utf8(value.as_bytes()).unwrap()))
            .collect();
        written.sort();
        assert_eq!(
            written,
            [
                "accept: */*",
                "x-remote-extra-example.com%2fx%20y%25: 1",
                "x-remote-extra-example.com%2fx%20y%25: 2",
                "x-remote-group: a",
                "x-remote-group: b",
                "x-remote-uid: u1",
                "x-remote-user: né",
            ]
        );
    }

    #[test]
    fn refuses_users_that_would_add_headers() {
        for name in ["a\r\nx-remote-group: system:masters", "a\0", "a\n"] {
            assert!(set_user(&mut HeaderMap::new(), &user(name)).is_err(), "{name:?}");
        }
    }
}
