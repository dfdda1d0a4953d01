//! The columns of a custom resource's tables (upstream: `pkg/registry/customresource/tableconvertor`).

use nave_machinery::Value;
use nave_structural::column::PrinterColumn;
use nave_structural::jsonpath::JsonPathError;

use crate::read;
use crate::table::{self, Column};

/// Returns the columns of a version: the name and the declared columns, or name and age if no columns are declared. As
/// in upstream, the columns end before the first one with an invalid path.
pub(super) fn of(spec: &Value) -> Vec<Column> {
    let declared = read::list(spec, "additionalPrinterColumns");
    if declared.is_empty() {
        return vec![table::name(), table::age().of_kind("date")];
    }
    let columns = declared.iter().map_while(|column| declared_column(column).ok());
    std::iter::once(table::name()).chain(columns).collect()
}

fn declared_column(spec: &Value) -> Result<Column, JsonPathError> {
    let (kind, path) = (read::text(spec, "type"), read::text(spec, "jsonPath"));
    let about = match read::text(spec, "description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        text => text.to_owned(),
    };
    let cells = PrinterColumn::new(kind, path)?;
    let column = Column::new(read::text(spec, "name").to_owned(), move |object, now| cells.cell(object, now));
    Ok(column
        .of_kind(kind.to_owned())
        .with_format(read::text(spec, "format").to_owned())
        .with_priority(i32::try_from(read::int(spec, "priority")).unwrap_or(i32::MAX))
        .about(about))
}
