//! The endpoint at which the embedded store speaks etcd's API: other servers use the store, and clients without a
//! certificate do not.

use nave_store::etcd::{Options, TlsFiles};
use nave_store::{Etcd, Store, StoreError};
use nave_tests::eventually;
use serde_json::Value;
use tempfile::TempDir;

use crate::drop_in::{Authority, MAPS, Program, client, create_map, free_port, get, is_ready};

#[tokio::test]
async fn two_servers_use_the_store_of_a_third() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ca = Authority::create(folder.path(), "ca");
    ca.issue("server", "localhost", None);
    ca.issue("client", "admin", Some("system:masters"));
    let (etcd_port, ports) = (free_port(), [free_port(), free_port(), free_port()]);
    let etcd_url = format!("https://127.0.0.1:{etcd_port}");
    let start = |index: usize, own: [String; 4]| {
        let mut flags = vec![
            format!("--data-dir={}", at(&format!("data-{index}")).display()),
            format!("--secure-port={}", ports[index]),
            format!("--client-ca-file={}", at("ca.crt").display()),
            format!("--tls-cert-file={}", at("server.crt").display()),
            format!("--tls-private-key-file={}", at("server.key").display()),
            "--controllers=none".to_owned(),
        ];
        flags.extend(own);
        Program::start(folder.path(), &format!("nave-{index}"), &flags)
    };
    let mut programs = vec![start(
        0,
        [
            format!("--etcd-listen-address=127.0.0.1:{etcd_port}"),
            format!("--etcd-listen-cert-file={}", at("server.crt").display()),
            format!("--etcd-listen-key-file={}", at("server.key").display()),
            format!("--etcd-listen-client-ca-file={}", at("ca.crt").display()),
        ],
    )];
    for index in 1..=2 {
        let flags = [
            format!("--etcd-servers={etcd_url}"),
            format!("--etcd-cafile={}", at("ca.crt").display()),
            format!("--etcd-certfile={}", at("client.crt").display()),
            format!("--etcd-keyfile={}", at("client.key").display()),
        ];
        programs.push(start(index, flags));
    }
    let admins = ports.map(|port| client(folder.path(), port, "ca.crt"));
    for (admin, program) in admins.iter().zip(&programs) {
        eventually(&format!("the server is ready: {}", program.log()), async || is_ready(admin).await).await;
    }
    for (index, admin) in admins.iter().enumerate() {
        create_map(admin, &format!("map-{index}")).await;
    }
    for admin in &admins {
        let list: Value = serde_json::from_slice(&get(admin, MAPS).await.unwrap()).unwrap();
        let names = list["items"].as_array().unwrap().iter();
        let names = names.filter(|map| map["metadata"]["name"].as_str().unwrap().starts_with("map-"));
        assert_eq!(names.count(), admins.len());
    }

    let etcd = |identity| {
        let tls = TlsFiles { ca: Some(at("ca.crt")), identity };
        Etcd::new(Options { servers: vec![etcd_url.parse().unwrap()], tls, ..Options::default() })
    };
    let identified = etcd(Some((at("client.crt"), at("client.key"))));
    assert_eq!(identified.count("/registry/configmaps/default/map-").await.unwrap(), 3);
    let error = etcd(None).count("/registry/").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let stranger = Authority::create(folder.path(), "stranger");
    stranger.issue("other", "admin", None);
    let error = etcd(Some((at("other.crt"), at("other.key")))).count("/registry/").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}
