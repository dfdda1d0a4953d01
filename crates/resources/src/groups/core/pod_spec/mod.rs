//! Pod specs: the pods' own and those in the templates of workloads.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`defaults`] | what a spec gets that says nothing of it |
//! | [`image`] | tags of image names |
//! | [`qos`] | the quality of service class |
//! | [`containers`], [`ports`], [`environment`], [`mounts`], [`resources`], [`probes`] | the rules of containers |
//! | [`volumes`], [`security`], [`windows`], [`dns`], [`scheduling`], [`affinity`] | the rules of other parts |
//! | [`validation`] | what a pod and a template must be |
//! | [`warnings`], [`port_warnings`], [`overlaps`] | what clients are warned of |
//! | [`annotations`] | the rules of annotations |
//! | [`update`] | what may change in a pod |
//! | [`parts`], [`resize`] | what may change in it through `ephemeralcontainers` and `resize` |
//! | [`status`] | what its status may say |

pub(crate) mod affinity;
mod annotations;
mod containers;
pub(crate) mod defaults;
mod dns;
mod environment;
mod image;
mod mounts;
mod overlaps;
pub(crate) mod parts;
mod port_warnings;
mod ports;
mod probes;
pub(super) mod qos;
mod resize;
pub(crate) mod resources;
pub(crate) mod scheduling;
mod security;
pub(super) mod status;
pub(super) mod update;
pub(crate) mod validation;
pub(crate) mod volumes;
pub(crate) mod warnings;
mod windows;

use nave_machinery::{Map, Value};

pub(crate) use update::same_but;

/// The fields that hold containers, in the order in which upstream goes through them.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Does something to every container of a pod spec.
pub(crate) fn each_container(spec: &mut Map, mut act: impl FnMut(&mut Map)) {
    for kind in CONTAINERS {
        let list = spec.get_mut(kind).and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut act);
    }
}
