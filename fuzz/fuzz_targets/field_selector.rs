//! Field selectors: the text of a selector that was read means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_machinery::selector::FieldSelector;

fuzz_target!(|text: &str| {
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let again = FieldSelector::parse(&selector.to_string()).expect("its text is a selector");
    assert_eq!(selector.to_string(), again.to_string());
    for value in [None, Some(""), Some("a")] {
        assert_eq!(selector.matches(|_| value), again.matches(|_| value));
    }
});
