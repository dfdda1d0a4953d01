//! Pod specs: the pods' own and those in the templates of workloads.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`defaults`] | what a spec gets that says nothing of it |
//! | [`image`] | tags of image names |

pub(crate) mod defaults;
mod image;

use nave_machinery::{Map, Value};

/// The fields that hold containers, in the order in which upstream goes through them.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// All containers of a pod spec: the plain ones, the init containers, the ephemeral ones.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.iter().filter_map(|kind| spec.get(kind)?.as_array()).flatten()
}

/// Does something to every container of a pod spec.
pub(crate) fn each_container(spec: &mut Map, mut act: impl FnMut(&mut Map)) {
    for kind in CONTAINERS {
        let list = spec.get_mut(kind).and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut act);
    }
}
