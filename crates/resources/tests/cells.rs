//! Table rows of the objects in `cells.json`; `UPDATE_EXPECT=1` rewrites `cells.expected`.

use std::fmt::Write;
use std::path::PathBuf;

use nave_machinery::time::Timestamp;
use nave_machinery::{GroupVersion, Value, meta};
use nave_resources::{Registry, convert, table};
use nave_schema::SchemaSet;
use serde_json::json;

#[test]
fn table_rows_match_expected() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let objects: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("cells.json")).unwrap()).unwrap();
    let now = Timestamp::parse("2026-01-01T01:00:00Z").unwrap();
    let registry = Registry::builtin(&SchemaSet::default());
    let mut rows = String::new();
    for mut object in objects {
        meta::set(&mut object, "creationTimestamp", json!("2026-01-01T00:00:00Z"));
        let version = GroupVersion::parse(meta::api_version(&object)).unwrap();
        let def = registry.by_kind(&version.with_kind(meta::kind(&object))).unwrap();
        convert(def, &mut object, &version, &def.storage.as_ref().unwrap().version).unwrap();
        writeln!(rows, "{} {}", def.group_resource(), meta::name(&object)).unwrap();
        let version = &def.versions[0];
        for (column, cell) in version.columns.iter().zip(table::row(&version.columns, &object, now)) {
            writeln!(rows, "  {}: {cell}", column.name).unwrap();
        }
    }
    let path = folder.join("cells.expected");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &rows).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(rows == expected, "{} differs; UPDATE_EXPECT=1 rewrites it:\n{rows}", path.display());
}
