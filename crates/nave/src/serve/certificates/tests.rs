use std::{fs, time::Duration};

use clap::Parser;

use super::*;
use crate::flags::{Cli, Task};

fn config(folder: &Path, more: &[(&str, &Path)]) -> Config {
    let mut arguments = vec!["nave".to_owned(), format!("--data-dir={}", folder.display())];
    arguments.extend(more.iter().map(|(flag, file)| format!("--{flag}={}", file.display())));
    match Cli::try_parse_from(arguments).unwrap().validate().unwrap() {
        Task::Serve(config) => *config,
        Task::Controllers(_) => panic!("these are flags of serve"),
    }
}

fn error_of(config: &Config) -> String {
    let opened = Certificates::open(config).and_then(|certificates| certificates.client_cas());
    opened.unwrap_err().to_string()
}

#[test]
fn own_certificates_are_renewed_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut certificates = Certificates::open(&config(folder.path(), &[])).unwrap();
    let before = certificates.shown.clone();
    assert!(!certificates.refresh(SystemTime::now()).unwrap());
    let next_year = SystemTime::now() + Duration::from_hours(300 * 24);
    assert!(certificates.refresh(next_year).unwrap());
    assert!(certificates.shown != before && certificates.shown == certificates.own.serving);
}

#[test]
fn a_given_certificate_is_taken_and_taken_again_when_it_changes() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let given = Certificates::open(&config(other.path(), &[])).unwrap();
    let (crt, key) = (other.path().join("pki/apiserver.crt"), other.path().join("pki/apiserver.key"));
    let flags = [("tls-cert-file", crt.as_path()), ("tls-private-key-file", key.as_path())];
    let mut certificates = Certificates::open(&config(folder.path(), &flags)).unwrap();
    assert_eq!(certificates.server_ca(), given.shown.certificate);

    let newer = Certificates::open(&config(tempfile::tempdir().unwrap().path(), &[])).unwrap();
    fs::write(&crt, &newer.shown.certificate).unwrap();
    assert!(certificates.refresh(SystemTime::now()).is_err(), "a certificate without its key");
    fs::write(&key, &newer.shown.key).unwrap();
    assert!(certificates.refresh(SystemTime::now()).unwrap());
    assert_eq!(certificates.server_ca(), newer.shown.certificate);
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, absent) = (folder.path().join("empty"), folder.path().join("absent"));
    fs::write(&empty, "").unwrap();
    for file in [&empty, &absent] {
        let error = error_of(&config(folder.path(), &[("client-ca-file", file)]));
        assert!(error.starts_with(&format!("--client-ca-file: {}: ", file.display())), "{error}");
        let flags = [("tls-cert-file", file.as_path()), ("tls-private-key-file", file.as_path())];
        let error = error_of(&config(folder.path(), &flags));
        assert!(error.starts_with(&format!("--tls-cert-file: {}: ", file.display())), "{error}");
    }
}
