//! The circuit breaker of an aggregated server or a peer.
//!
//! After some failures in a row, requests fail at once, and the server is checked. A check that passes closes the circuit
//! again; one that fails makes the version unavailable.

use std::sync::atomic::{AtomicU32, Ordering};

/// Number of failures in a row that open the circuit.
const FAILURES: u32 = 5;

/// The failures in a row of a server: no connection, or no response on it.
#[derive(Debug, Default)]
pub(crate) struct Circuit(AtomicU32);

impl Circuit {
    /// Returns whether requests fail at once.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= FAILURES
    }

    /// Counts a request without a response.
    pub(crate) fn count_failure(&self) {
        // The number does not wrap: no request is sent while the circuit is open.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets the failures after a response or a check that passed.
    pub(crate) fn close(&self) {
        // A write for each response would move the cache line between the cores.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let circuit = Circuit::default();
        for _ in 0..3 {
            (1..FAILURES).for_each(|_| circuit.count_failure());
            assert!(!circuit.is_open());
            circuit.close();
        }
        (0..FAILURES).for_each(|_| circuit.count_failure());
        assert!(circuit.is_open());
        circuit.close();
        assert!(!circuit.is_open());
    }
}
