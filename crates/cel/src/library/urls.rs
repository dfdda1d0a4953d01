//! URLs, as parsed by Go's `net/url`.

use std::fmt::Write as _;
use std::sync::Arc;

use super::format::go_quote;
use super::{Library, network};
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Key, Map, OwnedMap, Text, Value};

/// Kubernetes' functions on URLs.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("string_to_url", "url(string) url", Some(to_url)),
        ("url_get_scheme", "url::getScheme() string", Some(get_scheme)),
        ("url_get_host", "url::getHost() string", Some(get_host)),
        ("url_get_hostname", "url::getHostname() string", Some(get_hostname)),
        ("url_get_port", "url::getPort() string", Some(get_port)),
        ("url_get_escaped_path", "url::getEscapedPath() string", Some(get_escaped_path)),
        ("url_get_query", "url::getQuery() map(string, list(string))", Some(get_query)),
        ("is_url_string", "isURL(string) bool", Some(is_url)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// A URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Url {
    /// The canonical text.
    pub(crate) text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Parses an absolute URL or an absolute path.
    ///
    /// # Errors
    /// The text is neither. The message is Go's.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // `ParseRequestURI` decides whether the URL is valid; `Parse` then also splits off a fragment.
        read(text, false)?;
        read(text, true)
    }

    /// Checks a URL as `url.ParseRequestURI` does.
    ///
    /// # Errors
    /// The text is neither an absolute URL nor an absolute path.
    pub(crate) fn check(text: &str) -> Result<(), String> {
        read(text, false).map(|_| ())
    }

    fn hostname(&self) -> &str {
        let host = self.host.as_str();
        let without_port = self.port_start().and_then(|at| host.get(..at)).unwrap_or(host);
        without_port.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(without_port)
    }

    fn port_start(&self) -> Option<usize> {
        let at = self.host.rfind(':')?;
        let after_bracket = self.host.rfind(']').is_none_or(|bracket| bracket < at);
        let digits = self.host.get(at + 1..)?.bytes().all(|it| it.is_ascii_digit());
        (after_bracket && digits).then_some(at)
    }

    fn port(&self) -> &str {
        self.port_start().and_then(|at| self.host.get(at + 1..)).unwrap_or_default()
    }
}

fn read(text: &str, fragment: bool) -> Result<Url, String> {
    let shown = if fragment { text.split('#').next().unwrap_or_default() } else { text };
    let fail = |why: &str| Err(format!("parse {}: {why}", go_quote(shown)));
    if text.bytes().any(|it| it < 0x20 || it == 0x7f) {
        return fail("net/url: invalid control character in URL");
    }
    if text.is_empty() {
        return fail("empty url");
    }
    if text == "*" {
        let text = || text.to_owned();
        return Ok(Url { text: text(), path: text(), ..Url::default() });
    }
    let (rest, tag) = match text.split_once('#') {
        Some((rest, tag)) if fragment => (rest, Some(tag)),
        _ => (text, None),
    };
    let (scheme, rest) = match split_scheme(rest) {
        Ok(parts) => parts,
        Err(why) => return fail(why),
    };
    let scheme = scheme.to_ascii_lowercase();
    let forced = rest.ends_with('?') && rest.matches('?').count() == 1;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let query_text = match query {
        Some(query) if forced || !query.is_empty() => format!("?{query}"),
        _ => String::new(),
    };
    let fragment_text = match tag {
        None | Some("") => String::new(),
        Some(tag) => match escaped(tag, FRAGMENT_ALLOWED) {
            Ok(tag) => format!("#{tag}"),
            Err(why) => return Err(format!("parse {}: {why}", go_quote(text))),
        },
    };
    let query = query.unwrap_or_default().to_owned();
    if !rest.starts_with('/') {
        if scheme.is_empty() {
            return fail("invalid URI for request");
        }
        // An opaque URL such as `mailto:a@b.c`.
        let canonical = format!("{scheme}:{rest}{query_text}{fragment_text}");
        return Ok(Url { text: canonical, scheme, host: String::new(), path: String::new(), query });
    }
    let has_authority = rest.starts_with("//") && (!scheme.is_empty() || fragment);
    let (user, host, path) =
        if (has_authority && !rest.starts_with("///")) || (!scheme.is_empty() && rest.starts_with("//")) {
            let after = rest.get(2..).unwrap_or_default();
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            match parse_host(host) {
                Ok(host) => (user, host, path),
                Err(why) => return fail(&why),
            }
        } else {
            (None, String::new(), rest)
        };
    let user = match user.map(canonical_user).transpose() {
        Ok(user) => user,
        Err(why) => return fail(&why),
    };
    let escaped = match escaped(path, PATH_ALLOWED) {
        Ok(path) => path,
        Err(why) => return fail(&why),
    };
    let mut canonical = String::new();
    if !scheme.is_empty() {
        canonical.push_str(&scheme);
        canonical.push(':');
    }
    // A URL such as `http:/path` keeps its form without an authority.
    let has_authority = rest.starts_with("//") && path != rest;
    if !host.is_empty() || user.is_some() || (has_authority && !path.is_empty()) {
        canonical.push_str("//");
    }
    if let Some(user) = user {
        canonical.push_str(&user);
        canonical.push('@');
    }
    canonical.push_str(&escape(host.as_bytes(), HOST_ALLOWED));
    canonical.push_str(&escaped);
    canonical.push_str(&query_text);
    canonical.push_str(&fragment_text);
    Ok(Url { text: canonical, scheme, host, path: escaped, query })
}

