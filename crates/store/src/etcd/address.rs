//! Addresses of members, as in `--etcd-servers`.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The address of a member: `http://host:2379` or `https://host:2379`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(super) is_tls: bool,
    /// Host name or IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The reason why an address is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as https://127.0.0.1:2379")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?;
        let is_plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !is_plain || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(invalid());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        if self.host.contains(':') {
            return write!(f, "{scheme}://[{}]:{}", self.host, self.port);
        }
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_of_members() {
        for (text, shown) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("https://etcd-0.example.com:2379/", "https://etcd-0.example.com:2379"),
            ("https://[::1]:2379", "https://[::1]:2379"),
            ("http://etcd", "http://etcd:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(address));
        }
    }

    #[test]
    fn rejects_other_urls() {
        for text in [
            "",
            "127.0.0.1:2379",
            "ftp://a",
            "unix:///a",
            "http://",
            "http://a/b",
            "http://u@a",
            "http://a?b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
