//! The flags of `nave etcd`, with etcd's names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::FlagError;
use super::values::parse_bool;

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(crate) struct EtcdStandInFlags {
    /// Folder for the objects.
    #[arg(long, value_name = "DIR", default_value = "default.etcd")]
    data_dir: PathBuf,
    /// URLs to listen on, with a loopback address and http.
    #[arg(long, value_name = "URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    listen_client_urls: Vec<String>,
    /// Accepted without effect.
    #[arg(long, value_name = "URLS")]
    advertise_client_urls: Option<String>,
    /// Accepted without effect: there are no peers.
    #[arg(long, value_name = "URLS")]
    listen_peer_urls: Option<String>,
    /// Accepted without effect: there are no peers.
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,
    /// Accepted without effect: there are no peers.
    #[arg(long, value_name = "LIST")]
    initial_cluster: Option<String>,
    /// Accepted without effect.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Accepted without effect: writes are always synced.
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true")]
    unsafe_no_fsync: bool,
    /// Accepted without effect.
    #[arg(long, value_name = "TEXT")]
    log_level: Option<String>,
}

/// The checked configuration of `nave etcd`.
#[derive(Clone, Debug)]
pub(crate) struct EtcdStandInConfig {
    /// The folder for the objects.
    pub(crate) data_dir: PathBuf,
    /// The addresses to listen on; at least one.
    pub(crate) listen: Vec<SocketAddr>,
}

impl EtcdStandInFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// A URL is not a plain HTTP URL of this machine.
    pub(super) fn validate(self) -> Result<EtcdStandInConfig, FlagError> {
        let listen = self.listen_client_urls.iter().map(|url| {
            let why =
                || format!("{url:?} is not a URL such as http://127.0.0.1:2379, with a loopback address");
            loopback(url).ok_or_else(|| FlagError::new("listen-client-urls", why()))
        });
        Ok(EtcdStandInConfig { listen: listen.collect::<Result<_, _>>()?, data_dir: self.data_dir })
    }
}

/// Parses an HTTP URL with a loopback address and a port.
fn loopback(url: &str) -> Option<SocketAddr> {
    let authority = url.trim().strip_prefix("http://")?.trim_end_matches('/');
    if let Some(port) = authority.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    authority.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_loopback_addresses_only() {
        for (url, address) in [
            ("http://127.0.0.1:2379", Some("127.0.0.1:2379")),
            ("http://localhost:1/", Some("127.0.0.1:1")),
            ("http://[::1]:2", Some("[::1]:2")),
            ("https://127.0.0.1:2379", None),
            ("http://0.0.0.0:2379", None),
            ("http://192.0.2.1:2379", None),
            ("http://127.0.0.1", None),
            ("127.0.0.1:2379", None),
        ] {
            assert_eq!(loopback(url), address.map(|address| address.parse().unwrap()), "{url}");
        }
    }
}
