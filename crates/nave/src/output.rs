//! Standard output: the lines that say where the server is.

use std::io::{self, Write};

/// Writes lines to standard output. The program goes on whether or not somebody reads them.
pub(crate) fn print(lines: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_all(lines.as_bytes()).and_then(|()| output.flush()) {
        tracing::warn!(%error, "standard output cannot be written");
    }
}
