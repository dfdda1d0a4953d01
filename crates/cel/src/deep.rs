//! Runs parsing, checking and evaluation of deeply nested expressions on a thread with a large stack.

/// Number of nodes in a chain, or of nested brackets, above which an expression counts as deep.
const DEEP: usize = 48;
/// Stack size in bytes: enough for the deepest expressions in any build profile. Unused pages use no memory.
const STACK: usize = 128 << 20;

/// Returns whether a text may be a deep expression, without parsing it.
pub(crate) fn may_be_deep(text: &str) -> bool {
    let (mut open, mut deepest, mut operators) = (0usize, 0, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'.' | b'<' | b'>' | b'=' | b'!' | b'n' => {
                operators += 1;
            }
            _ => {}
        }
    }
    deepest > DEEP / 4 || operators > DEEP * 2
}

/// Runs a function on a large stack if its input is deep. Returns `None` if the thread cannot be created.
pub(crate) fn with_stack<T: Send>(is_deep: bool, run: impl FnOnce() -> T + Send) -> Option<T> {
    if !is_deep {
        return Some(run());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).ok()?;
        thread.join().ok()
    })
}
