//! Conflicts of an apply with other managers, and their error messages (upstream:
//! `apimachinery/pkg/util/managedfields/internal/conflict.go`).

use std::fmt::{self, Display, Write};
use std::ops::ControlFlow;

use nave_machinery::limits::clipped;
use nave_machinery::status::{MAX_CAUSES, StatusCause};
use nave_machinery::{Reason, Status};

use super::entries::ManagerId;
use super::path::display;
use super::set::FieldSet;

/// Maximum length in error messages of a path and of a manager's description, in bytes. A name can be as long as the
/// body.
const MAX_SHOWN_BYTES: usize = 1024;

/// Fields that an apply would change and another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Conflict {
    /// The manager's description for errors.
    manager: String,
    fields: FieldSet,
}

/// The conflicts of an apply, by manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(Vec<Conflict>);

/// A conflict in an error message.
struct Shown<'c> {
    manager: &'c str,
    path: String,
}

impl Conflicts {
    pub(super) fn add(&mut self, manager: &ManagerId, fields: FieldSet) {
        let manager = clipped(Description(manager), MAX_SHOWN_BYTES);
        self.0.push(Conflict { manager, fields });
    }

    /// Returns whether the list of conflicts is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the conflicts over these fields.
    #[must_use]
    pub(super) fn without(mut self, fields: &FieldSet) -> Self {
        self.0.retain_mut(|conflict| {
            conflict.fields = std::mem::take(&mut conflict.fields).difference(fields);
            !conflict.fields.is_empty()
        });
        self
    }

    /// Returns status 409 with a cause for each field and manager, at most [`MAX_CAUSES`].
    pub fn into_status(self) -> Status {
        let shown = self.reported();
        let mut status = Status::failure(409, Reason::Conflict, self.message(&shown));
        let causes = shown.into_iter().map(|Shown { manager, path }| StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {manager}"),
            field: path,
        });
        status.details.get_or_insert_default().causes = causes.collect();
        status
    }

    fn reported(&self) -> Vec<Shown<'_>> {
        let mut shown = Vec::new();
        let _ = self.0.iter().try_for_each(|Conflict { manager, fields }| {
            fields.try_for_each_path(&mut |path| {
                if shown.len() == MAX_CAUSES {
                    return ControlFlow::Break(());
                }
                let path = clipped(display(path.iter().copied()), MAX_SHOWN_BYTES);
                shown.push(Shown { manager, path });
                ControlFlow::Continue(())
            })
        });
        shown
    }

    fn message(&self, shown: &[Shown<'_>]) -> String {
        let count: usize = self.0.iter().map(|conflict| conflict.fields.len()).sum();
        if let (1, [Shown { manager, path }]) = (count, shown) {
            return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut by_manager: Vec<&Shown<'_>> = shown.iter().collect();
        by_manager.sort_by_key(|shown| shown.manager);
        let mut text = format!("Apply failed with {count} conflicts: ");
        // Writing to a string cannot fail.
        for (at, same) in by_manager.chunk_by(|a, b| a.manager == b.manager).enumerate() {
            let line = if at > 0 { "\n" } else { "" };
            let manager = same.first().map_or("", |shown| shown.manager);
            let _ = write!(text, "{line}conflicts with {manager}:");
            for Shown { path, .. } in same {
                let _ = write!(text, "\n- {path}");
            }
        }
        if count > shown.len() {
            let _ = write!(text, "\nand {} more conflicts", count - shown.len());
        }
        text
    }
}

/// Formats a manager for error messages.
struct Description<'m>(&'m ManagerId);

impl Display for Description<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManagerId { manager, applied, api_version, subresource } = self.0;
        write!(out, "{manager:?}")?;
        if !subresource.is_empty() {
            write!(out, " with subresource {subresource:?}")?;
        }
        if !applied {
            write!(out, " using {api_version}")?;
        }
        Ok(())
    }
}
