//! `nave store`: upkeep and copies of stores.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nave_loadtest::http::Call;
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::{Server, server_binary};
use serde_json::json;
use tokio::process::Command;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ALONE: [&str; 2] = ["--controllers=none", "--disable-admission-plugins=ServiceAccount"];

/// Runs `nave store` and returns its exit code and output.
async fn store(arguments: &[&str]) -> (i32, String) {
    let ran = Command::new(server_binary()).arg("store").args(arguments).output().await.unwrap();
    let text = [ran.stdout, ran.stderr].concat();
    (ran.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Runs a command that must succeed.
async fn succeeds(arguments: &[&str]) -> String {
    let (code, text) = store(arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

/// Returns the digest in an output.
fn digest(text: &str) -> &str {
    text.split_once("digest ").map(|(_, digest)| digest.trim()).unwrap()
}

async fn server_with_objects() -> Server {
    let server = Server::start_with(&ALONE).await;
    let pool = server.target().pool(1).await.unwrap();
    for number in 0..600 {
        let map = json!({"metadata": {"name": format!("map-{number}")}, "data": {"text": "x".repeat(500)}});
        pool.call(&Call::post(MAPS, map.to_string())).await.unwrap();
    }
    server
}

fn is_private(folder: &Path) {
    for file in fs::read_dir(folder).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", folder.display());
    }
}

#[tokio::test]
async fn upkeep_and_snapshots_of_the_embedded_store() {
    let mut server = server_with_objects().await;
    let data = server.folder().join("data").display().to_string();
    for command in [&["status"][..], &["compact"], &["defrag"], &["check"], &["snapshot", "/nowhere"]] {
        let arguments = [command, &["--data-dir", &data]].concat();
        let (code, text) = store(&arguments).await;
        assert!(code == 3 && text.contains(&format!("pid {}", server.pid())), "{command:?}: {text}");
    }
    server.terminate().await;

    let status = succeeds(&["status", "--data-dir", &data]).await;
    assert!(status.contains("engine    embedded") && status.contains("keys      "), "{status}");
    let before = succeeds(&["check", "--data-dir", &data]).await;
    succeeds(&["compact", "--data-dir", &data]).await;
    assert!(succeeds(&["compact", "--revision", "1", "--data-dir", &data]).await.contains("already"));
    let (code, text) = store(&["compact", "--revision", "1000000", "--data-dir", &data]).await;
    assert!(code == 1 && text.contains("future revision"), "{text}");
    assert!(succeeds(&["defrag", "--data-dir", &data]).await.contains("bytes"));
    let after = succeeds(&["check", "--data-dir", &data]).await;
    assert_eq!(digest(&before), digest(&after));

    let snapshot = server.folder().join("snapshot").display().to_string();
    succeeds(&["snapshot", &snapshot, "--data-dir", &data]).await;
    assert_eq!(store(&["snapshot", &snapshot, "--data-dir", &data]).await.0, 1);
    let restored = tempfile::tempdir().unwrap();
    let target = restored.path().join("data");
    let text = succeeds(&["restore", &snapshot, "--data-dir", &target.display().to_string()]).await;
    assert_eq!(digest(&before), digest(text.split(" in ").next().unwrap()));
    let (code, text) = store(&["restore", &snapshot, "--data-dir", &target.display().to_string()]).await;
    assert!(code == 1 && text.contains("exist"), "{text}");
    for folder in [Path::new(&snapshot), &target.join("store"), Path::new(&data).join("store").as_path()] {
        is_private(folder);
    }
    let server = Server::start_in(restored, &ALONE).await;
    assert!(server.kubectl(&["get", "configmap", "map-599", "-o", "name"]).await.contains("map-599"));
}

#[tokio::test]
async fn check_finds_damage() {
    let mut server = server_with_objects().await;
    server.terminate().await;
    let data = server.folder().join("data").display().to_string();
    let file = Path::new(&data).join("store/store.redb");
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2..].fill(0xa5);
    for bytes in [damaged, b"hello".to_vec(), whole[..5000].to_vec()] {
        fs::write(&file, bytes).unwrap();
        let (code, text) = store(&["check", "--data-dir", &data]).await;
        assert!(code == 4 && text.contains("is damaged") && !text.contains("panicked"), "{text}");
    }
    fs::write(&file, whole).unwrap();
    succeeds(&["check", "--data-dir", &data]).await;
    let (code, text) = store(&["check", "--data-dir", "/nowhere"]).await;
    assert!(code == 1 && text.contains("has no store"), "{text}");
    assert_eq!(store(&["migrate", "--to", "etcd"]).await.0, 2);
    assert_eq!(store(&["migrate", "--to", "disk"]).await.0, 2);
}

#[tokio::test]
async fn migrates_to_etcd_and_back() {
    let mut server = server_with_objects().await;
    server.terminate().await;
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let (data, servers) = (server.folder().join("data").display().to_string(), etcd.url());
    let there = ["migrate", "--to", "etcd", "--data-dir", &data, "--etcd-servers", &servers];
    let copied = succeeds(&there).await;
    let (code, text) = store(&there).await;
    assert!(code == 1 && text.contains("the target is not empty"), "{text}");
    assert!(succeeds(&["status", "--etcd-servers", &servers]).await.contains("engine    etcd"));

    let over_etcd = format!("--etcd-servers={servers}");
    let other = Server::start_with(&[ALONE[0], ALONE[1], &over_etcd]).await;
    assert!(other.kubectl(&["get", "configmap", "map-599", "-o", "name"]).await.contains("map-599"));
    drop(other);

    let back = tempfile::tempdir().unwrap();
    let folder = back.path().join("data").display().to_string();
    let returned =
        succeeds(&["migrate", "--to", "embedded", "--data-dir", &folder, "--etcd-servers", &servers]).await;
    assert!(copied.contains("digest") && returned.contains("digest"));
    let checked = succeeds(&["check", "--data-dir", &folder]).await;
    assert_eq!(digest(&checked), digest(&returned));
    let snapshot = back.path().join("snapshot").display().to_string();
    succeeds(&["snapshot", &snapshot, "--etcd-servers", &servers]).await;
    assert!(Path::new(&snapshot).join("snapshot.db").is_file());
    succeeds(&["compact", "--etcd-servers", &servers]).await;
    succeeds(&["defrag", "--etcd-servers", &servers]).await;
    let server = Server::start_in(back, &ALONE).await;
    assert!(server.kubectl(&["get", "configmap", "map-0", "-o", "name"]).await.contains("map-0"));
}
