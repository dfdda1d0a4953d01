//! Checks recorded histories of concurrent clients for linearizability: whether one order of the operations, which keeps
//! the order of operations that did not overlap, explains every answer.
//!
//! The model of a key is an object with a value and a resource version. A key's operations are checked on their own,
//! because a history is linearizable if and only if that of each key is (Herlihy and Wing, 1990). The search is that of
//! Wing and Gong with Lowe's memory of visited configurations (Testing for linearizability, 2017).
//!
//! An operation whose outcome is unknown may take effect at any time after its start, or never.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// An operation on a key and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client, for reports.
    pub client: usize,
    /// The key.
    pub key: String,
    /// Logical time at which the request was sent.
    pub start: u64,
    /// The request.
    pub request: Request,
    /// Logical time of the answer, and the answer; `None` if the outcome is unknown.
    pub answer: Option<(u64, Answer)>,
}

/// A request. The values of all writes of a history differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads the object.
    Get,
    /// Creates the object.
    Create {
        /// The new value.
        value: u64,
    },
    /// Replaces the object if it has this resource version.
    Update {
        /// The new value.
        value: u64,
        /// The expected resource version.
        expected: u64,
    },
    /// Deletes the object, if it has this resource version.
    Delete {
        /// The expected resource version; `None` for any.
        expected: Option<u64>,
    },
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The object that was read.
    Found {
        /// Its value.
        value: u64,
        /// Its resource version.
        revision: u64,
    },
    /// The object does not exist.
    NotFound,
    /// The object was created or replaced.
    Written {
        /// Its new resource version.
        revision: u64,
    },
    /// The object was deleted.
    Deleted,
    /// The object to create exists.
    Exists,
    /// The object has another resource version than expected.
    Conflict,
}

/// The reason why a history is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No order explains the answers.
    NotLinearizable {
        /// The operations of the key, by their start.
        operations: Vec<Operation>,
        /// The longest explained order, as indices of `operations`.
        longest: Vec<usize>,
    },
    /// The search was given up after [`MAX_STEPS`] steps. The history must be shorter to be checked.
    Undecided {
        /// The key.
        key: String,
    },
}

/// Maximum number of attempts to put an operation next, for each key.
pub const MAX_STEPS: u64 = 5_000_000;

/// Checks a history.
///
/// # Errors
/// The first violation, by key.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation.clone());
    }
    keys.into_values().try_for_each(check_key)
}

