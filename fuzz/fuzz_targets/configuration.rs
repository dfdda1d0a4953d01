//! Authentication and authorization configuration files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_authn::StaticTokens;
use nave_authn::config::AuthenticationConfiguration;
use nave_authz::Abac;
use nave_authz::config::Configuration;

fuzz_target!(|bytes: &[u8]| {
    let _ = StaticTokens::parse(bytes);
    let _ = Configuration::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Abac::parse(text);
        let _ = AuthenticationConfiguration::parse(text, &["https://kubernetes.default.svc".to_owned()]);
    }
});
