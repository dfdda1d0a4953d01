//! TCP connections: resolves a host, checks the addresses, and dials exactly the addresses that were checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The addresses that may be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Addresses of other machines. Loopback, link-local and metadata addresses are refused: whoever can write a node,
    /// a pod or an endpoint could otherwise make the server reach services of its own machine.
    #[default]
    Remote,
    /// Any address of one host.
    Unicast,
}

/// The reason why no connection was opened. The texts are those of Go, which operators search for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address.
    #[error("dial tcp: lookup {host}: {why}")]
    Lookup {
        /// The host.
        host: String,
        /// The resolver's error.
        why: String,
    },
    /// An address is refused by the policy.
    #[error("dial tcp {0}: address not allowed")]
    Refused(SocketAddr),
    /// A name is refused by the policy.
    #[error("dial tcp {0}: name not allowed")]
    RefusedName(String),
    /// The proxy does not open the connection.
    #[error("proxy {proxy}: {why}")]
    Proxy {
        /// The address of the proxy.
        proxy: String,
        /// The error.
        why: String,
    },
    /// The connection cannot be opened.
    #[error("dial tcp {address}: {why}")]
    Connect {
        /// The last address that was dialled.
        address: SocketAddr,
        /// The error.
        why: String,
    },
}

/// Interval of the kernel's keepalive probes, which detect a peer that has gone.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The services of cloud providers that give credentials to any process on a machine, without link-local addresses.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The last labels of names that a machine has for itself.
const LOCAL_NAMES: [&str; 4] = ["localhost", "localdomain", "ip6-localhost", "ip6-loopback"];

impl AddressPolicy {
    /// Returns whether an address may be dialled.
    pub fn allows(self, address: IpAddr) -> bool {
        let address = embedded_v4(address);
        let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || is_broadcast {
            return false;
        }
        self == Self::Unicast || is_remote(address)
    }
}

/// Returns the IPv4 address that an IPv6 address stands for: IPv4-mapped, IPv4-compatible, NAT64 (RFC 6052), 6to4
/// (RFC 3056).
fn embedded_v4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => address,
    }
}

fn is_remote(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_this_network = v4.octets()[0] == 0;
            !v4.is_loopback() && !v4.is_link_local() && !is_this_network && !METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !METADATA_V6.contains(&v6),
    }
}

/// Opens a connection to a host, which is an IP address or a name. All addresses of a name must be allowed, so that the
/// choice among them does not matter. `patience` applies to the lookup and to each address.
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn connect(
    host: &str,
    port: u16,
    policy: AddressPolicy,
    patience: Duration,
) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port, patience).await?;
    if let Some(refused) = addresses.iter().find(|address| !policy.allows(address.ip())) {
        return Err(ConnectError::Refused(*refused));
    }
    let mut failure = no_address(host);
    for address in addresses {
        let why = match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                set_options(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => "i/o timeout".to_owned(),
        };
        failure = ConnectError::Connect { address, why };
    }
    Err(failure)
}

/// Checks a host that a proxy will look up and dial. Only the addresses of names can be checked by the proxy.
///
/// # Errors
/// The policy refuses the address, or the name as one of the proxy's own machine.
pub(crate) fn check_proxied(host: &str, port: u16, policy: AddressPolicy) -> Result<(), ConnectError> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        let refused = ConnectError::Refused(SocketAddr::new(address, port));
        return if policy.allows(address) { Ok(()) } else { Err(refused) };
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // Some resolvers take names such as 127.1, 0x7f.1 or 2130706433 for addresses.
    let digits = last.strip_prefix("0x").unwrap_or(last);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || (digits.len() < last.len() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    // With other characters, a name can be an address with a zone or have a port of its own.
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_name || is_number || (policy == AddressPolicy::Remote && LOCAL_NAMES.contains(&last)) {
        return Err(ConnectError::RefusedName(host.to_owned()));
    }
    Ok(())
}

async fn resolve(host: &str, port: u16, patience: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |why: String| ConnectError::Lookup { host: host.to_owned(), why };
    let found = timeout(patience, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| failed("i/o timeout".to_owned()))?;
    let addresses: Vec<_> = found.map_err(|error| failed(error.to_string()))?.collect();
    if addresses.is_empty() { Err(no_address(host)) } else { Ok(addresses) }
}

fn no_address(host: &str) -> ConnectError {
    ConnectError::Lookup { host: host.to_owned(), why: "no such host".to_owned() }
}

/// Sets options without which the connection works too, so failures are ignored.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_of_this_machine_and_of_metadata_services() {
        for (address, remote, unicast) in [
            ("10.0.0.1", true, true),
            ("192.168.1.1", true, true),
            ("8.8.8.8", true, true),
            ("fd00::1", true, true),
            ("2001:db8::1", true, true),
            ("127.0.0.1", false, true),
            ("127.8.8.8", false, true),
            ("169.254.169.254", false, true),
            ("100.100.100.200", false, true),
            ("168.63.129.16", false, true),
            ("0.1.2.3", false, true),
            ("::1", false, true),
            ("fe80::1", false, true),
            ("fd00:ec2::254", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:169.254.169.254", false, true),
            ("::ffff:10.0.0.1", true, true),
            ("::127.0.0.1", false, true),
            ("64:ff9b::7f00:1", false, true),
            ("2002:7f00:1::", false, true),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("::ffff:0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("ff02::1", false, false),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            let allowed = (AddressPolicy::Remote.allows(ip), AddressPolicy::Unicast.allows(ip));
            assert_eq!(allowed, (remote, unicast), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_checked_by_its_addresses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let refused = connect(host, port, AddressPolicy::Remote, KEEPALIVE).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Refused(_)), "{host}: {refused}");
        }
        connect("127.0.0.1", port, AddressPolicy::Unicast, KEEPALIVE).await.unwrap();
        drop(listener);
        let failed = connect("127.0.0.1", port, AddressPolicy::Unicast, KEEPALIVE).await.unwrap_err();
        assert_eq!(failed.to_string(), format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
