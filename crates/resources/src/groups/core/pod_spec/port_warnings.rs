//! Warnings about duplicate and overlapping ports of containers.

use std::collections::BTreeMap;

use nave_machinery::FieldPath;

use super::warnings::Warnings;
use crate::validate::At;

/// The maximum number of earlier definitions of a port to compare with a new definition.
const MAX_SAME_PORTS: usize = 16;
/// The lists of containers, in the order in which upstream visits them.
const IN_ORDER: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl Warnings {
    pub(super) fn ports(&mut self, spec: &At) {
        let mut same_number: BTreeMap<(i64, &str), Vec<HostPort>> = BTreeMap::new();
        for kind in IN_ORDER {
            for (container_index, container) in spec.field(kind).items().enumerate() {
                for (index, port) in container.field("ports").items().enumerate() {
                    let place = PortPlace { kind, container: container_index, index };
                    let here = HostPort::new(place, &port);
                    let number = port.field("containerPort").int().unwrap_or_default();
                    let protocol = port.field("protocol").text();
                    if !here.ip.is_empty() && here.port == 0 {
                        let (name, ip) = (port.field("name").text(), here.ip);
                        let text = format!(
                            "hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
                        );
                        self.add_at(&port, &text);
                    }
                    let others = same_number.entry((number, protocol)).or_default();
                    for other in others.iter() {
                        if let Some(overlap) = here.overlap(other) {
                            self.add_at(
                                &port,
                                &format!("{overlap} port definition with {}", other.place.path(spec)),
                            );
                        }
                    }
                    if others.len() < MAX_SAME_PORTS {
                        others.push(here);
                    }
                }
            }
        }
        self.port_names(spec);
    }

    fn port_names(&mut self, spec: &At) {
        let mut first_of_name: BTreeMap<&str, PortPlace> = BTreeMap::new();
        for kind in IN_ORDER {
            for (container_index, container) in spec.field(kind).items().enumerate() {
                for (index, port) in container.field("ports").items().enumerate() {
                    let name = port.field("name").text();
                    if name.is_empty() {
                        continue;
                    }
                    let Some(first) = first_of_name.get(name) else {
                        first_of_name.insert(name, PortPlace { kind, container: container_index, index });
                        continue;
                    };
                    let first = first.path(spec);
                    let text = format!(
                        "duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                    );
                    self.add_at(&port, &text);
                }
            }
        }
    }
}

/// The position of a port in a pod spec.
#[derive(Clone, Copy)]
struct PortPlace {
    /// The list of containers.
    kind: &'static str,
    container: usize,
    index: usize,
}

impl PortPlace {
    fn path(self, spec: &At) -> FieldPath {
        spec.path().child(self.kind).index(self.container).child("ports").index(self.index)
    }
}

/// The host port of a container port.
struct HostPort<'v> {
    place: PortPlace,
    port: i64,
    ip: &'v str,
}

impl<'v> HostPort<'v> {
    fn new(place: PortPlace, port: &At<'_, 'v>) -> Self {
        Self {
            place,
            port: port.field("hostPort").int().unwrap_or_default(),
            ip: port.field("hostIP").text(),
        }
    }

    /// Describes the conflict with another definition of the same container port, if any.
    fn overlap(&self, other: &Self) -> Option<&'static str> {
        if (self.port, self.ip) == (other.port, other.ip) {
            Some("duplicate")
        } else if self.port == 0 || other.port == 0 {
            Some("overlapping")
        } else if self.port == other.port && self.ip.is_empty() != other.ip.is_empty() {
            Some("dangerously ambiguous")
        } else {
            None
        }
    }
}
