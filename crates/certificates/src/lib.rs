//! Certificates that webpki, the verifier of rustls, does not read: those of version 1 ([`version_one`]).
//!
//! # Invariants
//! - Does no I/O. No input panics.
//! - A certificate of version 3 is verified by webpki only.

#[cfg(feature = "testing")]
pub mod testing;
pub mod version_one;
