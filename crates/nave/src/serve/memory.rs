//! Detects memory pressure in the control group or on the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory is short if less than one part in this many is available.
const LEFT: u64 = 10;

/// Returns whether memory is short; false if neither source can be read.
pub(super) fn is_short() -> bool {
    let group = control_group().is_some_and(|folder| group_is_short(&folder));
    let machine = fs::read_to_string("/proc/meminfo").is_ok_and(|text| machine_is_short(&text));
    group || machine
}

/// Returns the folder of the process's control group (version 2).
fn control_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// Returns whether the group's usage, without reclaimable file pages, is near its limit.
fn group_is_short(folder: &Path) -> bool {
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files = field(&statistics, "inactive_file").unwrap_or(0);
    match (number("memory.max"), number("memory.current")) {
        (Some(limit), Some(used)) => limit.saturating_sub(used.saturating_sub(files)) < limit / LEFT,
        // The group has no limit, or the files do not exist.
        _ => false,
    }
}

fn machine_is_short(meminfo: &str) -> bool {
    match (field(meminfo, "MemTotal:"), field(meminfo, "MemAvailable:")) {
        (Some(total), Some(available)) => available < total / LEFT,
        _ => false,
    }
}

/// Returns the number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_whitespace).find_map(|mut words| {
        let found = words.next() == Some(name);
        found.then_some(words)
    })?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_short_below_a_tenth() {
        let of =
            |available: u64| format!("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  {available} kB\n");
        assert!(!machine_is_short(&of(100)));
        assert!(machine_is_short(&of(99)));
        assert!(!machine_is_short(""));
    }

    #[test]
    fn control_group_is_short_near_its_limit_without_file_pages() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(!group_is_short(folder.path()), "no group");
        write("memory.max", "1000\n");
        write("memory.current", "950\n");
        write("memory.stat", "anon 1\ninactive_file 60\n");
        assert!(!group_is_short(folder.path()));
        write("memory.stat", "anon 1\ninactive_file 40\n");
        assert!(group_is_short(folder.path()));
        write("memory.max", "max\n");
        assert!(!group_is_short(folder.path()), "no limit");
    }
}
