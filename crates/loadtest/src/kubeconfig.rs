//! The few fields of a kubeconfig that name a server and prove who calls.

use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::LoadError;

/// The current context of a kubeconfig, with every file it refers to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The server's URL.
    pub server: String,
    /// The name its certificate must bear, where that is not the host of the URL.
    pub tls_server_name: Option<String>,
    /// PEM of the authorities that may have signed its certificate.
    pub certificate_authority: Vec<u8>,
    /// PEM of the client's certificate chain and of its key.
    pub client_identity: Option<(Vec<u8>, Vec<u8>)>,
    /// A bearer token.
    pub token: Option<String>,
}

impl Kubeconfig {
    /// Reads the current context of the file.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = fs::read_to_string(path).map_err(|e| LoadError::File(path.to_owned(), e))?;
        let problem = |problem: String| LoadError::Kubeconfig { path: path.to_owned(), problem };
        let file: File = serde_saphyr::from_str(&text).map_err(|e| problem(e.to_string()))?;
        file.resolve(path.parent().unwrap_or(Path::new("."))).map_err(problem)
    }
}

/// The file's layout, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
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
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl File {
    fn resolve(self, folder: &Path) -> Result<Kubeconfig, String> {
        let named = |what: &str, name: &str| format!("no {what} is named {name:?}");
        let context = self.contexts.into_iter().find(|c| c.name == self.current_context);
        let context = context.ok_or_else(|| named("context", &self.current_context))?.context;
        let cluster = self.clusters.into_iter().find(|c| c.name == context.cluster);
        let cluster = cluster.ok_or_else(|| named("cluster", &context.cluster))?.cluster;
        let user = self.users.into_iter().find(|u| u.name == context.user);
        let user = user.ok_or_else(|| named("user", &context.user))?.user;

        let pem = |data, file| data_or_file(folder, data, file);
        let authority = pem(cluster.certificate_authority_data, cluster.certificate_authority)?;
        let certificate = pem(user.client_certificate_data, user.client_certificate)?;
        let key = pem(user.client_key_data, user.client_key)?;
        let token = match (user.token, user.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => {
                Some(read(folder, &file).map(|t| String::from_utf8_lossy(&t).trim().to_owned())?)
            }
            (None, None) => None,
        };
        Ok(Kubeconfig {
            server: cluster.server,
            tls_server_name: cluster.tls_server_name,
            certificate_authority: authority.ok_or("the cluster names no certificate authority")?,
            client_identity: certificate.zip(key),
            token,
        })
    }
}

fn data_or_file(
    folder: &Path,
    data: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) => STANDARD.decode(data).map(Some).map_err(|e| format!("base64: {e}")),
        (None, Some(file)) => read(folder, &file).map(Some),
        (None, None) => Ok(None),
    }
}

/// Relative paths in a kubeconfig are relative to its folder.
fn read(folder: &Path, file: &Path) -> Result<Vec<u8>, String> {
    fs::read(folder.join(file)).map_err(|e: io::Error| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: two
contexts:
- {name: one, context: {cluster: a, user: a}}
- {name: two, context: {cluster: b, user: b, namespace: x}}
clusters:
- name: b
  cluster: {server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}
users:
- name: b
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5, token: secret}
";

    #[test]
    fn the_current_context_is_resolved_with_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), "authority").unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, FILE).unwrap();
        let read = Kubeconfig::read(&path).unwrap();
        assert_eq!(read.server, "https://127.0.0.1:6443");
        assert_eq!(read.certificate_authority, b"authority");
        assert_eq!(read.client_identity, Some((b"cert".to_vec(), b"key".to_vec())));
        assert_eq!(read.token.as_deref(), Some("secret"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, FILE.replace("current-context: two", "current-context: one")).unwrap();
        let error = Kubeconfig::read(&path).unwrap_err().to_string();
        assert!(error.ends_with(r#"no cluster is named "a""#), "{error}");
    }
}
