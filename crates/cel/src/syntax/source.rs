//! The text of an expression, positions in it, and errors with positions.

use std::fmt::Write as _;

use super::ast::Id;

/// An error in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The line, from 1; -1 for errors without a position.
    pub line: i32,
    /// The column in code points, from 0; -1 for errors without a position.
    pub column: i32,
    /// The message.
    pub message: String,
}

/// The errors of an expression, ordered by position. `Display` shows them as cel-go does, with source lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Issues {
    /// The errors.
    pub list: Vec<Issue>,
    text: String,
}

impl Issues {
    /// Creates an error without a position.
    pub(crate) fn unplaced(message: &str) -> Self {
        let issue = Issue { line: -1, column: -1, message: message.to_owned() };
        Source::default().issues(vec![issue])
    }
}

/// The text and the positions of nodes.
#[derive(Debug, Default)]
pub(crate) struct Source {
    lines: Vec<String>,
    /// Offsets in code points at which lines begin.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let (mut lines, mut starts, mut offset) = (Vec::new(), Vec::new(), 0);
        for line in text.split('\n') {
            starts.push(offset);
            offset += line.chars().count() as u32 + 1;
            lines.push(line.to_owned());
        }
        Self { lines, starts, positions: vec![0] }
    }

    /// Creates a node's identifier at an offset in code points.
    pub(crate) fn create_id(&mut self, offset: u32) -> Id {
        self.positions.push(offset);
        (self.positions.len() - 1) as Id
    }

    /// Returns the number of identifiers.
    pub(crate) fn id_count(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn offset(&self, id: Id) -> u32 {
        self.positions.get(id as usize).copied().unwrap_or_default()
    }

    pub(crate) fn issue_at(&self, id: Id, message: impl Into<String>) -> Issue {
        self.issue_at_offset(self.offset(id), message)
    }

    pub(crate) fn issue_at_offset(&self, offset: u32, message: impl Into<String>) -> Issue {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        Issue { line: line as i32, column: offset as i32 - start as i32, message: message.into() }
    }

    /// Orders errors and formats them.
    pub(crate) fn issues(&self, mut list: Vec<Issue>) -> Issues {
        list.sort_by_key(|issue| (issue.line, issue.column));
        let mut text = String::new();
        for (index, issue) in list.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            if index == MAX_SHOWN {
                let _ = write!(text, "{} more errors were truncated", list.len() - MAX_SHOWN);
                break;
            }
            self.show(issue, &mut text);
        }
        Issues { list, text }
    }

    /// Appends the position, the line and a mark below it. Wide characters have wide dots and marks.
    fn show(&self, issue: &Issue, text: &mut String) {
        let _ = write!(text, "ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message);
        let line = usize::try_from(issue.line - 1).ok().and_then(|line| self.lines.get(line));
        let shown = line.filter(|line| issue.column >= 0 && line.chars().count() <= MAX_SNIPPET);
        let Some(line) = shown else { return };
        let snippet = line.replace('\t', " ");
        let _ = write!(text, "\n | {snippet}\n | ");
        let mut rest = snippet.chars();
        for wide in rest.by_ref().take(usize::try_from(issue.column).unwrap_or(0)) {
            text.push(if wide.len_utf8() > 1 { '．' } else { '.' });
        }
        text.push(if rest.next().is_some_and(|next| next.len_utf8() > 1) { '＾' } else { '^' });
    }
}

const MAX_SHOWN: usize = 100;
const MAX_SNIPPET: usize = 16_384;
