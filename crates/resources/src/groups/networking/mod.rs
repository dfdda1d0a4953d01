//! `networking.k8s.io`: ingresses, network policies, and the IP addresses of services.

mod addresses;
mod columns;
mod defaults;
mod ingress;
mod policies;
#[cfg(test)]
mod tests;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::{KeptMetadata, NameRule};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("IngressClass", "ingressclasses")
            .cluster()
            .generation(&["spec"])
            .columns(columns::ingress_class())
            .strategy(ingress::IngressClassStrategy),
        resource("Ingress", "ingresses")
            .short(&["ing"])
            .prefix("ingress")
            .status()
            .generation(&["spec"])
            .columns(columns::ingress())
            .strategy(ingress::IngressStrategy),
        resource("IPAddress", "ipaddresses")
            .cluster()
            .short(&["ip"])
            .optional(&["v1beta1"])
            .named(NameRule::With(ip_address_name))
            .columns(columns::ip_address())
            .strategy(addresses::IpAddressStrategy),
        resource("NetworkPolicy", "networkpolicies")
            .short(&["netpol"])
            .generation(&["spec"])
            .columns(columns::network_policy())
            .strategy(policies::NetworkPolicyStrategy),
        resource("ServiceCIDR", "servicecidrs")
            .cluster()
            .optional(&["v1beta1"])
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .columns(columns::service_cidr())
            .strategy(addresses::ServiceCidrStrategy),
    ];
    declare("networking.k8s.io", "io.k8s.api.networking", resources)
}

/// Checks that the name of an `IPAddress` is an address in canonical form.
fn ip_address_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != name => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        Ok(_) => Vec::new(),
    }
}
