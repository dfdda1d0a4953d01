//! Conflicts of an apply with other managers, and how clients are told (upstream:
//! `apimachinery/pkg/util/managedfields/internal/conflict.go`).

use std::collections::BTreeMap;
use std::fmt::Write;

use nave_machinery::status::StatusCause;
use nave_machinery::{Reason, Status};

use super::entries::ManagerId;
use super::path::{PathElement, display};
use super::set::FieldSet;

/// A field that an apply would change, and another manager that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, as errors name it.
    manager: String,
    path: Vec<PathElement>,
}

/// The conflicts of an apply, by manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(Vec<Conflict>);

impl Conflicts {
    pub(super) fn add(&mut self, manager: &ManagerId, fields: &FieldSet) {
        let name = describe(manager);
        self.0.extend(fields.paths().into_iter().map(|path| Conflict { manager: name.clone(), path }));
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The conflicts about other fields than these.
    #[must_use]
    pub(super) fn without(mut self, fields: &FieldSet) -> Self {
        self.0.retain(|conflict| !fields.contains(&conflict.path));
        self
    }

    /// 409, with a cause for each field and manager.
    pub fn into_status(self) -> Status {
        let message = self.message();
        let mut status = Status::failure(409, Reason::Conflict, message);
        let causes = self.0.into_iter().map(|conflict| StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", conflict.manager),
            field: display(&conflict.path),
        });
        status.details.get_or_insert_default().causes = causes.collect();
        status
    }

    fn message(&self) -> String {
        if let [conflict] = self.0.as_slice() {
            let path = display(&conflict.path);
            return format!("Apply failed with 1 conflict: conflict with {}: {path}", conflict.manager);
        }
        let mut by_manager: BTreeMap<&str, Vec<&[PathElement]>> = BTreeMap::new();
        for conflict in &self.0 {
            by_manager.entry(&conflict.manager).or_default().push(&conflict.path);
        }
        let mut text = format!("Apply failed with {} conflicts: ", self.0.len());
        for (at, (manager, paths)) in by_manager.into_iter().enumerate() {
            let line = if at > 0 { "\n" } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{line}conflicts with {manager}:");
            for path in paths {
                let _ = write!(text, "\n- {}", display(path));
            }
        }
        text
    }
}

fn describe(id: &ManagerId) -> String {
    let mut text = format!("{:?}", id.manager);
    // Writing to a string cannot fail.
    if !id.subresource.is_empty() {
        let _ = write!(text, " with subresource {:?}", id.subresource);
    }
    if !id.applied {
        let _ = write!(text, " using {}", id.api_version);
    }
    text
}
