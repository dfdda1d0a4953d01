//! Descriptions of table columns, taken from the API documentation.

use std::collections::HashMap;
use std::sync::LazyLock;

use nave_resources::{Description, Registry};

use crate::openapi::documentation::Documentation;

/// Documentation of the fields that built-in columns show, by type and field: a few dozen out of thousands of fields.
static OF_FIELDS: LazyLock<HashMap<(String, &'static str), Box<str>>> = LazyLock::new(|| {
    let documentation = Documentation::new();
    let registry = Registry::builtin_with(nave_schema::builtin(), |_| true);
    let columns = registry.all().flat_map(|def| &def.versions).flat_map(|version| version.columns.iter());
    let fields = columns.filter_map(|column| match &column.description {
        Description::OfField { type_name, field } => {
            let text = documentation.of_field(type_name, field).into();
            Some(((type_name.clone(), *field), text))
        }
        Description::Own(_) => None,
    });
    fields.collect()
});

/// Returns the description of a column; empty if the field is not documented.
pub(crate) fn of_column(description: &Description) -> &str {
    match description {
        Description::Own(text) => text,
        Description::OfField { type_name, field } => {
            OF_FIELDS.get(&(type_name.clone(), *field)).map(AsRef::as_ref).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_the_description_of_its_field() {
        let missing: Vec<_> =
            OF_FIELDS.iter().filter(|(_, text)| text.is_empty()).map(|(of, _)| of).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(OF_FIELDS.len() > 10);
        assert_eq!(of_column(&Description::Own("text".into())), "text");
    }
}
