//! The flags of writes of objects.

use clap::Args;

use super::GENERAL;
use super::values::{parse_bool, whole};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = GENERAL)]
pub(super) struct ObjectFlags {
    /// Accept pods with privileged containers. Pod Security admission can refuse them by namespace.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    allow_privileged: bool,
    /// Number of objects that a deletion of a collection deletes at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole(1..=MAX_WORKERS))]
    delete_collection_workers: u16,
}

/// The settings of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectConfig {
    /// True if privileged containers are accepted.
    pub(crate) allows_privileged: bool,
    /// The objects of a collection that are deleted at a time.
    pub(crate) delete_workers: u16,
}

impl ObjectFlags {
    pub(super) fn config(&self) -> ObjectConfig {
        ObjectConfig {
            allows_privileged: self.allow_privileged,
            delete_workers: self.delete_collection_workers,
        }
    }
}

/// More would not be faster, because the store commits the writes that wait together.
const MAX_WORKERS: u16 = 1024;
