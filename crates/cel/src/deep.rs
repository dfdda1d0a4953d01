//! Deep expressions: they are parsed, checked and evaluated on a stack of their own size.

/// Nodes of a chain or of nested brackets from which on an expression is deep.
const DEEP: usize = 48;
/// Enough for the deepest expressions in any build. Only what is used takes memory.
const STACK: usize = 128 << 20;

/// Returns whether a text may be a deep expression.
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

/// Runs a function on a large stack if its input is deep. Returns nothing if there is no thread for it.
pub(crate) fn with_stack<T: Send>(is_deep: bool, run: impl FnOnce() -> T + Send) -> Option<T> {
    if !is_deep {
        return Some(run());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).ok()?;
        thread.join().ok()
    })
}
