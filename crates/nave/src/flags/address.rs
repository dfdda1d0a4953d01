//! The address at which others reach the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Returns the address to advertise for an address to listen on. For an unspecified one, this is the loopback address,
/// or with `prefers_network` the machine's address in its network, as in kube-apiserver.
pub(super) fn advertised(listen: IpAddr, prefers_network: bool) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let (loopback, elsewhere): (IpAddr, IpAddr) = match listen {
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let network = prefers_network.then(|| source_address(listen, elsewhere)).flatten();
    network.unwrap_or(loopback)
}

/// Returns the address from which this machine would send to another one. Nothing is sent.
fn source_address(any: IpAddr, destination: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(destination, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_not_advertised() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(advertised(address("0.0.0.0"), false), address("127.0.0.1"));
        assert_eq!(advertised(address("::"), false), address("::1"));
        for prefers_network in [false, true] {
            assert_eq!(advertised(address("192.0.2.7"), prefers_network), address("192.0.2.7"));
            assert_eq!(advertised(address("127.0.0.1"), prefers_network), address("127.0.0.1"));
        }
        // A machine without a network advertises its loopback address.
        let found = advertised(address("0.0.0.0"), true);
        assert!(found.is_ipv4() && !found.is_unspecified());
    }
}
