//! placeholder

use nave_machinery::Value;

pub(super) fn encode(_document: &Value) -> Vec<u8> {
    Vec::new()
}
