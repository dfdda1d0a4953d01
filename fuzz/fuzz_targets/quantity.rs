//! Quantities: the canonical text has the same amount and is stable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_machinery::quantity::Quantity;

fuzz_target!(|text: &str| {
    let Ok(quantity) = Quantity::parse(text) else { return };
    let canonical = quantity.to_string();
    let again = Quantity::parse(&canonical).expect("the canonical text is a quantity");
    assert_eq!(again.to_string(), canonical);
    let _ = (quantity.value(), quantity.milli_value(), quantity + again, quantity - again);
});
