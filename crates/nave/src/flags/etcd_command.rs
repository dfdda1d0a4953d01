//! The flags of `nave etcd`, with etcd's names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use nave_store::etcd_server::ServerTls;

use super::FlagError;
use super::values::{parse_bool, whole};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(crate) struct EtcdCommandFlags {
    /// Folder for the store.
    #[arg(long, value_name = "DIR", default_value = "default.etcd")]
    data_dir: PathBuf,
    /// Name of the member that clients are told.
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// URLs to listen on. Without https, the address must be a loopback address.
    #[arg(long, value_name = "URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    listen_client_urls: Vec<String>,
    /// URLs that clients are told. Those of --listen-client-urls by default.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    advertise_client_urls: Vec<String>,
    /// Certificate of the server (PEM), for https.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Private key of --cert-file (PEM).
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// CAs of client certificates (PEM). Clients without such a certificate are refused.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    trusted_ca_file: Option<PathBuf>,
    /// Require client certificates; needs --trusted-ca-file.
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true")]
    client_cert_auth: bool,
    /// Maximum size of a request, in bytes.
    #[arg(long, value_name = "N", default_value_t = 1_572_864, value_parser = whole(1..=3_145_728_u32))]
    max_request_bytes: u32,
    #[command(flatten)]
    ignored: IgnoredFlags,
}

/// The flags for what a single member does not have.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Accepted without effect")]
struct IgnoredFlags {
    #[arg(long, value_name = "URLS")]
    listen_peer_urls: Option<String>,
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,
    #[arg(long, value_name = "LIST")]
    initial_cluster: Option<String>,
    #[arg(long, value_name = "STATE")]
    initial_cluster_state: Option<String>,
    #[arg(long, value_name = "TOKEN")]
    initial_cluster_token: Option<String>,
    #[arg(long, value_name = "FILE")]
    peer_cert_file: Option<String>,
    #[arg(long, value_name = "FILE")]
    peer_key_file: Option<String>,
    #[arg(long, value_name = "FILE")]
    peer_trusted_ca_file: Option<String>,
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    peer_client_cert_auth: Option<bool>,
    #[arg(long, value_name = "URLS")]
    listen_metrics_urls: Option<String>,
    #[arg(long, value_name = "COUNT")]
    snapshot_count: Option<String>,
    #[arg(long, value_name = "BYTES")]
    quota_backend_bytes: Option<String>,
    #[arg(long, value_name = "MILLISECONDS")]
    heartbeat_interval: Option<String>,
    #[arg(long, value_name = "MILLISECONDS")]
    election_timeout: Option<String>,
    #[arg(long, value_name = "TIME")]
    watch_progress_notify_interval: Option<String>,
    #[arg(long, value_name = "TIME")]
    experimental_watch_progress_notify_interval: Option<String>,
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    experimental_initial_corrupt_check: Option<bool>,
    #[arg(long, value_name = "LIST")]
    feature_gates: Option<String>,
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    unsafe_no_fsync: Option<bool>,
    #[arg(long, value_name = "TEXT")]
    log_level: Option<String>,
    #[arg(long, value_name = "TEXT")]
    logger: Option<String>,
    #[arg(long, value_name = "LIST")]
    log_outputs: Option<String>,
}

/// The checked configuration of `nave etcd`.
#[derive(Debug)]
pub(crate) struct EtcdConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) name: String,
    /// The addresses to listen on, at least one, with TLS for `https`.
    pub(crate) listen: Vec<(SocketAddr, Option<ServerTls>)>,
    /// The URLs that clients are told.
    pub(crate) advertised: Vec<String>,
    pub(crate) max_request_bytes: usize,
    /// The names of the given flags without effect.
    pub(crate) without_effect: Vec<&'static str>,
}

