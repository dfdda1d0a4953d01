//! The path of a value, kept on the stack and formatted only for errors.

use std::fmt::Write;

use nave_machinery::FieldPath;

use super::NO_PATH;

/// A path from the root of the validated value.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// Returns the path as messages name it: `spec.list[0].field`; empty for the root.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(text);
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Self::Index(parent, index) => {
                parent.write(text);
                let _ = write!(text, "[{index}]");
            }
        }
    }

    /// Returns the path below `base`.
    pub(super) fn below(base: &FieldPath, text: &str) -> FieldPath {
        match (base.as_str(), text) {
            (_, "") => base.clone(),
            (NO_PATH, _) => FieldPath::default().child(text),
            _ => base.child(text),
        }
    }
}
