//! Access to the parts of a pod.

use nave_machinery::{Map, Value};
pub(super) use nave_resources::pod::ContainerKind;
use nave_resources::pod::containers_in;

/// A container of a pod, with its field path.
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

/// All containers of a pod's spec, of every kind.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = Container<'_>> {
    containers_in(spec).map(|(kind, index, value)| Container { kind, index, value })
}

/// Mutable access to all containers of some kinds in a pod's spec.
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

/// The items of a list; empty if it is absent.
pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The string in a field; empty if it is absent.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the list in a field of a map, which is created if it is absent; `None` if the field has another type.
pub(super) fn list_mut<'a>(map: &'a mut Map, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = map.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
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
