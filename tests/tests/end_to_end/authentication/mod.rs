//! Authentication: every kind of credential against the real server, and attacks.

mod attacks;
mod certificates;
mod delegation;
mod extension_servers;
mod issuers;
mod tokens;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use nave_tests::Server;
use nave_webhook::{Client, Roots, Tls};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// Sends requests with arbitrary credentials.
struct Caller {
    client: Client,
    server: String,
}

impl Caller {
    /// Creates a caller without a certificate.
    fn without_certificate(server: &Server) -> Self {
        Self::showing(server, None)
    }

    /// Creates a caller with a certificate: `NAME.crt` and `NAME.key` in a folder.
    fn with_certificate(server: &Server, folder: &Path, name: &str) -> Self {
        let read = |end| std::fs::read(folder.join(format!("{name}.{end}"))).unwrap();
        let chain = CertificateDer::pem_slice_iter(&read("crt")).map(Result::unwrap).collect();
        Self::showing(server, Some((chain, PrivateKeyDer::from_pem_slice(&read("key")).unwrap())))
    }

    fn showing(
        server: &Server,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let ca = std::fs::read(server.folder().join("data/pki/ca.crt")).unwrap();
        let roots = Roots::Custom(CertificateDer::pem_slice_iter(&ca).map(Result::unwrap).collect());
        let tls = Tls { roots, identity, server_name: None };
        Self { client: Client::new(tls, Duration::from_mins(2)).unwrap(), server: server.url() }
    }

    /// Returns the status of a GET; `None` if the server closes the connection instead.
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let answer = self.client.send(Method::GET, &self.uri(path), map(headers), Bytes::new()).await;
        answer.ok().map(|answer| answer.status.as_u16())
    }

    /// Creates an object; returns the status and the response.
    async fn create(&self, path: &str, headers: &[(&str, &str)], object: &Value) -> (u16, Value) {
        let mut headers = map(headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.post(&self.uri(path), headers, object.to_string().into()).await.unwrap();
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// Returns the user name and groups that the server assigns, or the status of a rejected request.
    async fn user(&self, headers: &[(&str, &str)]) -> Result<(String, Vec<String>), u16> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (status, answer) =
            self.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", headers, &review).await;
        if status != 201 {
            return Err(status);
        }
        let user = &answer["status"]["userInfo"];
        let groups =
            user["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap().to_owned());
        Ok((user["username"].as_str().unwrap().to_owned(), groups.collect()))
    }

    /// Returns the user name of a bearer token.
    async fn token(&self, token: &str) -> Result<String, u16> {
        self.user(&[("authorization", &format!("Bearer {token}"))]).await.map(|(name, _)| name)
    }

    fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.server).parse().unwrap()
    }
}

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn openssl(folder: &Path, arguments: &str) {
    let ran =
        Command::new("openssl").current_dir(folder).args(arguments.split_whitespace()).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Creates a CA: `NAME.crt`, `NAME.key`.
fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} -keyout {name}.key \
             -out {name}.crt"
        ),
    );
}

/// Creates a certificate signed by a CA: `NAME.crt`, `NAME.key`.
fn certificate(folder: &Path, authority: &str, name: &str, subject: &str, usage: &str, days: u32) {
    openssl(
        folder,
        &format!("req -new -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"),
    );
    let extensions = format!("basicConstraints=CA:FALSE\nextendedKeyUsage={usage}\n");
    std::fs::write(folder.join(format!("{name}.ext")), extensions).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days {days} \
             -extfile {name}.ext -out {name}.crt"
        ),
    );
}
