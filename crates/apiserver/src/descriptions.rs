//! The API's documentation of its fields, from the types' own sources, found when it is first asked for.

use nave_resources::Description;

/// A column's description.
pub fn of_column(description: &Description) -> &str {
    match description {
        Description::Own(text) => text,
        Description::OfField { .. } => "",
    }
}
