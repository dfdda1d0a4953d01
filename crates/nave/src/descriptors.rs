//! The limit of open file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open file descriptors to the hard limit, and returns the resulting limit.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::info!(from = current, to = maximum, "file descriptor limit raised");
            maximum.unwrap_or(u64::MAX)
        }
        Err(error) => {
            tracing::warn!(%error, limit = current, "raising the file descriptor limit failed");
            current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_soft_limit_to_hard_limit() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let lower = Rlimit { current: Some(512.min(maximum.unwrap_or(u64::MAX))), maximum };
        setrlimit(Resource::Nofile, lower).unwrap();
        assert_eq!(raise_limit(), maximum.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
