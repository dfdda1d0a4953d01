//! Encodes objects as tables and as metadata only, in JSON.
//!
//! The metadata of built-in objects is that of the stored version, because upstream builds both before it converts the
//! object. Custom objects are converted when they are read.

use std::borrow::Cow;

use bytes::Bytes;
use nave_codec::json;
use nave_codec::negotiate::{MetaVersion, Transform};
use nave_codec::table::{
    Column, ListMeta, MetadataListWriter, RowObject, TableWriter, partial_object_metadata,
};
use nave_machinery::{Status, Value, meta, time};
use nave_resources::table as columns;
use serde_json::json;

use super::list::list_meta;
use super::{is_scale, object_json, parse};
use crate::descriptions;
use crate::endpoints::Endpoint;
use crate::endpoints::response::List;
use crate::endpoints::versions::{ServedObject, ServedRef};
use crate::negotiation::IncludeObject;

/// Transforms a list.
///
/// # Errors
/// 406 for a form that is not available for lists, 500 if an object cannot be converted.
pub(super) fn list(list: &List, transform: Transform, include: IncludeObject) -> Result<Vec<u8>, Status> {
    let revision = list.revision.to_string();
    let meta = list_meta(list, &revision);
    match transform {
        Transform::Table(version) => {
            let columns = columns_of(&list.endpoint);
            let mut writer = TableWriter::new(version, &meta, Some(&column_definitions(&columns)));
            for object in rows(list)? {
                let value = parse(&cells_json(&list.endpoint, object)?)?;
                let bytes = row_bytes(&list.endpoint, object, include)?;
                put_row(&mut writer, &list.endpoint, &columns, &value, row_object(include, &bytes));
            }
            Ok(writer.finish())
        }
        Transform::PartialObjectMetadataList(version) => {
            let mut writer = MetadataListWriter::new(version, &meta);
            for object in &list.objects {
                writer.item(&object.as_served().metadata_json());
            }
            Ok(writer.finish())
        }
        _ => Err(Status::not_acceptable(&["application/json"])),
    }
}

/// Transforms a list of computed objects.
///
/// # Errors
/// 406 for a form that is not available for lists.
pub(super) fn computed(
    endpoint: &Endpoint,
    objects: &[Value],
    transform: Transform,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let meta = ListMeta::default();
    match transform {
        Transform::Table(version) => {
            let columns = columns_of(endpoint);
            let mut writer = TableWriter::new(version, &meta, Some(&column_definitions(&columns)));
            for object in objects {
                put_row(&mut writer, endpoint, &columns, object, row_object(include, &json::encode(object)));
            }
            Ok(writer.finish())
        }
        Transform::PartialObjectMetadataList(version) => {
            let mut writer = MetadataListWriter::new(version, &meta);
            for object in objects {
                writer.item(&json::encode(object));
            }
            Ok(writer.finish())
        }
        _ => Err(Status::not_acceptable(&["application/json"])),
    }
}

/// Returns the objects of a list in the order of their rows.
fn rows(list: &List) -> Result<Vec<ServedRef<'_>>, Status> {
    let objects = list.objects.iter().map(ServedObject::as_served);
    let Some(key) = list.endpoint.def.strategy.row_order() else { return Ok(objects.collect()) };
    let keyed = objects.map(|object| Ok((key(&parse(&object.cached.json())?), object)));
    let mut keyed = keyed.collect::<Result<Vec<_>, Status>>()?;
    keyed.sort_by_key(|(key, _)| *key);
    Ok(keyed.into_iter().map(|(_, object)| object).collect())
}

/// Transforms an object from the watch cache. A table includes its columns if `with_columns` is true.
///
/// # Errors
/// 406 for a form that is not available for objects, 500 if the object cannot be converted.
pub(super) fn cached(
    endpoint: &Endpoint,
    object: ServedRef<'_>,
    transform: Transform,
    include: IncludeObject,
    with_columns: bool,
) -> Result<Vec<u8>, Status> {
    match transform {
        Transform::Table(version) => {
            let value = parse(&cells_json(endpoint, object)?)?;
            let bytes = row_bytes(endpoint, object, include)?;
            Ok(table_of_one(endpoint, &value, row_object(include, &bytes), version, with_columns))
        }
        Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version) => {
            Ok(partial_object_metadata(version, &object.metadata_json()))
        }
        Transform::Discovery { .. } => Err(Status::not_acceptable(&["application/json"])),
    }
}

