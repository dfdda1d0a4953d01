use std::{fs, time::Duration};

use super::*;
use crate::flags::{Cli, Task};

fn config(folder: &Path, more: &[(&str, &Path)]) -> Config {
    let mut arguments = vec!["nave".to_owned(), format!("--data-dir={}", folder.display())];
    arguments.extend(more.iter().map(|(flag, file)| format!("--{flag}={}", file.display())));
    match Cli::read(arguments).unwrap().validate().unwrap() {
        Task::Serve(config) => *config,
        _ => panic!("these are flags of serve"),
    }
}

fn error_of(config: &Config) -> String {
    let opened = Certificates::open(config).and_then(|certificates| certificates.client_cas());
    opened.unwrap_err().to_string()
}

#[test]
fn renews_own_certificates_while_running() {
    let folder = tempfile::tempdir().unwrap();
    let mut certificates = Certificates::open(&config(folder.path(), &[])).unwrap();
    let before = certificates.pair.clone();
    assert!(!certificates.refresh(SystemTime::now()).unwrap());
    let next_year = SystemTime::now() + Duration::from_hours(300 * 24);
    assert!(certificates.refresh(next_year).unwrap());
    assert!(
        certificates.pair != before
            && Some(&certificates.pair) == certificates.own.as_ref().map(|own| &own.serving)
    );
}

#[test]
fn reloads_a_given_certificate() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let given = Certificates::open(&config(other.path(), &[])).unwrap();
    let (crt, key) = (other.path().join("pki/apiserver.crt"), other.path().join("pki/apiserver.key"));
    let flags = [("tls-cert-file", crt.as_path()), ("tls-private-key-file", key.as_path())];
    let mut certificates = Certificates::open(&config(folder.path(), &flags)).unwrap();
    assert_eq!(certificates.server_ca(), given.pair.certificate);

    let newer = Certificates::open(&config(tempfile::tempdir().unwrap().path(), &[])).unwrap();
    fs::write(&crt, &newer.pair.certificate).unwrap();
    assert!(certificates.refresh(SystemTime::now()).is_err(), "a certificate with the wrong key");
    fs::write(&key, &newer.pair.key).unwrap();
    assert!(certificates.refresh(SystemTime::now()).unwrap());
    assert_eq!(certificates.server_ca(), newer.pair.certificate);
}

#[test]
fn error_names_flag_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, absent) = (folder.path().join("empty"), folder.path().join("absent"));
    fs::write(&empty, "").unwrap();
    for file in [&empty, &absent] {
        let error = error_of(&config(folder.path(), &[("client-ca-file", file)]));
        assert!(error.starts_with(&format!("--client-ca-file: {}: ", file.display())), "{error}");
        let flags = [("tls-cert-file", file.as_path()), ("tls-private-key-file", file.as_path())];
        let error = error_of(&config(folder.path(), &flags));
        assert!(error.starts_with(&format!("--tls-cert-file: {}: ", file.display())), "{error}");
        let pair = PathBuf::from(format!("{0},{0}:a.test", file.display()));
        let error = error_of(&config(folder.path(), &[("tls-sni-cert-key", &pair)]));
        assert!(error.starts_with(&format!("--tls-sni-cert-key: {}: ", file.display())), "{error}");
    }
}

#[test]
fn error_names_the_missing_part_of_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    drop(Certificates::open(&config(folder.path(), &[])).unwrap());
    let [text, crt, key] =
        ["text", "pki/apiserver.crt", "pki/apiserver.key"].map(|name| folder.path().join(name));
    fs::write(&text, "no PEM").unwrap();
    for (certificate, private_key, flag, file, why) in [
        (&text, &key, "tls-cert-file", &text, "no PEM certificate"),
        (&key, &key, "tls-cert-file", &key, "no PEM certificate"),
        (&crt, &text, "tls-private-key-file", &text, "no PEM private key"),
        (&crt, &crt, "tls-private-key-file", &crt, "no PEM private key"),
    ] {
        let flags =
            [("tls-cert-file", certificate.as_path()), ("tls-private-key-file", private_key.as_path())];
        let error = error_of(&config(folder.path(), &flags));
        assert!(error.starts_with(&format!("--{flag}: {}: {why}", file.display())), "{error}");
    }
}
