//! What the library promises, against servers that do as a script says. Time is the test's own.

mod elections;
mod fake_leases;
