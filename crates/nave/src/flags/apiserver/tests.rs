use std::path::Path;

use clap::{Args, Command};

use super::*;
use crate::flags::{Authorizers, Cli, EngineConfig, Task};

const REQUIRED: [&str; 3] = [
    "--etcd-servers=http://127.0.0.1:2379",
    "--service-account-issuer=https://a",
    "--service-account-signing-key-file=k",
];

fn config_of(program: &[&str], flags: &[&str]) -> Result<Config, String> {
    let arguments = program.iter().chain(flags);
    let cli = Cli::read(arguments).map_err(|error| error.to_string())?;
    match cli.validate().map_err(|error| error.to_string())? {
        Task::Serve(config) => Ok(*config),
        _ => Err("not a server".to_owned()),
    }
}

fn config(flags: &[&str]) -> Result<Config, String> {
    config_of(&["nave", "apiserver"], &[&REQUIRED, flags].concat())
}

#[test]
fn defaults_are_those_of_kube_apiserver() {
    let command = ApiserverFlags::augment_args(Command::new("apiserver"));
    let mut different = Vec::new();
    for flag in upstream::flags() {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag.name));
        let arg = arg.unwrap_or_else(|| panic!("--{} is missing", flag.name));
        let given: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let given = given.join(",");
        let expected = flag.default.trim_matches(['[', ']']);
        let is_nothing = expected.is_empty() && ["", "0", "0s", "false"].contains(&&*given);
        let is_accepted = given.is_empty() && arg.get_help_heading() == Some("Accepted without effect");
        if given != expected && !is_nothing && !is_accepted {
            different.push(format!("{}: {given:?} for {expected:?}", flag.name));
        }
    }
    // Without a value, anonymous requests are accepted; the default of the range is documented upstream.
    let known = ["anonymous-auth: \"\" for \"true\"", "service-cluster-ip-range: \"10.0.0.0/24\" for \"\""];
    assert_eq!(different, known);
}

#[test]
fn program_name_selects_the_command() {
    for program in [&["nave", "apiserver"][..], &["/usr/local/bin/kube-apiserver"]] {
        let config = config_of(program, &REQUIRED).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 6443)));
        assert!(matches!(config.store.engine, EngineConfig::Etcd(_)));
        assert_eq!(config.data_dir, Path::new("/var/run/kubernetes"));
        assert_eq!(config.service_ranges.first(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(config.controllers.selected().count(), 0);
        assert!(!config.kubelet.verify);
        assert!(config.signing.pair("kubernetes.io/kubelet-serving").is_none());
        let Authorizers::Given(authorizers) = &config.authorization.authorizers else { panic!("a file") };
        assert_eq!(authorizers.authorizers[0].kind, "AlwaysAllow");
    }
}

#[test]
fn reads_flags_in_the_notation_of_kube_apiserver() {
    let config = config(&[
        "--bind_address=127.0.0.1",
        "--secure-port",
        "7000",
        "--secure-port=7001",
        "--client-ca-file=",
        "--oidc-issuer-url",
        "",
        "--profiling",
        "--contention-profiling=false",
        "--authorization-mode=Node",
        "--authorization-mode",
        "RBAC",
        "--external-hostname=a",
        "--livez-grace-period",
        "1m30s",
        "--peer-ca-file=",
    ]);
    let config = config.unwrap();
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 7001)));
    assert_eq!(config.authentication.client_ca_file, None);
    let Authorizers::Given(authorizers) = &config.authorization.authorizers else { panic!("a file") };
    assert_eq!(authorizers.authorizers.len(), 2);
    for flag in ["--profiling", "--contention-profiling"] {
        assert!(config.without_effect.iter().any(|found| found == flag), "{:?}", config.without_effect);
    }
    assert!(!config.without_effect.iter().any(|found| found == "--peer-ca-file"));
}

#[test]
fn rejects_missing_and_invalid_flags() {
    let [etcd, issuer, key] = REQUIRED;
    for (flags, error) in [
        (&[issuer, key][..], "--etcd-servers: required"),
        (&[etcd, key], "--service-account-issuer: required"),
        (&[etcd, issuer], "--service-account-signing-key-file: required"),
        (&[etcd, issuer, key, "--secure-port=0"], "--secure-port: must be from 1 to 65535"),
        (&[etcd, issuer, key, "--no-such-flag"], "unexpected argument '--no-such-flag'"),
        (&[etcd, issuer, key, "--etcd-server=a"], "'--etcd-servers'"),
        (&[etcd, issuer, key, "--profiling=maybe"], "must be true or false"),
        (&[etcd, issuer, key, "--livez-grace-period=5"], "--livez-grace-period"),
        (&[etcd, issuer, key, "positional"], "positional"),
    ] {
        let found = config_of(&["kube-apiserver"], flags).unwrap_err();
        assert!(found.contains(error), "{flags:?}: {found}");
    }
    assert!(config_of(&["kube-apiserver"], &["--data-dir=d", issuer, key]).is_ok());
}

#[test]
fn prints_the_version() {
    for flag in ["--version", "--version=true", "--version=raw"] {
        let cli = Cli::read(["kube-apiserver", flag]).unwrap();
        assert!(matches!(cli.validate().unwrap(), Task::Version), "{flag}");
    }
}
