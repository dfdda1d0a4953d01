//! DNS configuration and host names of pods.

use nave_machinery::{FieldError, names};

use crate::ip;
use crate::validate::{At, Errors, checked};

const NAME_SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_BYTES_MAX: usize = 2048;
const HOSTNAME_MAX: usize = 64;

pub(super) fn config(spec: At, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let (servers, searches) = (config.field("nameservers"), config.field("searches"));
    if spec.field("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.len() == 0 {
            errors
                .push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.len() > NAME_SERVERS_MAX {
        errors.push(servers.invalid(format!("must not have more than {NAME_SERVERS_MAX} nameservers")));
    }
    for server in servers.items() {
        ip::ip(server, errors);
    }
    if searches.len() > SEARCHES_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths")));
    }
    let bytes: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if bytes > SEARCHES_BYTES_MAX + 1 {
        errors.push(searches.invalid(format!(
            "must not have more than {SEARCHES_BYTES_MAX} characters (including spaces) in the search list"
        )));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let domain = search.text().strip_suffix('.').unwrap_or(search.text());
        // Search domains may contain underscores.
        let found = names::is_dns1123_subdomain(&domain.replace('_', "x"));
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&search.path(), domain, why)));
    }
    for option in config.field("options").items() {
        if option.field("name").text().is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

pub(super) fn host_aliases(at: At, errors: &mut Errors) {
    for alias in at.items() {
        ip::ip(alias.field("ip"), errors);
        for host in alias.field("hostnames").items() {
            checked(host, names::is_dns1123_subdomain, errors);
        }
    }
}

pub(super) fn hostname_override(spec: At, errors: &mut Errors) {
    let name = spec.field("hostnameOverride");
    if !name.is_set() {
        return;
    }
    for (field, why) in [
        ("setHostnameAsFQDN", "may not be specified when setHostnameAsFQDN is true"),
        ("hostNetwork", "may not be specified when hostNetwork is true"),
    ] {
        if spec.field(field).flag() {
            errors.push(name.forbidden(why));
        }
    }
    if name.text().len() > HOSTNAME_MAX {
        errors.push(FieldError::too_long(&name.path(), HOSTNAME_MAX));
    }
    checked(name, names::is_dns1123_subdomain, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::testing::fields;

    #[test]
    fn rejects_invalid_dns_configuration() {
        for (spec, expected) in [
            (json!({"dnsConfig": {"nameservers": ["1.1.1.1"], "searches": [".", "_a.b."]}}), &[][..]),
            (json!({"dnsPolicy": "None"}), &["spec.dnsConfig"]),
            (json!({"dnsPolicy": "None", "dnsConfig": {}}), &["spec.dnsConfig.nameservers"]),
            (
                json!({"dnsConfig": {"nameservers": ["x"], "searches": ["a b"], "options": [{}]}}),
                &["spec.dnsConfig.nameservers[0]", "spec.dnsConfig.searches[0]", "spec.dnsConfig.options[0]"],
            ),
            (json!({"dnsConfig": {"searches": vec!["a"; 33]}}), &["spec.dnsConfig.searches"]),
        ] {
            assert_eq!(fields(config, spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn hostname_override_requires_pod_network() {
        for (spec, expected) in [
            (json!({"hostnameOverride": "a.b"}), 0),
            (json!({"hostnameOverride": "A"}), 1),
            (json!({"hostnameOverride": "a", "hostNetwork": true}), 1),
            (json!({"hostnameOverride": "a", "setHostnameAsFQDN": true}), 1),
        ] {
            assert_eq!(fields(hostname_override, spec.clone()).len(), expected, "{spec}");
        }
    }
}
