//! Searches for matches.

use std::ops::Range;

use super::draft::Look;
use super::program::{Regex, Step};

/// Maximum number of steps of a search: some seconds. Only texts and programs of megabytes need so many.
pub const MAX_STEPS: u64 = 1 << 28;

/// Error of a search that takes too many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the regular expression takes too many steps")]
pub struct OutOfSteps;

impl Regex {
    /// Returns whether a text has a match.
    ///
    /// # Errors
    /// The search takes more than [`MAX_STEPS`] steps.
    pub fn is_match(&self, text: &str) -> Result<bool, OutOfSteps> {
        self.is_match_within(text, &mut { MAX_STEPS })
    }

    /// Returns whether a text has a match. Subtracts the steps of the search from `steps`.
    ///
    /// # Errors
    /// The search takes more than `steps` steps.
    pub fn is_match_within(&self, text: &str, steps: &mut u64) -> Result<bool, OutOfSteps> {
        Search::new(self, text, steps).run(0, true).map(|found| found.is_some())
    }

    /// Returns at most `limit` matches that do not overlap. Subtracts the steps of the search from `steps`.
    ///
    /// # Errors
    /// The search takes more than `steps` steps.
    pub fn find_within<'t>(
        &self,
        text: &'t str,
        limit: usize,
        steps: &mut u64,
    ) -> Result<Vec<&'t str>, OutOfSteps> {
        let mut search = Search::new(self, text, steps);
        let mut found = Vec::new();
        let mut from = 0;
        let mut last_end = None;
        while found.len() < limit && from <= text.len() {
            let Some(range) = search.run(from, false)? else { break };
            // Go ignores an empty match right after a match.
            let is_ignored = range.is_empty() && last_end == Some(range.start);
            from = range.end;
            if range.is_empty() {
                from += text.get(from..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
            }
            if !is_ignored {
                last_end = Some(range.end);
                found.push(text.get(range).unwrap_or_default());
            }
        }
        Ok(found)
    }
}

/// A thread: the index of its instruction, and the start of its match.
type Thread = (u32, usize);

struct Search<'s> {
    regex: &'s Regex,
    text: &'s str,
    /// The steps left.
    steps: &'s mut u64,
    /// Threads by preference.
    threads: Vec<Thread>,
    next: Vec<Thread>,
    /// The generation in which an instruction was last added. A generation is a position of the text.
    added: Vec<u64>,
    generation: u64,
    /// Instructions to add.
    pending: Vec<u32>,
}

/// A position in the text: its offset, and the characters around it.
#[derive(Clone, Copy)]
struct Position {
    at: usize,
    before: Option<char>,
    after: Option<char>,
}

impl<'s> Search<'s> {
    fn new(regex: &'s Regex, text: &'s str, steps: &'s mut u64) -> Self {
        let (threads, next, pending) = (Vec::new(), Vec::new(), Vec::new());
        let added = vec![0; regex.steps.len()];
        Self { regex, text, steps, threads, next, added, generation: 0, pending }
    }

    /// Finds the first match from an offset. Returns a part of it if `is_any` is set.
    fn run(&mut self, from: usize, is_any: bool) -> Result<Option<Range<usize>>, OutOfSteps> {
        let (before, after) = self.text.split_at_checked(from).unwrap_or((self.text, ""));
        let mut characters = after.chars();
        let mut position =
            Position { at: from, before: before.chars().next_back(), after: characters.next() };
        let mut found = None;
        self.threads.clear();
        self.next.clear();
        self.spend(self.added.len() / 16)?;
        self.generation += 1;
        loop {
            let begins = found.is_none() && (position.at == 0 || !self.regex.is_anchored);
            if begins {
                self.add((0, position.at), position)?;
            }
            std::mem::swap(&mut self.threads, &mut self.next);
            if self.threads.is_empty() && !begins {
                return Ok(found);
            }
            self.generation += 1;
            let width = position.after.map_or(0, char::len_utf8);
            let following =
                Position { at: position.at + width, before: position.after, after: characters.next() };
            self.spend(self.threads.len() + 1)?;
            let threads = std::mem::take(&mut self.threads);
            for (at, start) in &threads {
                let next = match (self.regex.steps.get(*at as usize), position.after) {
                    (Some(Step::Match), _) => {
                        found = Some(*start..position.at);
                        // The other threads have lower preference.
                        break;
                    }
                    (Some(Step::Any(next)), Some(_)) => *next,
                    (Some(Step::Char(wanted, next)), Some(found)) if *wanted == found => *next,
                    (Some(Step::Class(class, next)), Some(found))
                        if self.regex.classes.get(*class as usize).is_some_and(|it| it.contains(found)) =>
                    {
                        *next
                    }
                    _ => continue,
                };
                self.add((next, *start), following)?;
            }
            self.threads = threads;
            self.threads.clear();
            if position.after.is_none() || is_any && found.is_some() {
                return Ok(found);
            }
            position = following;
        }
    }

    /// Adds a thread to the next ones, and those that it continues as without reading a character.
    fn add(&mut self, (at, start): Thread, position: Position) -> Result<(), OutOfSteps> {
        self.pending.push(at);
        while let Some(at) = self.pending.pop() {
            let Some(added) = self.added.get_mut(at as usize) else { continue };
            if std::mem::replace(added, self.generation) == self.generation {
                continue;
            }
            self.spend(1)?;
            match self.regex.steps.get(at as usize) {
                Some(Step::Split(first, second)) => self.pending.extend([*second, *first]),
                Some(Step::Jump(next)) => self.pending.push(*next),
                Some(Step::Look(look, next)) if position.is(*look) => self.pending.push(*next),
                Some(Step::Look(..)) | None => {}
                Some(_) => self.next.push((at, start)),
            }
        }
        Ok(())
    }

    fn spend(&mut self, steps: usize) -> Result<(), OutOfSteps> {
        *self.steps = self.steps.checked_sub(steps as u64).ok_or(OutOfSteps)?;
        Ok(())
    }
}

impl Position {
    fn is(self, look: Look) -> bool {
        let is_word =
            |character: Option<char>| character.is_some_and(|it| it.is_ascii_alphanumeric() || it == '_');
        match look {
            Look::TextStart => self.before.is_none(),
            Look::TextEnd => self.after.is_none(),
            Look::LineStart => self.before.is_none_or(|it| it == '\n'),
            Look::LineEnd => self.after.is_none_or(|it| it == '\n'),
            Look::WordBoundary => is_word(self.before) != is_word(self.after),
            Look::NoWordBoundary => is_word(self.before) == is_word(self.after),
        }
    }
}
