//! Pod specs: the pods' own and those in the templates of workloads.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`defaults`] | what a spec gets that says nothing of it |
//! | [`image`] | tags of image names |
//! | [`qos`] | the quality of service class |
//! | [`containers`], [`probes`], [`volumes`], [`security`], [`scheduling`] | what these parts must be |
//! | [`validation`] | what a pod and a template must be |
//! | [`warnings`] | what clients are warned of |
//! | [`annotations`] | annotations that may not change |
//! | [`update`] | what may change in a pod |
//! | [`parts`] | what may change in it through `ephemeralcontainers` and `resize` |

pub(super) mod annotations;
mod containers;
pub(crate) mod defaults;
mod image;
pub(crate) mod parts;
mod probes;
pub(super) mod qos;
pub(crate) mod scheduling;
mod security;
pub(super) mod update;
pub(crate) mod validation;
pub(crate) mod volumes;
pub(crate) mod warnings;

use nave_machinery::{Map, Value};

/// The fields that hold containers, in the order in which upstream goes through them.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Does something to every container of a pod spec.
pub(crate) fn each_container(spec: &mut Map, mut act: impl FnMut(&mut Map)) {
    for kind in CONTAINERS {
        let list = spec.get_mut(kind).and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut act);
    }
}
