//! What the API computes instead of storing it, by itself: each file answers the creates of one resource or
//! subresource ([`Computed`](crate::endpoints::computed::Computed)).

mod binding;
mod eviction;

use std::sync::Arc;

use crate::endpoints::computed::ComputedTable;

/// A table of what needs nothing but the resources themselves.
pub fn table() -> ComputedTable {
    ComputedTable::default()
        .with("", "pods", "binding", Arc::new(binding::Binding))
        .with("", "bindings", "", Arc::new(binding::Binding))
        .with("", "pods", "eviction", Arc::new(eviction::Eviction))
}
