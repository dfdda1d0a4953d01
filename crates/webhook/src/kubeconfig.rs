//! Kubeconfig files: the cluster and the user of the current context, for webhooks and the load generator.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;

use crate::client::{ClientError, Roots, Tls};

/// Maximum size of a kubeconfig file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The error of reading a kubeconfig. Messages and `Debug` output never contain credentials.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: std::io::Error,
    },
    /// The file is not YAML with the fields of a kubeconfig.
    #[error("not a kubeconfig")]
    NotKubeconfig,
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The server's address is not a URL.
    #[error("the cluster's server {0:?} is not an http or https URL")]
    Server(String),
    /// An unsupported field is set.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Certificate authorities are set although verification is disabled.
    #[error("specifying a root certificates file with the insecure flag is not allowed")]
    Contradiction,
    /// A certificate or key is not valid PEM.
    #[error("{0} has no certificate or key in PEM form")]
    Pem(&'static str),
    /// The token or password cannot be sent in an HTTP header.
    #[error("the user's credential has characters that are not allowed in an HTTP header")]
    Credential,
    /// The TLS configuration is invalid.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The cluster and the user of the current context of a kubeconfig.
pub struct Kubeconfig {
    /// The server's URL (http or https).
    pub server: Uri,
    /// The certificate authorities and the client certificate.
    pub tls: Tls,
    /// The user's bearer token.
    pub token: Option<String>,
    /// The file with the user's bearer token. Its content may change.
    pub token_file: Option<PathBuf>,
    /// The user's name and password.
    pub password: Option<(String, String)>,
    /// All files that were read, including the kubeconfig.
    pub files: Vec<PathBuf>,
}

impl Kubeconfig {
    /// Reads a kubeconfig. Relative paths in it are resolved against its folder.
    ///
    /// # Errors
    /// The kubeconfig or a file it refers to cannot be read or is incomplete.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        read(path)
    }
}

/// The users of a kubeconfig by name, without its clusters. The names are hosts (see [`Users`](crate::Users)).
pub(crate) struct KubeconfigUsers {
    pub(crate) users: BTreeMap<String, Credentials>,
    /// The user of the current context.
    pub(crate) current: Option<String>,
}

/// The credentials of a user. At most one of the last three is used, the token file before the token.
pub(crate) struct Credentials {
    pub(crate) identity: Option<Identity>,
    pub(crate) token: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) password: Option<(String, String)>,
}

impl KubeconfigUsers {
    /// Reads the users of a kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig or a file it refers to cannot be read, or a user has unsupported credentials.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let config = Config::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let current = config.contexts.into_iter().find(|entry| entry.name == config.current_context);
        let users =
            config.users.into_iter().map(|NamedUser { name, user }| Ok((name, user.credentials(folder)?)));
        Ok(Self {
            users: users.collect::<Result<_, FileError>>()?,
            current: current.map(|entry| entry.context.user).filter(|user| !user.is_empty()),
        })
    }
}

impl User {
    fn credentials(self, folder: &Path) -> Result<Credentials, FileError> {
        if self.exec.is_some() || self.auth_provider.is_some() {
            return Err(FileError::Unsupported("a user's exec or auth-provider"));
        }
        Ok(Credentials {
            identity: identity(&self, folder)?,
            token: self.token.filter(|token| !token.is_empty()),
            token_file: self.token_file.map(|file| folder.join(file)),
            password: self.username.zip(self.password),
        })
    }
}

impl Config {
    fn read(path: &Path) -> Result<Self, FileError> {
        let text = read_bytes(path)?;
        let text = String::from_utf8(text).map_err(|_| FileError::NotKubeconfig)?;
        serde_saphyr::from_str(&text).map_err(|_| FileError::NotKubeconfig)
    }
}

fn read(path: &Path) -> Result<Kubeconfig, FileError> {
    let config = Config::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let context = config.contexts.into_iter().find(|entry| entry.name == config.current_context);
    let Context { cluster, user } = context.ok_or(FileError::Missing("the current context"))?.context;
    let cluster = config.clusters.into_iter().find(|entry| entry.name == cluster);
    let cluster = cluster.ok_or(FileError::Missing("the current context's cluster"))?.cluster;
    let user = config.users.into_iter().find(|entry| entry.name == user);
    let user = user.map(|entry| entry.user).unwrap_or_default();
    let named = [&cluster.ca, &user.certificate, &user.key].into_iter().flatten();
    let files = std::iter::once(path.to_owned()).chain(named.map(|file| folder.join(file)));
    let files = files.collect();
    let Credentials { identity, token, token_file, password } = user.credentials(folder)?;
    Ok(Kubeconfig {
        files,
        server: parse_server(&cluster.server)?,
        tls: Tls { roots: roots(&cluster, folder)?, identity, server_name: cluster.tls_server_name },
        token,
        token_file,
        password,
    })
}

fn parse_server(server: &str) -> Result<Uri, FileError> {
    let wrong = || FileError::Server(server.to_owned());
    let uri: Uri = server.parse().map_err(|_| wrong())?;
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(wrong());
    }
    Ok(uri)
}

fn roots(cluster: &Cluster, folder: &Path) -> Result<Roots, FileError> {
    const NAME: &str = "certificate-authority";
    let given = cluster.ca.is_some() || cluster.ca_data.as_ref().is_some_and(|data| !data.is_empty());
    if cluster.insecure_skip_tls_verify {
        return if given { Err(FileError::Contradiction) } else { Ok(Roots::Unchecked) };
    }
    let Some(pem) = inline_or_file(cluster.ca_data.as_deref(), cluster.ca.as_deref(), folder, NAME)? else {
        return Ok(Roots::System);
    };
    Ok(Roots::Custom(chain(&pem, NAME)?))
}

pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(user: &User, folder: &Path) -> Result<Option<Identity>, FileError> {
    const CERTIFICATE: &str = "client-certificate";
    const KEY: &str = "client-key";
    let certificate =
        inline_or_file(user.certificate_data.as_deref(), user.certificate.as_deref(), folder, CERTIFICATE)?;
    let key = inline_or_file(user.key_data.as_deref(), user.key.as_deref(), folder, KEY)?;
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(FileError::Missing(KEY)),
        (None, Some(_)) => Err(FileError::Missing(CERTIFICATE)),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| FileError::Pem(KEY))?;
            Ok(Some((chain(&certificate, CERTIFICATE)?, key)))
        }
    }
}

fn chain(pem: &[u8], name: &'static str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or(FileError::Pem(name))
}

/// Returns the inline data, or the content of the file. Inline data takes precedence, as upstream.
fn inline_or_file(
    data: Option<&str>,
    file: Option<&Path>,
    folder: &Path,
    name: &'static str,
) -> Result<Option<Vec<u8>>, FileError> {
    match (data.filter(|data| !data.is_empty()), file) {
        (Some(data), _) => BASE64_STANDARD.decode(data.trim()).map(Some).map_err(|_| FileError::Pem(name)),
        (None, Some(file)) => read_bytes(&folder.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    let in_file = |error| FileError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(in_file)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(in_file)?;
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(rename = "certificate-authority")]
    ca: Option<PathBuf>,
    #[serde(rename = "certificate-authority-data")]
    ca_data: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "client-certificate")]
    certificate: Option<PathBuf>,
    #[serde(rename = "client-certificate-data")]
    certificate_data: Option<String>,
    #[serde(rename = "client-key")]
    key: Option<PathBuf>,
    #[serde(rename = "client-key-data")]
    key_data: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}