impl EtcdCommandFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// A URL is invalid or has no TLS outside of this machine, or a file cannot be used.
    pub(super) fn validate(self) -> Result<EtcdConfig, FlagError> {
        if self.client_cert_auth && self.trusted_ca_file.is_none() {
            return Err(FlagError::new("trusted-ca-file", "required with --client-cert-auth"));
        }
        let pair = self.cert_file.zip(self.key_file);
        let listen = self.listen_client_urls.iter().map(|url| {
            let wrong = || {
                let why = "is not a URL such as https://10.0.0.1:2379, or http with a loopback address";
                FlagError::new("listen-client-urls", format!("{url:?} {why}"))
            };
            let (address, is_tls) = parse_url(url).ok_or_else(wrong)?;
            if !is_tls {
                return if address.ip().is_loopback() { Ok((address, None)) } else { Err(wrong()) };
            }
            let (certificate, key) =
                pair.clone().ok_or_else(|| FlagError::new("cert-file", "required for an https URL"))?;
            let tls = ServerTls::new(certificate, key, self.trusted_ca_file.clone())
                .map_err(|why| FlagError::new("cert-file, --key-file or --trusted-ca-file", why))?;
            Ok((address, Some(tls)))
        });
        let listen = listen.collect::<Result<_, _>>()?;
        let advertised = if self.advertise_client_urls.is_empty() {
            self.listen_client_urls
        } else {
            self.advertise_client_urls
        };
        Ok(EtcdConfig {
            data_dir: self.data_dir,
            name: self.name,
            listen,
            advertised,
            max_request_bytes: self.max_request_bytes as usize,
            without_effect: self.ignored.given(),
        })
    }
}

impl IgnoredFlags {
    /// Returns the names of the given flags whose absence an operator may notice. Peers, logs and syncs are the others.
    fn given(&self) -> Vec<&'static str> {
        [
            ("--listen-metrics-urls", self.listen_metrics_urls.is_some()),
            ("--quota-backend-bytes", self.quota_backend_bytes.is_some()),
            ("--feature-gates", self.feature_gates.is_some()),
            ("--initial-cluster", self.initial_cluster.as_ref().is_some_and(|members| members.contains(','))),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect()
    }
}

/// Parses a URL with an IP address or `localhost` and a port; returns whether it is https.
fn parse_url(url: &str) -> Option<(SocketAddr, bool)> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let is_tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = rest.trim_end_matches('/');
    if let Some(port) = authority.strip_prefix("localhost:") {
        return Some((SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?), is_tls));
    }
    Some((authority.parse().ok()?, is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_with_addresses() {
        for (url, expected) in [
            ("http://127.0.0.1:2379", Some(("127.0.0.1:2379", false))),
            ("http://localhost:1/", Some(("127.0.0.1:1", false))),
            ("https://[::1]:2", Some(("[::1]:2", true))),
            ("https://0.0.0.0:2379", Some(("0.0.0.0:2379", true))),
            ("unix://127.0.0.1:1", None),
            ("http://127.0.0.1", None),
            ("127.0.0.1:2379", None),
            ("https://example.com:2379", None),
        ] {
            let expected = expected.map(|(address, is_tls)| (address.parse().unwrap(), is_tls));
            assert_eq!(parse_url(url), expected, "{url}");
        }
    }

    #[test]
    fn refuses_to_serve_others_without_tls() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            flags: EtcdCommandFlags,
        }
        let error = |flags: &[&str]| {
            let cli = Cli::try_parse_from([&["etcd"], flags].concat()).unwrap();
            cli.flags.validate().unwrap_err().to_string()
        };
        for (flags, expected) in [
            (&["--listen-client-urls=http://0.0.0.0:2379"][..], "--listen-client-urls"),
            (&["--listen-client-urls=http://192.0.2.1:2379"], "--listen-client-urls"),
            (&["--listen-client-urls=https://127.0.0.1:2379"], "--cert-file"),
            (&["--client-cert-auth"], "--trusted-ca-file"),
            (
                &[
                    "--listen-client-urls=https://127.0.0.1:2379",
                    "--cert-file=/no/such",
                    "--key-file=/no/such",
                ],
                "/no/such",
            ),
        ] {
            let error = error(flags);
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