/// Transforms an object that is not in the watch cache.
///
/// # Errors
/// 406 for a form that is not available for objects.
pub(super) fn object(
    endpoint: &Endpoint,
    object: &Value,
    transform: Transform,
    include: IncludeObject,
    with_columns: bool,
) -> Result<Vec<u8>, Status> {
    match transform {
        Transform::Table(version) => {
            let bytes = json::encode(object);
            Ok(table_of_one(endpoint, object, row_object(include, &bytes), version, with_columns))
        }
        Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version) => {
            Ok(partial_object_metadata(version, &json::encode(object)))
        }
        Transform::Discovery { .. } => Err(Status::not_acceptable(&["application/json"])),
    }
}

/// Returns the JSON that the cells of an object are computed from: the storage version of built-in objects, the served
/// version of custom objects.
fn cells_json(endpoint: &Endpoint, object: ServedRef<'_>) -> Result<Bytes, Status> {
    if endpoint.def.is_custom() { object_json(endpoint, object) } else { Ok(object.cached.json()) }
}

/// Returns the JSON for the object in a row: the served version if the row includes the whole object, otherwise the
/// stored version.
fn row_bytes(endpoint: &Endpoint, object: ServedRef<'_>, include: IncludeObject) -> Result<Bytes, Status> {
    match include {
        IncludeObject::Object => object_json(endpoint, object),
        IncludeObject::None | IncludeObject::Metadata => Ok(object.metadata_json()),
    }
}

fn row_object(include: IncludeObject, bytes: &[u8]) -> RowObject<'_> {
    match include {
        IncludeObject::None => RowObject::None,
        IncludeObject::Metadata => RowObject::Metadata(bytes),
        IncludeObject::Object => RowObject::Object(bytes),
    }
}

fn table_of_one(
    endpoint: &Endpoint,
    object: &Value,
    included: RowObject<'_>,
    version: MetaVersion,
    with_columns: bool,
) -> Vec<u8> {
    let meta = ListMeta { resource_version: meta::resource_version(object), ..ListMeta::default() };
    // As upstream, the scale of a custom object has the columns of the custom object.
    let has_own_columns = is_scale(object) && !endpoint.def.is_custom();
    let columns = if has_own_columns { Cow::Owned(columns::of_scale()) } else { columns_of(endpoint) };
    let definitions = column_definitions(&columns);
    let mut writer = TableWriter::new(version, &meta, with_columns.then_some(&definitions[..]));
    put_row(&mut writer, endpoint, &columns, object, included);
    writer.finish()
}

fn columns_of(endpoint: &Endpoint) -> Cow<'_, [columns::Column]> {
    Cow::Borrowed(&endpoint.version().columns)
}

fn put_row(
    writer: &mut TableWriter,
    endpoint: &Endpoint,
    columns: &[columns::Column],
    object: &Value,
    included: RowObject<'_>,
) {
    let cells = columns::row(columns, object, time::now());
    let conditions = endpoint.def.strategy.completion(object).map(|completion| {
        json!([{"type": "Completed", "status": "True", "reason": completion.reason, "message": completion.message}])
    });
    writer.row(&cells, conditions.as_ref(), included);
}

fn column_definitions(columns: &[columns::Column]) -> Vec<Column<'_>> {
    let columns = columns.iter().map(|column| Column {
        name: &column.name,
        kind: &column.kind,
        format: &column.format,
        description: descriptions::of_column(&column.description),
        priority: column.priority,
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;

    use super::*;

    fn endpoint() -> Endpoint {
        let registry = Registry::builtin(nave_schema::builtin());
        let def = Arc::clone(registry.lookup(&GroupVersionResource::new("", "v1", "configmaps")).unwrap());
        Endpoint { def, version: 0, storage: None, watched: Arc::default(), allocator: None }
    }

    #[test]
    fn a_row_includes_the_requested_part_of_the_object() {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"k": "v"},
            "metadata": {"name": "a", "resourceVersion": "7"}});
        for (include, wanted) in [
            (IncludeObject::None, Value::Null),
            (
                IncludeObject::Metadata,
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": map["metadata"]}),
            ),
            (IncludeObject::Object, map.clone()),
        ] {
            let transform = Transform::Table(MetaVersion::V1);
            let table = object(&endpoint(), &map, transform, include, true).unwrap();
            let table: Value = serde_json::from_slice(&table).unwrap();
            assert_eq!(table["rows"][0]["object"], wanted, "{include:?}");
            assert_eq!(table["metadata"]["resourceVersion"], "7");
            assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        }
        let table = object(&endpoint(), &map, Transform::Table(MetaVersion::V1), IncludeObject::None, false);
        assert!(!String::from_utf8(table.unwrap()).unwrap().contains("Name"));
    }
}
