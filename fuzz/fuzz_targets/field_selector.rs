//! Field selectors: any text is parsed or rejected, and parsed selectors can be evaluated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_machinery::selector::FieldSelector;

fuzz_target!(|text: &str| {
    let Ok(selector) = FieldSelector::parse(text) else { return };
    assert_eq!(selector.is_empty(), selector.requirements().is_empty());
    for value in [None, Some(""), Some("a")] {
        let _ = selector.matches(|_| value);
    }
    for requirement in selector.requirements() {
        let _ = selector.exact(&requirement.path);
    }
});
