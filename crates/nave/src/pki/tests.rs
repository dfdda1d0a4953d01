//! The life cycle of the folder: created, reused, renewed, damaged.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, time::UNIX_EPOCH};

use super::*;

fn addresses(list: &[[u8; 4]]) -> BTreeSet<IpAddr> {
    list.iter().map(|address| IpAddr::V4(Ipv4Addr::from(*address))).collect()
}

/// Returns a fixed time, so that tests do not depend on the date.
fn start() -> SystemTime {
    UNIX_EPOCH + DAY * 20_000
}

fn open(folder: &Path, now: SystemTime) -> Result<Pki, PkiError> {
    Pki::open(folder.join("pki"), addresses(&[[127, 0, 0, 1], [10, 0, 0, 1]]), now)
}

#[test]
fn keys_have_mode_0600() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), start()).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(folder.path().join("pki")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let wanted = if name.contains(".key") { 0o600 } else { 0o644 };
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, wanted, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 12);
    assert_eq!(fs::metadata(folder.path().join("pki")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn front_proxy_has_a_ca_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path(), start()).unwrap();
    let client = Facts::read(&pki.front_proxy.client.certificate).unwrap();
    assert!(client.is_signed_by(&pki.front_proxy.ca.certificate));
    assert!(!client.is_signed_by(&pki.ca.certificate));
    let again = open(folder.path(), start() + DAY).unwrap();
    assert!(again.front_proxy == pki.front_proxy);
    let later = open(folder.path(), start() + 300 * DAY).unwrap();
    assert!(later.front_proxy.ca == pki.front_proxy.ca && later.front_proxy.client != pki.front_proxy.client);
}

#[test]
fn serving_certificate_has_all_names_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path(), start()).unwrap();
    let facts = Facts::read(&pki.serving.certificate).unwrap();
    assert_eq!(facts.names, SERVING_NAMES.map(str::to_owned).into());
    assert_eq!(facts.addresses, addresses(&[[127, 0, 0, 1], [10, 0, 0, 1]]));
    assert!(facts.is_signed_by(&pki.ca.certificate));
    assert!(Facts::read(&pki.admin.certificate).unwrap().is_signed_by(&pki.ca.certificate));
}

#[test]
fn reuses_files_until_two_thirds_of_their_validity() {
    let folder = tempfile::tempdir().unwrap();
    let mut pki = open(folder.path(), start()).unwrap();
    let first = (pki.ca.clone(), pki.serving.clone(), pki.admin.clone());
    assert!(!pki.renew(start() + 240 * DAY).unwrap());
    assert!(pki.serving == first.1);
    assert!(pki.renew(start() + 244 * DAY).unwrap());
    assert!(pki.ca == first.0 && pki.serving != first.1 && pki.admin != first.2);
    let again = open(folder.path(), start() + 245 * DAY).unwrap();
    assert!(again.serving == pki.serving && again.admin == pki.admin);
}

#[test]
fn renewed_ca_keeps_its_key_and_leaf_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let late = start() + 2400 * DAY;
    let old = open(folder.path(), start()).unwrap();
    let before = open(folder.path(), late).unwrap();
    let after = open(folder.path(), late + 100 * DAY).unwrap();
    assert!(old.ca == before.ca);
    assert!(after.ca.certificate != before.ca.certificate && after.ca.key == before.ca.key);
    assert!(after.serving == before.serving);
}

#[test]
fn reissues_certificates_that_do_not_match() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), start()).unwrap();
    let more = addresses(&[[127, 0, 0, 1], [10, 0, 0, 1], [192, 0, 2, 1]]);
    let moved = Pki::open(folder.path().join("pki"), more, start()).unwrap();
    assert!(moved.serving != first.serving && moved.admin == first.admin && moved.ca == first.ca);

    fs::write(folder.path().join("pki/admin.crt"), "nonsense").unwrap();
    fs::write(folder.path().join("pki/apiserver.key"), &moved.admin.key).unwrap();
    let mended = open(folder.path(), start()).unwrap();
    assert!(mended.admin != moved.admin && mended.serving != moved.serving);

    fs::remove_file(folder.path().join("pki/ca.crt")).unwrap();
    fs::remove_file(folder.path().join("pki/ca.key")).unwrap();
    let other = open(folder.path(), start()).unwrap();
    assert!(Facts::read(&other.serving.certificate).unwrap().is_signed_by(&other.ca.certificate));
}

#[test]
fn never_replaces_an_incomplete_ca() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path(), start()).unwrap();
    let (certificate, key) = (folder.path().join("pki/ca.crt"), folder.path().join("pki/ca.key"));
    for (path, text) in [(&certificate, "nonsense"), (&key, "nonsense"), (&key, pki.admin.key.as_str())] {
        let kept = fs::read_to_string(path).unwrap();
        fs::write(path, text).unwrap();
        assert!(matches!(open(folder.path(), start()), Err(PkiError::Ca { .. })));
        fs::write(path, kept).unwrap();
    }
    fs::remove_file(&key).unwrap();
    let error = open(folder.path(), start()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
}

#[test]
fn tightens_modes_of_readable_keys() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    fs::create_dir(&pki).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&pki, 0o755);
    fs::write(pki.join("sa.key"), "another key of the server").unwrap();
    for _ in 0..2 {
        open(folder.path(), start()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&pki), 0o700);
        for name in ["ca.key", "apiserver.key", "admin.key", "sa.key"] {
            assert_eq!(mode(&pki.join(name)), 0o600, "{name}");
            set(&pki.join(name), 0o644);
        }
        set(&pki, 0o755);
    }
}
