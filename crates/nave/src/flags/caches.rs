//! The flags of the watch caches.

use std::collections::HashMap;

use clap::Args;
use nave_apiserver::storage::WatchCacheSizes;
use nave_machinery::GroupResource;

use super::ETCD;
use super::values::{parse_bool, parse_count};

/// The flags of the watch caches, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct CacheFlags {
    /// Keep a history of events for watches that start in the past. Reads and watches are always served from memory;
    /// false keeps the history as short as possible.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = ETCD)]
    watch_cache: bool,
    /// Minimum number of events in each watch cache. The history grows and shrinks with the rate of events. 0 keeps it
    /// as short as possible.
    #[arg(long, value_name = "N", default_value_t = WatchCacheSizes::DEFAULT, value_parser = parse_count, help_heading = ETCD)]
    default_watch_cache_size: usize,
    /// Minimum number of events for single resources: resource[.group]#size, such as pods#1000,deployments.apps#500.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_size, help_heading = ETCD)]
    watch_cache_sizes: Vec<(GroupResource, usize)>,
}

impl CacheFlags {
    /// Returns the history sizes set by the flags.
    pub(super) fn sizes(self) -> WatchCacheSizes {
        if !self.watch_cache {
            return WatchCacheSizes { default: 0, resources: HashMap::new() };
        }
        let resources = self.watch_cache_sizes.into_iter().collect();
        WatchCacheSizes { default: self.default_watch_cache_size, resources }
    }
}

/// Parses `resource[.group]#size`.
fn parse_size(text: &str) -> Result<(GroupResource, usize), String> {
    let wrong = || format!("{text:?} is not resource[.group]#size");
    let (name, size) = text.trim().split_once('#').ok_or_else(wrong)?;
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if resource.is_empty() || !name.chars().all(legal) {
        return Err(wrong());
    }
    let size = size.parse().map_err(|_| wrong())?;
    Ok((GroupResource::new(group, resource), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes_by_resource_and_group() {
        assert_eq!(parse_size("pods#1000"), Ok((GroupResource::new("", "pods"), 1000)));
        let roles = GroupResource::new("rbac.authorization.k8s.io", "roles");
        assert_eq!(parse_size("roles.rbac.authorization.k8s.io#0"), Ok((roles, 0)));
        for wrong in ["", "pods", "#1", "pods#", "pods#-1", "pods#x", "Pods#1", "a/b#1"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