/// Checks the operations of one key.
fn check_key(mut operations: Vec<Operation>) -> Result<(), Violation> {
    operations.sort_by_key(|operation| operation.start);
    let mut search = Search::new(&operations);
    match search.run() {
        Outcome::Explained => Ok(()),
        Outcome::GivenUp => Err(Violation::Undecided {
            key: operations.into_iter().next().map(|operation| operation.key).unwrap_or_default(),
        }),
        Outcome::Impossible => {
            let longest = std::mem::take(&mut search.longest);
            Err(Violation::NotLinearizable { operations, longest })
        }
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    object: Option<Object>,
    /// The highest resource version that an answer had. That of a later write is higher.
    highest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Object {
    value: u64,
    /// Unknown after a write with an unknown outcome, until an answer has it.
    revision: Option<u64>,
}

impl State {
    /// Returns the state after an operation, or `None` if its answer is wrong in this state. An operation with an unknown
    /// outcome that would have no effect is wrong, so that it is left out.
    fn after(self, operation: &Operation) -> Option<Self> {
        let answer = operation.answer.map(|(_, answer)| answer);
        match (operation.request, self.object, answer) {
            (Request::Get, Some(object), Some(Answer::Found { value, revision })) => {
                let is_same = object.revision.map_or(revision > self.highest, |known| known == revision);
                (is_same && object.value == value).then(|| self.written(value, revision))
            }
            (Request::Create { value }, None, Some(Answer::Written { revision })) => {
                (revision > self.highest).then(|| self.written(value, revision))
            }
            (Request::Update { value, expected }, Some(object), Some(Answer::Written { revision })) => {
                let is_expected = object.revision == Some(expected);
                (is_expected && revision > self.highest).then(|| self.written(value, revision))
            }
            (Request::Delete { expected }, Some(object), Some(Answer::Deleted) | None) => {
                let is_expected = expected.is_none_or(|expected| object.revision == Some(expected));
                is_expected.then_some(Self { object: None, ..self })
            }
            // A client learns a resource version from an answer, so an unknown one is not the expected one.
            (
                Request::Update { expected, .. } | Request::Delete { expected: Some(expected) },
                Some(object),
                Some(Answer::Conflict),
            ) => (object.revision != Some(expected)).then_some(self),
            (Request::Create { .. }, Some(_), Some(Answer::Exists))
            | (
                Request::Get | Request::Update { .. } | Request::Delete { .. },
                None,
                Some(Answer::NotFound),
            ) => Some(self),
            (Request::Create { value }, None, None) => Some(self.written_unseen(value)),
            (Request::Update { value, expected }, Some(object), None) => {
                (object.revision == Some(expected)).then(|| self.written_unseen(value))
            }
            _ => None,
        }
    }

    fn written(self, value: u64, revision: u64) -> Self {
        Self { object: Some(Object { value, revision: Some(revision) }), highest: self.highest.max(revision) }
    }

    fn written_unseen(self, value: u64) -> Self {
        Self { object: Some(Object { value, revision: None }), ..self }
    }
}

/// A depth-first search for an order.
struct Search<'a> {
    operations: &'a [Operation],
    /// The operations that are in the order.
    taken: Vec<u64>,
    /// Number of answered operations that are not in the order.
    open: usize,
    /// The order, with the state before each operation.
    order: Vec<(usize, State)>,
    state: State,
    /// The configurations that were visited.
    visited: HashSet<(Vec<u64>, State)>,
    longest: Vec<usize>,
    steps: u64,
}

enum Outcome {
    Explained,
    Impossible,
    GivenUp,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        Self {
            operations,
            taken: vec![0; operations.len().div_ceil(64)],
            open: operations.iter().filter(|operation| operation.answer.is_some()).count(),
            order: Vec::new(),
            state: State::default(),
            visited: HashSet::new(),
            longest: Vec::new(),
            steps: 0,
        }
    }

    fn run(&mut self) -> Outcome {
        let mut from = 0;
        while self.open > 0 {
            match self.take_next(from) {
                // The candidates of the new configuration start at the first operation again.
                Some(()) => from = 0,
                None if self.steps > MAX_STEPS => return Outcome::GivenUp,
                None => match self.undo() {
                    Some(undone) => from = undone + 1,
                    None => return Outcome::Impossible,
                },
            }
        }
        Outcome::Explained
    }

    /// Puts the first possible operation from index `from` next in the order.
    fn take_next(&mut self, from: usize) -> Option<()> {
        // An operation that starts after another one was answered cannot be before it.
        let mut first_answer = u64::MAX;
        for (index, operation) in self.operations.iter().enumerate() {
            if operation.start > first_answer {
                return None;
            }
            if self.is_taken(index) {
                continue;
            }
            if let Some((at, _)) = operation.answer {
                first_answer = first_answer.min(at);
            }
            if index < from {
                continue;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return None;
            }
            let Some(next) = self.state.after(operation) else { continue };
            self.flip(index);
            if self.visited.insert((self.taken.clone(), next)) {
                self.open -= usize::from(operation.answer.is_some());
                self.order.push((index, self.state));
                self.state = next;
                if self.order.len() > self.longest.len() {
                    self.longest = self.order.iter().map(|(index, _)| *index).collect();
                }
                return Some(());
            }
            self.flip(index);
        }
        None
    }

    /// Removes operations from the order up to the last one that has an alternative, and returns its index.
    fn undo(&mut self) -> Option<usize> {
        loop {
            let (index, before) = self.order.pop()?;
            let has_effect = before != self.state;
            self.state = before;
            self.flip(index);
            self.open += usize::from(self.operations[index].answer.is_some());
            // An operation that changes nothing can be put first wherever its answer is right.
            if has_effect {
                return Some(index);
            }
        }
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn flip(&mut self, index: usize) {
        self.taken[index / 64] ^= 1 << (index % 64);
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operations, longest) = match self {
            Self::Undecided { key } => return write!(f, "{key}: undecided after {MAX_STEPS} steps"),
            Self::NotLinearizable { operations, longest } => (operations, longest),
        };
        writeln!(f, "not linearizable; * marks the longest explained order, by position")?;
        for (index, Operation { client, key, start, request, answer }) in operations.iter().enumerate() {
            let position = longest.iter().position(|taken| *taken == index);
            let position = position.map(|at| format!("*{at}")).unwrap_or_default();
            match answer {
                Some((end, answer)) => {
                    writeln!(
                        f,
                        "{position:>5} {start:>6}..{end:<6} client {client} {key} {request:?}: {answer:?}"
                    )?;
                }
                None => writeln!(
                    f,
                    "{position:>5} {start:>6}..       client {client} {key} {request:?}: unknown"
                )?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "linearizability_tests.rs"]
mod tests;
