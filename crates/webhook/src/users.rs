//! The credentials with which webhooks of objects are called (upstream: `apiserver/pkg/util/webhook/authentication.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;

use crate::kubeconfig::{Credentials, FileError, Identity, KubeconfigUsers};
use crate::secret;

/// The users of a kubeconfig, by the host at which they authenticate. The names of users are hosts: `host:port`,
/// `name.namespace.svc`, `*.example.com`, or `*` for all others. A host without a user gets the user of the current
/// context, if there is one.
pub struct Users(KubeconfigUsers);

/// The credentials for one host.
#[derive(Default)]
pub(crate) struct HostCredentials {
    /// The client certificate.
    pub(crate) identity: Option<Identity>,
    pub(crate) authorization: Authorization,
}

/// The header `Authorization` of a call.
#[derive(Clone, Default)]
pub(crate) enum Authorization {
    #[default]
    Anonymous,
    /// The value of the header.
    Header(HeaderValue),
    /// A file with a bearer token. Its content may change.
    TokenFile(Arc<Path>),
}

/// The token file of a call cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub(crate) struct TokenFileError {
    pub(crate) path: PathBuf,
    pub(crate) error: std::io::Error,
}

impl Users {
    /// Reads the users of a kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig or a file it refers to cannot be read, or a user has unsupported credentials.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let users = KubeconfigUsers::read(path)?;
        for user in users.users.values() {
            Authorization::of_user(user)?;
        }
        Ok(Self(users))
    }

    /// Returns the credentials for a host and port.
    pub(crate) fn for_host(&self, host: &str, port: u16) -> Result<HostCredentials, FileError> {
        let users = &self.0.users;
        let with_port = format!("{host}:{port}");
        let named = by_name(users, &with_port)
            .or_else(|| by_name(users, host).filter(|_| port == 443))
            .or_else(|| users.get("*"))
            .or_else(|| users.get(self.0.current.as_ref()?));
        let Some(user) = named else { return Ok(HostCredentials::default()) };
        Ok(HostCredentials {
            identity: user.identity.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key())),
            authorization: Authorization::of_user(user)?,
        })
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.0.users.keys()).finish()
    }
}

/// Returns the user with this name, or with a name in which `*` stands for the first labels.
fn by_name<'u>(users: &'u BTreeMap<String, Credentials>, target: &str) -> Option<&'u Credentials> {
    let suffixes =
        target.match_indices('.').map(|(at, _)| format!("*{}", target.get(at..).unwrap_or_default()));
    std::iter::once(target.to_owned()).chain(suffixes).find_map(|name| users.get(&name))
}

impl Authorization {
    fn of_user(user: &Credentials) -> Result<Self, FileError> {
        Self::new(user.token_file.as_deref(), user.token.as_deref(), user.password.as_ref())
    }

    /// Creates the header of a user: the token in the file, the token, or the name and password.
    ///
    /// # Errors
    /// A credential cannot be sent in a header.
    pub(crate) fn new(
        token_file: Option<&Path>,
        token: Option<&str>,
        password: Option<&(String, String)>,
    ) -> Result<Self, FileError> {
        Ok(match (token_file, token, password) {
            (Some(file), ..) => Self::TokenFile(file.into()),
            (None, Some(token), _) => Self::Header(secret(&format!("Bearer {token}"))?),
            (None, None, Some((name, password))) => {
                let pair = BASE64_STANDARD.encode(format!("{name}:{password}"));
                Self::Header(secret(&format!("Basic {pair}"))?)
            }
            (None, None, None) => Self::Anonymous,
        })
    }

    /// Returns the value of the header.
    ///
    /// # Errors
    /// The token file cannot be read.
    pub(crate) async fn value(&self) -> Result<Option<HeaderValue>, TokenFileError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Header(value) => Ok(Some(value.clone())),
            Self::TokenFile(path) => {
                let in_file = |error| TokenFileError { path: path.to_path_buf(), error };
                let token = tokio::fs::read_to_string(path).await.map_err(in_file)?;
                let value = secret(&format!("Bearer {}", token.trim()));
                value.map(Some).map_err(|_| in_file(std::io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_user_authenticates_at_a_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let names = ["hook.ns.svc", "hook.ns.svc:8443", "*.example.com", "a.example.com:1", "current"];
        let users = names.map(|name| format!("{{name: '{name}', user: {{token: '{name}'}}}}")).join(", ");
        let contexts = "contexts: [{name: x, context: {user: current}}]\ncurrent-context: x\n";
        std::fs::write(&path, format!("users: [{users}]\n{contexts}")).unwrap();
        let users = Users::read(&path).unwrap();
        for (host, port, name) in [
            ("hook.ns.svc", 443, "hook.ns.svc"),
            ("hook.ns.svc", 8443, "hook.ns.svc:8443"),
            ("hook.ns.svc", 8444, "current"),
            ("b.example.com", 443, "*.example.com"),
            ("b.c.example.com", 443, "*.example.com"),
            ("b.example.com", 444, "current"),
            ("a.example.com", 1, "a.example.com:1"),
            ("example.com", 443, "current"),
        ] {
            let Authorization::Header(value) = users.for_host(host, port).unwrap().authorization else {
                panic!("{host}:{port} has no user")
            };
            assert_eq!(value, format!("Bearer {name}"), "{host}:{port}");
        }
        assert!(!format!("{users:?}").contains("Bearer"));
    }
}
