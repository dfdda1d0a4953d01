//! Users authenticated by a front proxy, which passes them in headers (upstream:
//! `authentication/request/headerrequest`).

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use nave_machinery::user::UserInfo;
use percent_encoding::percent_decode_str;

use crate::chain::remove_with_prefix;
use crate::{Authenticator, AuthnError, CertificateError, ClientCa, Credentials, Identity};

/// The headers in which the proxy passes the user. For the name and the uid, the first header that is not empty is
/// used. For groups and extra fields, all headers are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeaders {
    /// The user name.
    pub user: Vec<HeaderName>,
    /// The user's uid.
    pub uid: Vec<HeaderName>,
    /// The groups, one per header value.
    pub group: Vec<HeaderName>,
    /// Prefixes of headers with extra fields, in lower case; the rest of the header name is the key.
    pub extra_prefix: Vec<String>,
}

/// The rules for proxies with a certificate of the proxy CA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// The accepted names in certificates. An empty list allows all names.
    pub allowed_names: Vec<String>,
    /// The headers with the user.
    pub headers: ProxyHeaders,
}

/// Accepts the headers only from a proxy that presents a certificate of the proxy CA. The CA and the rules can change
/// while requests are served.
pub struct FrontProxy {
    ca: Arc<ClientCa>,
    rules: ArcSwap<ProxyRules>,
}

impl FrontProxy {
    /// Accepts proxies with a certificate of `ca`. No proxy is accepted while `ca` is empty.
    pub fn new(ca: Arc<ClientCa>, rules: ProxyRules) -> Self {
        Self { ca, rules: ArcSwap::from_pointee(rules) }
    }

    /// Replaces the rules.
    pub fn set_rules(&self, rules: ProxyRules) {
        self.rules.store(Arc::new(rules));
    }
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
        let Some(peer) = credentials.peer.filter(|_| !self.ca.is_empty()) else { return Ok(None) };
        let subject = peer.verified_by(&self.ca, SystemTime::now())?;
        let rules = self.rules.load();
        let ProxyRules { allowed_names, headers } = &**rules;
        if !allowed_names.is_empty() && !allowed_names.contains(&subject.name) {
            return Err(CertificateError::Name(subject.name.clone()).into());
        }
        let name = first(credentials.headers, &headers.user);
        if name.is_empty() {
            return Ok(None);
        }
        let mut user = UserInfo {
            name,
            uid: first(credentials.headers, &headers.uid),
            groups: headers.group.iter().flat_map(|name| all(credentials.headers, name)).collect(),
            ..UserInfo::default()
        };
        for name in credentials.headers.keys() {
            let key = headers.extra_prefix.iter().find_map(|prefix| name.as_str().strip_prefix(prefix));
            if let Some(key) = key.filter(|key| !key.is_empty()) {
                user.extra.entry(unescaped(key)).or_default().extend(all(credentials.headers, name));
            }
        }
        Ok(Some(Identity::new(user)))
    }

    fn strip(&self, headers: &mut HeaderMap) {
        let rules = self.rules.load();
        let ProxyHeaders { user, uid, group, extra_prefix } = &rules.headers;
        for name in user.iter().chain(uid).chain(group) {
            headers.remove(name);
        }
        for prefix in extra_prefix {
            remove_with_prefix(headers, prefix);
        }
    }
}

/// Returns the first value of these headers that is not empty.
fn first(headers: &HeaderMap, names: &[HeaderName]) -> String {
    let error_message =
        |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
    names.iter().filter_map(error_message).find(|text| !text.is_empty()).unwrap_or_default()
}

fn all(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// Decodes a percent-encoded key. Keys are encoded because header names allow few characters. An invalid encoding is
/// returned unchanged.
fn unescaped(key: &str) -> String {
    percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rcgen::{CertifiedIssuer, DnType, ExtendedKeyUsagePurpose::ClientAuth, KeyPair};

    use super::*;
    use crate::PeerCertificate;
    use crate::certificate::tests::{authority, signed_by};

    fn names(names: &[&'static str]) -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    fn proxy(ca: &CertifiedIssuer<'static, KeyPair>, allowed: &[&str]) -> FrontProxy {
        let headers = ProxyHeaders {
            user: names(&["x-remote-user", "x-user"]),
            uid: names(&["x-remote-uid"]),
            group: names(&["x-remote-group", "x-group"]),
            extra_prefix: vec!["x-remote-extra-".to_owned()],
        };
        let ca = Arc::new(ClientCa::new(vec![ca.der().clone()]).unwrap());
        let allowed_names = allowed.iter().map(|name| (*name).to_owned()).collect();
        FrontProxy::new(ca, ProxyRules { allowed_names, headers })
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-user", "alice"),
            ("x-remote-user", " "),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-group", "more"),
            ("x-remote-uid", "1"),
            ("x-remote-extra-acme.com%2fscope", "a"),
            ("x-remote-extra-acme.com%2fscope", "b"),
            ("accept", "x"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    async fn authenticate(
        proxy: &FrontProxy,
        peer: Option<&PeerCertificate>,
    ) -> Result<Option<Identity>, AuthnError> {
        proxy.authenticate(&Credentials { peer, headers: &headers(), path: "/" }).await
    }

    #[tokio::test]
    async fn accepts_headers_from_the_proxy_only() {
        let (ca, other) = (authority(None), authority(None));
        let certificate = |ca, name| {
            let subject = [(DnType::CommonName, name)];
            PeerCertificate::presented(vec![signed_by(ca, &subject, ClientAuth, (2000, 4000))])
        };
        let front = proxy(&ca, &["front"]);
        let user = authenticate(&front, Some(&certificate(&ca, "front"))).await.unwrap().unwrap().user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "1"));
        assert_eq!(user.groups, ["dev", "ops", "more", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/scope"], ["a", "b"]);

        assert_eq!(authenticate(&front, None).await, Ok(None), "headers without a certificate are ignored");
        let named = authenticate(&front, Some(&certificate(&ca, "mallory"))).await.unwrap_err();
        assert_eq!(named, CertificateError::Name("mallory".into()).into());
        assert!(authenticate(&proxy(&ca, &[]), Some(&certificate(&ca, "anybody"))).await.unwrap().is_some());
        assert!(authenticate(&front, Some(&certificate(&other, "front"))).await.is_err());
    }

    #[test]
    fn strips_front_proxy_headers() {
        let mut headers = headers();
        proxy(&authority(None), &[]).strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
