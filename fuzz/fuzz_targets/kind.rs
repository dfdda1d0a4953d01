//! Valid objects of every kind with a few changed fields: no panics, defaulting is idempotent, and an accepted object
//! is also accepted as an update of itself.
#![no_main]

#[path = "../../crates/resources/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;
use properties::{Choices, KINDS, check, mutate, sample};

fuzz_target!(|input: (u16, &[u8])| {
    let (choice, bytes) = input;
    let kind = &KINDS[usize::from(choice) % KINDS.len()];
    let mut object = sample(kind);
    mutate(kind, &mut object, &mut Choices(bytes));
    check(kind, object);
});
