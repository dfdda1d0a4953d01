//! Parts of a pod that several plugins visit.

use nave_machinery::{Map, Object, Value};

/// The kinds of containers of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Init,
    Regular,
    Ephemeral,
}

impl ContainerKind {
    /// All kinds, in the order in which upstream visits them.
    pub(super) const ALL: [Self; 3] = [Self::Init, Self::Regular, Self::Ephemeral];

    /// The field of a pod's spec that lists containers of the kind.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }

    /// The kind as messages name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init container",
            Self::Regular => "container",
            Self::Ephemeral => "ephemeral container",
        }
    }
}

/// A container of a pod, with its place.
#[derive(Clone, Copy)]
pub(super) struct Container<'a> {
    pub(super) kind: ContainerKind,
    pub(super) index: usize,
    pub(super) value: &'a Value,
}

impl<'a> Container<'a> {
    pub(super) fn name(&self) -> &'a str {
        self.value.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// All containers of a pod's spec: init containers, containers and ephemeral containers.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = Container<'_>> {
    ContainerKind::ALL.into_iter().flat_map(move |kind| {
        let listed = list(spec.get(kind.field())).iter().enumerate();
        listed.map(move |(index, value)| Container { kind, index, value })
    })
}

/// All containers of a pod's spec of some kinds, to be changed.
pub(super) fn containers_mut<'a>(
    spec: &'a mut Map,
    kinds: &'a [ContainerKind],
) -> impl Iterator<Item = (ContainerKind, &'a mut Map)> {
    let of_kind = |name: &str| kinds.iter().copied().find(|kind| kind.field() == name);
    let lists =
        spec.iter_mut().filter_map(move |(name, value)| Some((of_kind(name)?, value.as_array_mut()?)));
    lists.flat_map(|(kind, list)| {
        list.iter_mut().filter_map(move |value| Some((kind, value.as_object_mut()?)))
    })
}

/// The items of a list; empty where there is none.
pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text in a field; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The list in a field of a map, made if it is absent; `None` if something else is there.
pub(super) fn list_mut<'a>(map: &'a mut Map, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = map.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

/// Whether a pod is the mirror of one that a kubelet runs from a file.
pub(super) fn is_mirror(pod: &Object) -> bool {
    pod.annotation("kubernetes.io/config.mirror").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn visits_containers_of_all_kinds() {
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}], "other": [{"name": "o"}]});
        let names: Vec<_> = containers(&spec).map(|it| (it.kind, it.index, it.name().to_owned())).collect();
        let expected = [
            (ContainerKind::Init, 0, "i"),
            (ContainerKind::Regular, 0, "a"),
            (ContainerKind::Regular, 1, "b"),
            (ContainerKind::Ephemeral, 0, "e"),
        ];
        assert_eq!(names, expected.map(|(kind, index, name)| (kind, index, name.to_owned())));
        let spec = spec.as_object_mut().unwrap();
        let mut found: Vec<_> = containers_mut(spec, &ContainerKind::ALL)
            .map(|(_, container)| container["name"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, ["a", "b", "e", "i"]);
    }
}
