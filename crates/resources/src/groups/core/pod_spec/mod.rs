//! Pod specs, in pods and in templates.
//!
//! | module | contents |
//! | --- | --- |
//! | [`defaults`] | defaults |
//! | [`disabled`] | removal of fields of disabled features |
//! | [`image`] | tags of image names |
//! | [`qos`] | the quality of service class |
//! | [`containers`], [`ports`], [`environment`], [`mounts`], [`resources`], [`probes`] | validation of containers |
//! | [`volumes`], [`security`], [`windows`], [`dns`], [`scheduling`], [`affinity`] | validation of other parts |
//! | [`validation`] | validation of pods and templates |
//! | [`warnings`], [`port_warnings`], [`overlaps`] | warnings to clients |
//! | [`annotations`] | validation of annotations |
//! | [`update`] | validation of updates |
//! | [`parts`], [`resize`] | updates through `ephemeralcontainers` and `resize` |
//! | [`status`] | validation of the status |

pub(crate) mod affinity;
mod annotations;
pub(super) mod app_armor;
mod containers;
pub(crate) mod defaults;
mod device_status;
pub(crate) mod disabled;
mod dns;
mod environment;
mod image;
pub(crate) mod label_keys;
mod mounts;
mod overlaps;
pub(crate) mod parts;
pub(crate) mod pod_level;
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

/// The fields with containers, in the order in which upstream visits them.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Calls `act` for every container of a pod spec.
pub(crate) fn each_container(spec: &mut Map, mut act: impl FnMut(&mut Map)) {
    for kind in CONTAINERS {
        let list = spec.get_mut(kind).and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut act);
    }
}
