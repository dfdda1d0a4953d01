//! A PEM parser as strict as upstream's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A PEM block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The label after `BEGIN`.
    pub(crate) label: String,
    /// True if headers precede the contents.
    pub(crate) has_headers: bool,
    /// The decoded contents.
    pub(crate) contents: Vec<u8>,
}

/// Returns the blocks in a text. Incomplete blocks and text between blocks are ignored.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line, "-----BEGIN ") else { continue };
        let mut rest = lines.clone();
        if let Some(block) = block(label, &mut rest) {
            found.push(block);
            lines = rest;
        }
    }
    found
}

fn label_of<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.trim_end().strip_prefix(prefix)?.strip_suffix("-----")
}

/// Reads the rest of a block. Parsing is linear, because an incomplete block consumes all remaining lines.
fn block<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Option<Block> {
    let (mut encoded, mut has_headers) = (String::new(), false);
    for line in lines {
        if line.starts_with("-----") {
            let contents = STANDARD.decode(encoded).ok()?;
            return (label_of(line, "-----END ")? == label).then(|| Block {
                label: label.to_owned(),
                has_headers,
                contents,
            });
        }
        if encoded.is_empty() && line.contains(':') {
            has_headers = true;
        } else {
            encoded.push_str(line.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_complete_blocks() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        let labels = |text: &str| blocks(text).into_iter().map(|block| block.label).collect::<Vec<_>>();
        for (text, expected) in [
            (block("CERTIFICATE"), &["CERTIFICATE"][..]),
            (format!("a comment\n{}more\n{}", block("A"), block("B")), &["A", "B"]),
            ("-----BEGIN A-----\nMAA=\n-----END A---\n".to_owned(), &[]),
            ("-----BEGIN A-----\nMAA=\n-----END B-----\n".to_owned(), &[]),
            ("-----BEGIN A-----\n***\n-----END A-----\n".to_owned(), &[]),
            (format!("-----BEGIN A-----\n{}", block("B")), &["B"]),
            ("nothing".to_owned(), &[]),
        ] {
            assert_eq!(labels(&text), expected, "{text}");
        }
        let headed = blocks("-----BEGIN A-----\nk: v\n\nMAA=\n-----END A-----\n");
        assert_eq!(headed, [Block { label: "A".to_owned(), has_headers: true, contents: vec![0x30, 0] }]);
    }
}
