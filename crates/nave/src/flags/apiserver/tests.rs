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
        let arg = upstream::find(&command, flag.name);
        let arg = arg.unwrap_or_else(|| panic!("--{} is missing", flag.name));
        let given: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let given = given.join(",");
        let expected = flag.default.trim_matches(['[', ']']);
        let is_nothing = expected.is_empty() && ["", "0", "0s", "false"].contains(&&*given);
        let headings = [upstream::HEADING, upstream::REFUSED_HEADING].map(Some);
        let is_accepted = given.is_empty() && headings.contains(&arg.get_help_heading());
        if given != expected && !is_nothing && !is_accepted {
            different.push(format!("{}: {given:?} for {expected:?}", flag.name));
        }
    }
    // Without a value, anonymous requests are accepted; the default of the range is documented upstream.
    let known = ["anonymous-auth: \"\" for \"true\"", "service-cluster-ip-range: \"10.0.0.0/24\" for \"\""];
    assert_eq!(different, known);
}

/// Each flag is obeyed, refused, or without effect, and the documentation has those that are not obeyed.
#[test]
fn every_flag_of_kube_apiserver_is_obeyed_refused_or_documented() {
    let serve = ServeFlags::augment_args(Command::new("serve"));
    let names = |list: &[(&'static str, &str)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let (refused, ignored) = (names(&upstream::REFUSED), names(&upstream::WITHOUT_EFFECT));
    for flag in upstream::flags() {
        let is_obeyed = upstream::OWN.contains(&flag.name) || upstream::find(&serve, flag.name).is_some();
        let sets = [is_obeyed, refused.contains(&flag.name), ignored.contains(&flag.name)];
        assert_eq!(sets.into_iter().filter(|is_in| *is_in).count(), 1, "--{}: {sets:?}", flag.name);
    }
    // Flags of `nave serve` whose help says that they have no effect.
    let partly = serve.get_arguments().filter(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        help.contains("Has no effect") || help.contains("Accepted for compatibility")
    });
    let partly: Vec<&str> = partly.filter_map(clap::Arg::get_long).collect();
    assert!(partly.contains(&"audit-log-batch-max-size"), "{partly:?}");
    let documented = include_str!("../../../../../docs/differences.md");
    for name in refused.iter().chain(&ignored).chain(&partly) {
        assert!(upstream::flags().any(|flag| flag.name == *name), "--{name} is not a flag of kube-apiserver");
        assert!(documented.contains(&format!("`--{name}`")), "--{name} is not in docs/differences.md");
    }
}

#[test]
fn obeys_restrictions() {
    let defaults = config(&[]).unwrap();
    assert!(!defaults.objects.allows_privileged);
    let given = config(&[
        "--allow-privileged",
        "--delete-collection-workers=8",
        "--external-hostname=api.example",
        "--kubernetes-service-node-port=30443",
        "--permit-port-sharing",
        "--aggregator-reject-forwarding-redirect=false",
        "--disabled-metrics=a,b",
        "--etcd-db-metric-poll-interval=0",
        "--audit-webhook-batch-initial-backoff=5s",
        "--service-account-signing-endpoint=",
    ]);
    let given = given.unwrap();
    assert!(given.objects.allows_privileged && given.objects.delete_workers == 8);
    assert_eq!((&*given.external_host, given.kubernetes_node_port), ("api.example", Some(30443)));
    assert!(given.shares_port && given.aggregation.forwards_redirects);
    assert_eq!(Vec::from_iter(given.disabled_metrics), ["a", "apiserver_storage_size_bytes", "b"]);
    let refused = config(&["--service-account-signing-endpoint=/run/signer.sock"]).unwrap_err();
    assert!(refused.contains("--service-account-signing-endpoint: nave signs tokens"), "{refused}");
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