/// Returns the user information with only the necessary escapes.
fn canonical_user(user: &str) -> Result<String, String> {
    if !user.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&it)) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let part = |text: &str| Ok::<_, String>(escape(&unescape_bytes(text)?, USER_ALLOWED));
    match user.split_once(':') {
        None => part(user),
        Some((name, password)) => Ok(format!("{}:{}", part(name)?, part(password)?)),
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, letter) in text.char_indices() {
        match letter {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn parse_host(host: &str) -> Result<String, String> {
    let port_error = |text: &str| format!("invalid port {} after host", go_quote(text));
    let valid_port = |text: &str| {
        text.is_empty() || (text.starts_with(':') && text.bytes().skip(1).all(|it| it.is_ascii_digit()))
    };
    if let Some(open) = host.rfind('[') {
        let close = host.rfind(']').ok_or("missing ']' in host")?;
        let port = host.get(close + 1..).unwrap_or_default();
        if !valid_port(port) {
            return Err(port_error(port));
        }
        let literal = host.get(open + 1..close).unwrap_or_default();
        let zone = literal.find("%25").unwrap_or(literal.len());
        let (address, zone) = literal.split_at(zone);
        let address = format!("{}{}", check_host(address)?, unescape(zone)?);
        let (parsed, _) = network::parse_address(&address).map_err(|why| format!("invalid host: {why}"))?;
        if open > 0 || parsed.is_ipv4() {
            return Err("invalid IP-literal".to_owned());
        }
        return Ok(format!("[{address}]{port}"));
    } else if let Some(at) = host.rfind(':') {
        let port = host.get(at..).unwrap_or_default();
        if !valid_port(port) {
            return Err(port_error(port));
        }
    }
    check_host(host)
}

/// Checks the characters of a host and decodes its escapes.
fn check_host(host: &str) -> Result<String, String> {
    let bytes = host.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'%' {
            let escape = host.get(at..(at + 3).min(host.len())).unwrap_or("%");
            let digits = escape.get(1..).unwrap_or_default();
            if digits.len() < 2 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
                return Err(format!("invalid URL escape {}", go_quote(escape)));
            }
            // Only bytes beyond ASCII may be escaped in a host.
            if digits.as_bytes().first().is_some_and(|it| *it < b'8') && escape != "%25" {
                return Err(format!("invalid URL escape {}", go_quote(escape)));
            }
        } else if *byte < 0x80 && !byte.is_ascii_alphanumeric() && !b"-_.~!$&'()*+,;=:[]<>\"".contains(byte) {
            return Err(format!(
                "invalid character {} in host name",
                go_quote(&char::from(*byte).to_string())
            ));
        }
    }
    unescape(host)
}

/// Decodes escapes.
fn unescape(text: &str) -> Result<String, String> {
    unescape_bytes(text).map(|decoded| String::from_utf8_lossy(&decoded).into_owned())
}

fn unescape_bytes(text: &str) -> Result<Vec<u8>, String> {
    let (mut decoded, bytes, mut at) = (Vec::with_capacity(text.len()), text.as_bytes(), 0);
    while let Some(byte) = bytes.get(at) {
        if *byte != b'%' {
            decoded.push(*byte);
            at += 1;
            continue;
        }
        let digits = bytes.get(at + 1..at + 3).and_then(|it| std::str::from_utf8(it).ok());
        let value = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
        let Some(value) = value.filter(|_| digits.is_some_and(|it| !it.starts_with('+'))) else {
            let rest = String::from_utf8_lossy(bytes.get(at..(at + 3).min(bytes.len())).unwrap_or_default());
            return Err(format!("invalid URL escape {}", go_quote(&rest)));
        };
        decoded.push(value);
        at += 3;
    }
    Ok(decoded)
}

