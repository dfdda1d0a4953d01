//! Client certificates of users and of a front proxy, created with openssl.

use nave_tests::{Server, eventually};
use tempfile::tempdir;

use super::{Caller, authority, certificate, openssl};

#[tokio::test]
async fn accepts_client_certificates_of_the_client_ca() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_owned();
    authority(&path, "ours");
    authority(&path, "theirs");
    let alice = "/O=dev/O=ops/CN=alice";
    certificate(&path, "ours", "alice", alice, "clientAuth", 30);
    certificate(&path, "ours", "server", alice, "serverAuth", 30);
    certificate(&path, "ours", "over", alice, "clientAuth", 0);
    certificate(&path, "theirs", "stranger", "/O=system:masters/CN=mallory", "clientAuth", 30);
    std::fs::copy(path.join("ours.crt"), path.join("believed.crt")).unwrap();
    let flag = format!("--client-ca-file={}", path.join("believed.crt").display());
    let server = Server::start_in(folder, &[&flag]).await;

    let (name, groups) = Caller::with_certificate(&server, &path, "alice").user(&[]).await.unwrap();
    assert_eq!(
        (name.as_str(), groups),
        ("alice", ["dev", "ops", "system:authenticated"].map(str::to_owned).to_vec())
    );
    for wrong in ["server", "stranger"] {
        assert_eq!(Caller::with_certificate(&server, &path, wrong).user(&[]).await, Err(401), "{wrong}");
    }
    let over = Caller::with_certificate(&server, &path, "over");
    eventually("a certificate whose time is over is refused", async || over.user(&[]).await == Err(401))
        .await;
    // An invalid certificate is not treated as anonymous: even health checks are rejected.
    assert_eq!(Caller::with_certificate(&server, &path, "stranger").get("/healthz", &[]).await, Some(401));
    assert_eq!(Caller::without_certificate(&server).get("/healthz", &[]).await, Some(200));

    // A change of the file also affects existing connections.
    let (alice, stranger) = (
        Caller::with_certificate(&server, &path, "alice"),
        Caller::with_certificate(&server, &path, "stranger"),
    );
    assert!(alice.user(&[]).await.is_ok());
    std::fs::copy(path.join("theirs.crt"), path.join("believed.crt")).unwrap();
    eventually("the other authority is believed", async || stranger.user(&[]).await.is_ok()).await;
    assert_eq!(alice.user(&[]).await, Err(401));
}

/// As openssl makes them without a file of extensions.
#[tokio::test]
async fn accepts_certificates_of_version_1() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_owned();
    for name in ["ours", "theirs"] {
        authority(&path, name);
        openssl(
            &path,
            &format!("req -new -newkey rsa:2048 -nodes -subj /CN=old -keyout {name}1.key -out {name}1.csr"),
        );
        let signer = format!("-CA {name}.crt -CAkey {name}.key -CAcreateserial -days 30");
        openssl(&path, &format!("x509 -req -in {name}1.csr {signer} -out {name}1.crt"));
    }
    let file = |name: &str| path.join(name).display().to_string();
    let server = Server::start_in(folder, &[&format!("--client-ca-file={}", file("ours.crt"))]).await;

    let (name, _) = Caller::with_certificate(&server, &path, "ours1").user(&[]).await.unwrap();
    assert_eq!(name, "old");
    assert_eq!(Caller::with_certificate(&server, &path, "theirs1").user(&[]).await, Err(401));
    let identity = [
        format!("--client-certificate={}", file("ours1.crt")),
        format!("--client-key={}", file("ours1.key")),
    ];
    let name = "-o=jsonpath={.status.userInfo.username}";
    let user = server.kubectl(&["auth", "whoami", name, &identity[0], &identity[1]]).await;
    assert_eq!(user, "old");
}

#[tokio::test]
async fn accepts_proxy_headers_from_the_proxy_only() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_owned();
    authority(&path, "users");
    authority(&path, "proxies");
    certificate(&path, "users", "alice", "/CN=alice", "clientAuth", 30);
    certificate(&path, "proxies", "front", "/CN=front", "clientAuth", 30);
    certificate(&path, "proxies", "other", "/CN=other", "clientAuth", 30);
    let file = |name: &str| path.join(name).display().to_string();
    let server = Server::start_in(
        folder,
        &[
            &format!("--client-ca-file={}", file("users.crt")),
            &format!("--requestheader-client-ca-file={}", file("proxies.crt")),
            "--requestheader-allowed-names=front",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ],
    )
    .await;
    let bob = [("x-remote-user", "bob"), ("x-remote-group", "dev"), ("x-remote-group", "ops")];
    let (name, groups) = Caller::with_certificate(&server, &path, "front").user(&bob).await.unwrap();
    assert_eq!((name.as_str(), groups.len()), ("bob", 3));
    let masters = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    let alice = Caller::with_certificate(&server, &path, "alice");
    assert_eq!(alice.user(&masters).await.unwrap().0, "alice", "a user is no proxy");
    assert_eq!(Caller::with_certificate(&server, &path, "other").user(&masters).await, Err(401));
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(
        Caller::without_certificate(&server).get(secrets, &masters).await,
        Some(403),
        "headers alone are nothing"
    );
}
