//! Ports of containers.

use std::collections::BTreeSet;

use nave_machinery::FieldError;

use crate::validate::{At, Errors, one_of, port_name, port_number, required_text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn all(list: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            let found = port_name(name.text());
            if found.is_empty() && !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            errors.extend(found.into_iter().map(|why| name.invalid(why)));
        }
        let number = port.field("containerPort");
        if number.int().unwrap_or_default() == 0 {
            errors.push(number.required(""));
        } else {
            port_number(number, errors);
        }
        if port.field("hostPort").int().is_some_and(|number| number != 0) {
            port_number(port.field("hostPort"), errors);
        }
        let protocol = port.field("protocol");
        if required_text(protocol, errors) {
            one_of(protocol, &PROTOCOLS, errors);
        }
    }
}

/// Checks that no two containers use the same host port.
pub(super) fn unique_on_host<'v>(
    container: At<'_, 'v>,
    seen: &mut BTreeSet<(&'v str, &'v str, i64)>,
    errors: &mut Errors,
) {
    for port in container.field("ports").items() {
        let host_port = port.field("hostPort");
        let Some(number) = host_port.int().filter(|number| *number != 0) else { continue };
        let (ip, protocol) = (port.field("hostIP").text(), port.field("protocol").text());
        if !seen.insert((ip, protocol, number)) {
            let shown = format!("{protocol}/{ip}/{number}");
            errors.push(FieldError::duplicate(&host_port.path(), shown));
        }
    }
}

/// Checks that host port and container port are equal with host networking.
pub(super) fn on_host_network(spec: At, is_pod: bool, errors: &mut Errors) {
    if !spec.field("hostNetwork").flag() {
        return;
    }
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let (inside, outside) = (port.field("containerPort").int(), port.field("hostPort"));
            let number = outside.int().unwrap_or_default();
            // A template may omit the host port.
            if (is_pod || number != 0) && number != inside.unwrap_or_default() {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&outside.path(), number, why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    #[test]
    fn port_numbers_and_names_are_unique() {
        for (ports, expected) in [
            (json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}]), &[][..]),
            (json!([{"protocol": "x"}]), &["p[0].containerPort", "p[0].protocol"]),
            (
                json!([{"containerPort": 80, "protocol": "TCP", "name": "a"}, {"containerPort": 81, "protocol": "TCP", "name": "a"}]),
                &["p[1].name"],
            ),
            (json!([{"containerPort": 80, "protocol": "TCP", "hostPort": 99999}]), &["p[0].hostPort"]),
        ] {
            let mut errors = Errors::new();
            all(At::named("p", Some(&ports)), &mut errors);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{ports}");
        }
    }

    #[test]
    fn host_network_requires_equal_ports() {
        let spec = |host: Value| json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80, "hostPort": host}]}]});
        for (host, is_pod, expected) in
            [(json!(80), true, 0), (json!(81), true, 1), (json!(null), true, 1), (json!(null), false, 0)]
        {
            let mut errors = Errors::new();
            on_host_network(At::named("spec", Some(&spec(host))), is_pod, &mut errors);
            assert_eq!(errors.len(), expected);
        }
    }
}