/// The characters besides letters and digits that a path, fragment, host or user can contain.
const PATH_ALLOWED: &[u8] = b"-_.~$&+,/:;=@";
const FRAGMENT_ALLOWED: &[u8] = b"-_.~$&+,/:;=?@!()*";
const HOST_ALLOWED: &[u8] = b"-_.~!$&'()*+,;=:[]<>\"";
const USER_ALLOWED: &[u8] = b"-_.~$&+,;=";

/// Returns a path or fragment in escaped form. As in Go, a text that needs no further escapes stays as it is; otherwise
/// all escapes are new.
fn escaped(text: &str, allowed: &[u8]) -> Result<String, String> {
    let decoded = unescape_bytes(text)?;
    let is_valid = |it: u8| it.is_ascii_alphanumeric() || allowed.contains(&it) || b"!'()*[]%".contains(&it);
    Ok(if text.bytes().all(is_valid) { text.to_owned() } else { escape(&decoded, allowed) })
}

fn escape(bytes: &[u8], allowed: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || allowed.contains(byte) {
            escaped.push(char::from(*byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn text<'v>(args: &'v [Value<'_>]) -> Result<&'v str, Failure> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(Failure::overload()),
    }
}

fn to_url<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let url = Url::parse(text(args)?);
    let url =
        url.map_err(|why| Failure::new(format!("URL parse error during conversion from string: {why}")))?;
    Ok(Value::Url(Arc::new(url)))
}

fn is_url<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(Url::check(text(args)?).is_ok()))
}

fn part<'a>(args: &[Value<'a>], part: fn(&Url) -> &str) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Url(url)] => Ok(Value::text(part(url))),
        _ => Err(Failure::overload()),
    }
}

fn get_scheme<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, |url| &url.scheme)
}

fn get_host<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, |url| &url.host)
}

fn get_hostname<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, Url::hostname)
}

fn get_port<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, Url::port)
}

fn get_escaped_path<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, |url| &url.path)
}

fn get_query<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Url(url)] = args else { return Err(Failure::overload()) };
    let mut all: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    context.allocate(url.query.len() * 4)?;
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| unescape(&text.replace('+', " "));
        if let (Ok(key), Ok(value)) = (decoded(key), decoded(value)) {
            all.entry(key).or_default().push(value);
        }
    }
    let entries: OwnedMap<'_> = all
        .into_iter()
        .map(|(key, values)| (Key::String(Text::Shared(key.into())), Value::texts(values)))
        .collect();
    Ok(Value::Map(Map::owned(entries)))
}

#[cfg(test)]
mod tests {
    use super::Url;

    /// The results of Go's `url.Parse(text).String()`.
    #[test]
    fn escapes_as_go() {
        let cases = [
            ("*", "*"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2Fb c", "/a/b%20c"),
            ("/a!b'(c)*[d]", "/a!b'(c)*[d]"),
            ("/a!b c", "/a%21b%20c"),
            ("http://", "http:"),
            ("http:/x", "http:/x"),
            ("http:///x", "http:///x"),
            ("HTTPS://u!:p%40q@h:1/", "https://u%21:p%40q@h:1/"),
            ("https://h/p#a'b c", "https://h/p#a%27b%20c"),
            ("https://h/p#a'b", "https://h/p#a'b"),
            ("https://[::1]:80/p?q=1&r", "https://[::1]:80/p?q=1&r"),
            ("mailto:a@b.c?x", "mailto:a@b.c?x"),
            ("/p?", "/p?"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Url::parse(text).unwrap().text, canonical, "{text}");
        }
    }

    #[test]
    fn reports_errors_as_go() {
        let cases = [
            ("", "empty url"),
            ("a b", "invalid URI for request"),
            (":x", "missing protocol scheme"),
            ("https://u%zz@h/", "invalid URL escape \"%zz\""),
            ("https://u^@h/", "net/url: invalid userinfo"),
            ("https://h:x/", "invalid port \":x\" after host"),
            ("https://h h/", "invalid character \" \" in host name"),
            ("https://[::1/", "missing ']' in host"),
            ("https://[zz]/", "invalid host: ParseAddr(\"zz\"): unable to parse IP"),
            ("https://[1.2.3.4]/", "invalid IP-literal"),
            ("https://a[::1]/", "invalid IP-literal"),
            ("/%2", "invalid URL escape \"%2\""),
        ];
        for (text, why) in cases {
            assert_eq!(Url::parse(text).unwrap_err(), format!("parse {text:?}: {why}"));
        }
    }
}
