//! Standard output: the lines with the server's addresses.

use std::io::{self, Write};

/// Writes lines to standard output. Only logs errors, because nobody may be reading.
pub(crate) fn print(lines: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_all(lines.as_bytes()).and_then(|()| output.flush()) {
        tracing::warn!(%error, "writing to standard output failed");
    }
}
