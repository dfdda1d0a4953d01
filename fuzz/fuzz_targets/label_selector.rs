//! Label selectors: the text form of a parsed selector parses to an equal one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_machinery::selector::LabelSelector;

fuzz_target!(|text: &str| {
    let Ok(selector) = LabelSelector::parse(text) else { return };
    let again = LabelSelector::parse(&selector.to_string()).expect("its text is a selector");
    assert_eq!(selector.to_string(), again.to_string());
    for value in [None, Some(""), Some("a")] {
        assert_eq!(selector.matches(|_| value), again.matches(|_| value));
    }
});
