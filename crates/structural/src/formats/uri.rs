//! Request URIs, as parsed by Go's `url.ParseRequestURI`.

use nave_machinery::url::split_scheme;

/// An absolute URI or an absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestUri<'a> {
    /// The scheme; empty for a path.
    pub scheme: &'a str,
    /// The host and port; empty if absent.
    pub host: &'a str,
}

impl<'a> RequestUri<'a> {
    /// Parses a URI. Returns `None` if the text is not an absolute URI or an absolute path.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return None;
        }
        if text == "*" {
            return Some(Self { scheme: "", host: "" });
        }
        let (scheme, rest) = split_scheme(text)?;
        let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
        if !rest.starts_with('/') {
            return (!scheme.is_empty()).then_some(Self { scheme, host: "" });
        }
        let Some(authority) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) else {
            return is_escaped(rest).then_some(Self { scheme, host: "" });
        };
        let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_user = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
        let is_sound = user.bytes().all(is_user) && is_escaped(user) && is_host(host) && is_escaped(path);
        is_sound.then_some(Self { scheme, host })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = if text.starts_with('[') {
        let Some(end) = text.rfind(']') else { return false };
        text.split_at(end + 1)
    } else {
        text.split_at(text.rfind(':').unwrap_or(text.len()))
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let is_odd = |byte: u8| byte == b' ' || b"\\^`{|}%".contains(&byte);
    is_port && !host.bytes().any(is_odd)
}

/// Returns whether each percent sign begins an escape.
fn is_escaped(text: &str) -> bool {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    text.split('%').skip(1).all(is_escape)
}
