//! nave under other names: as kube-apiserver with the command line of a kubeadm static pod, and as the two programs
//! that controller-runtime's envtest starts.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nave_loadtest::http::{Call, Target};
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::{eventually, server_binary};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A CA whose files are in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn create(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.join(format!("{name}.crt")), &certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        Self { folder: folder.to_owned(), certificate, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for a server on this machine or for the client `user`, optionally in a group.
    pub(crate) fn issue(&self, file: &str, user: &str, group: Option<&str>) {
        let mut params =
            CertificateParams::new(["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned))
                .unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        std::fs::write(self.folder.join(format!("{file}.crt")), certificate).unwrap();
        std::fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// A program that is ended when the value is dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Runs the binary under another name, in a folder with this link.
    pub(crate) fn start(folder: &Path, name: &str, flags: &[String]) -> Self {
        let link = folder.join(name);
        if !link.exists() {
            symlink(server_binary(), &link).unwrap();
        }
        let log = folder.join(format!("{name}.log"));
        let file = || std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(&link);
        command.args(flags).current_dir(folder).stdin(Stdio::null()).stdout(file()).stderr(file());
        Self { child: command.spawn().unwrap(), log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let mut ended = None;
        eventually("the program ends", async || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.and_then(|status| status.code())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns a client with the certificate `client.crt` in the folder, for a server that the CA `ca.crt` signed.
pub(crate) fn client(folder: &Path, port: u16, ca: &str) -> Target {
    let at = |name: &str| folder.join(name).display().to_string();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": at(ca)}}],
        "users": [{"name": "u", "user": {"client-certificate": at("client.crt"), "client-key": at("client.key")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let file = folder.join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    Target::from_kubeconfig(&file).unwrap()
}

pub(crate) async fn get(target: &Target, path: &str) -> Option<Vec<u8>> {
    let pool = target.pool(1).await.ok()?;
    pool.call(&Call::get(path)).await.ok().map(|answer| answer.to_vec())
}

pub(crate) async fn is_ready(target: &Target) -> bool {
    get(target, "/readyz").await.is_some()
}

pub(crate) async fn create_map(target: &Target, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    target.pool(1).await.unwrap().call(&Call::post(MAPS, object.to_string())).await.unwrap();
}

fn texts(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|&flag| flag.to_owned()).collect()
}

#[tokio::test]
async fn command_line_of_kubeadm_works_as_it_is() {
    let folder = TempDir::new().unwrap();
    let pki = folder.path();
    let ca = Authority::create(pki, "ca");
    ca.issue("apiserver", "kube-apiserver", None);
    ca.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"));
    ca.issue("client", "kubernetes-admin", Some("system:masters"));
    Authority::create(pki, "front-proxy-ca").issue("front-proxy-client", "front-proxy-client", None);
    let etcd_ca = Authority::create(pki, "etcd-ca");
    etcd_ca.issue("etcd-server", "etcd", None);
    etcd_ca.issue("apiserver-etcd-client", "kube-apiserver-etcd-client", None);
    let sa = KeyPair::generate().unwrap();
    std::fs::write(pki.join("sa.key"), sa.serialize_pem()).unwrap();
    std::fs::write(pki.join("sa.pub"), sa.public_key_pem()).unwrap();

    let etcd_flags = [
        format!("--cert-file={}", pki.join("etcd-server.crt").display()),
        format!("--key-file={}", pki.join("etcd-server.key").display()),
        format!("--trusted-ca-file={}", pki.join("etcd-ca.crt").display()),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = EtcdProcess::start_with("https", &installed_etcd("3.5"), &etcd_flags);
    let port = free_port();
    let mut flags = texts(&[
        "--advertise-address=127.0.0.1",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--client-ca-file=ca.crt",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth=true",
        "--etcd-cafile=etcd-ca.crt",
        "--etcd-certfile=apiserver-etcd-client.crt",
        "--etcd-keyfile=apiserver-etcd-client.key",
        "--kubelet-client-certificate=apiserver-kubelet-client.crt",
        "--kubelet-client-key=apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--proxy-client-cert-file=front-proxy-client.crt",
        "--proxy-client-key-file=front-proxy-client.key",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-client-ca-file=front-proxy-ca.crt",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        "--runtime-config=",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-key-file=sa.pub",
        "--service-account-signing-key-file=sa.key",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
    ]);
    flags.extend([format!("--etcd-servers={}", etcd.url()), format!("--secure-port={port}")]);
    flags.push(format!("--cert-dir={}", pki.join("certs").display()));
    let mut server = Program::start(pki, "kube-apiserver", &flags);
    let admin = client(pki, port, "ca.crt");
    eventually("the server is ready", async || is_ready(&admin).await).await;
    create_map(&admin, "a").await;

    // The CAs of the flags are published, and no other CA is accepted.
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published: Value = serde_json::from_slice(&get(&admin, path).await.unwrap()).unwrap();
    assert_eq!(published["data"]["client-ca-file"].as_str().unwrap().trim(), ca.certificate.trim());
    let services = get(&admin, "/api/v1/namespaces/default/services/kubernetes").await.unwrap();
    let service: Value = serde_json::from_slice(&services).unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    assert!(!server.log().contains("flags without effect"), "{}", server.log());
    assert_eq!(server.terminate().await, Some(0));
}

#[tokio::test]
async fn serves_envtest_as_etcd_and_kube_apiserver() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ca = Authority::create(folder.path(), "ca");
    ca.issue("apiserver", "localhost", None);
    ca.issue("client", "admin", Some("system:masters"));
    Authority::create(folder.path(), "sa-signer");
    let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
    let etcd_url = format!("http://127.0.0.1:{client_port}");
    let etcd_flags = [
        format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
        format!("--data-dir={}", at("etcd-data").display()),
        format!("--advertise-client-urls={etcd_url}"),
        format!("--listen-client-urls={etcd_url}"),
        "--unsafe-no-fsync=true".to_owned(),
    ];
    let flags = [
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", folder.path().display()),
        format!("--client-ca-file={}", at("ca.crt").display()),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--etcd-servers={etcd_url}"),
        format!("--secure-port={port}"),
        format!("--service-account-issuer=https://127.0.0.1:{port}/"),
        format!("--service-account-key-file={}", at("sa-signer.crt").display()),
        format!("--service-account-signing-key-file={}", at("sa-signer.key").display()),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
    ];
    let admin = client(folder.path(), port, "ca.crt");
    for round in 0..2 {
        let mut etcd = Program::start(folder.path(), "etcd", &etcd_flags);
        // envtest waits for /health of etcd before it starts the server.
        eventually("etcd is healthy", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", client_port)).await.is_ok()
        })
        .await;
        let mut server = Program::start(folder.path(), "kube-apiserver", &flags);
        eventually("the server is ready", async || is_ready(&admin).await).await;
        create_map(&admin, &format!("map-{round}")).await;
        // Objects of the first round are still there in the second one.
        let list: Value = serde_json::from_slice(&get(&admin, MAPS).await.unwrap()).unwrap();
        let names = list["items"].as_array().unwrap().iter();
        let names = names.filter(|map| map["metadata"]["name"].as_str().unwrap().starts_with("map-"));
        assert_eq!(names.count(), round + 1);
        assert_eq!(server.terminate().await, Some(0));
        assert_eq!(etcd.terminate().await, Some(0));
    }
    assert!(at("etcd-data/store").is_dir());
}

#[test]
fn help_has_the_flags_that_envtest_looks_for() {
    let folder = TempDir::new().unwrap();
    let help = |name: &str| {
        symlink(server_binary(), folder.path().join(name)).unwrap();
        let output = Command::new(folder.path().join(name)).arg("--help").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |help: &str, flag: &str| help.lines().any(|line| line.trim_start().starts_with(flag));
    let (etcd, server) = (help("etcd"), help("kube-apiserver"));
    assert!(has(&etcd, "--unsafe-no-fsync"));
    assert!(has(&server, "--etcd-servers") && !has(&server, "--insecure-port"));
}
