//! CPU time and resident memory of the server, read from /proc and summed over its processes.

use std::fs;
use std::time::Duration;

use crate::LoadError;

/// The processes of a server: a single process, or an API server and its etcd.
#[derive(Debug, Clone, Default)]
pub struct Processes(pub Vec<u32>);

impl Processes {
    /// Returns the user and system time used so far; `None` if no process is known. The resolution is 10 ms, so a
    /// measurement should last a second or more.
    pub fn cpu(&self) -> Result<Option<Duration>, LoadError> {
        let ticks = self.sum(|pid| cpu_ticks(&read(pid, "stat")?).ok_or("stat: unknown layout".into()))?;
        let rate = rustix::param::clock_ticks_per_second().max(1);
        Ok(ticks.map(|ticks| Duration::from_nanos(ticks * (1_000_000_000 / rate))))
    }

    /// Returns the resident memory in bytes; `None` if no process is known.
    pub fn rss(&self) -> Result<Option<u64>, LoadError> {
        self.sum(|pid| resident(&read(pid, "status")?).ok_or("status: no VmRSS".into()))
    }

    fn sum(&self, figure: impl Fn(u32) -> Result<u64, String>) -> Result<Option<u64>, LoadError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let each = self.0.iter().map(|&pid| figure(pid).map_err(|e| LoadError::Process(pid, e)));
        each.sum::<Result<u64, _>>().map(Some)
    }
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|e| format!("{file}: {e}"))
}

/// Returns the sum of utime and stime, fields 14 and 15 of proc_pid_stat(5). Fields are counted from the closing
/// parenthesis of the command, because the command may contain spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_stat_of_a_command_with_blanks_and_brackets() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 4 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("77 (cut) S 1"), None);
    }

    #[test]
    fn reads_this_process_and_fails_for_an_unknown_one() {
        let this = Processes(vec![std::process::id()]);
        assert!(this.cpu().unwrap().is_some());
        assert!(this.rss().unwrap().unwrap() > 100_000);
        assert!(Processes(vec![u32::MAX]).rss().is_err());
        assert_eq!(Processes::default().cpu().unwrap(), None);
    }
}
