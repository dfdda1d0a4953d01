//! Instructions of an expression while it is parsed.

use std::collections::HashMap;

/// Maximum number of instructions. Go allows 3 million, which no list of sensible expressions approaches.
pub(super) const MAX_INSTRUCTIONS: usize = 1 << 18;

/// Maximum number of distinct classes.
const MAX_CLASSES: usize = 1 << 12;

/// An instruction. Jumps are relative, so that a repetition can copy the code of its part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    /// Matches one character.
    Char(char),
    /// Matches a character of a class, an index into the list of classes.
    Class(u32),
    /// Matches any character.
    Any,
    /// Tests the position.
    Look(Look),
    /// Continues at two instructions; prefers the first.
    Split(i32, i32),
    /// Continues at another instruction.
    Jump(i32),
    /// Does nothing. Reserved for the split of an alternation or repetition.
    Slot,
}

/// A test of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    WordBoundary,
    NoWordBoundary,
}

/// A class of characters in the syntax of the `regex` crate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassText {
    pub(super) text: String,
    pub(super) ignores_case: bool,
}

/// The expression is too large.
#[derive(Debug)]
pub(super) struct TooLarge;

/// A part of the code that ends at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: usize,
    /// True if the part can match the empty text.
    pub(super) is_nullable: bool,
}

/// The code of an expression.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) code: Vec<Instruction>,
    pub(super) classes: Vec<ClassText>,
    indexes: HashMap<ClassText, u32>,
}

/// An alternation whose last alternative is open.
#[derive(Debug)]
pub(super) struct Alternation {
    start: usize,
    /// The slot of the open alternative.
    open: usize,
    /// The jumps to the end.
    jumps: Vec<usize>,
}

impl Draft {
    pub(super) fn push(&mut self, instruction: Instruction) -> Result<(), TooLarge> {
        if self.code.len() >= MAX_INSTRUCTIONS {
            return Err(TooLarge);
        }
        self.code.push(instruction);
        Ok(())
    }

    pub(super) fn push_class(&mut self, text: String, ignores_case: bool) -> Result<(), TooLarge> {
        let class = ClassText { text, ignores_case };
        let index = match self.indexes.get(&class) {
            Some(index) => *index,
            None if self.classes.len() >= MAX_CLASSES => return Err(TooLarge),
            None => {
                let index = self.classes.len() as u32;
                self.classes.push(class.clone());
                self.indexes.insert(class, index);
                index
            }
        };
        self.push(Instruction::Class(index))
    }

    /// Begins an alternation. The first slot is for a repetition of the whole.
    pub(super) fn begin(&mut self) -> Result<Alternation, TooLarge> {
        let start = self.code.len();
        self.push(Instruction::Slot)?;
        self.push(Instruction::Slot)?;
        Ok(Alternation { start, open: start + 1, jumps: Vec::new() })
    }

    /// Begins the next alternative.
    pub(super) fn next(&mut self, alternation: &mut Alternation) -> Result<(), TooLarge> {
        alternation.jumps.push(self.code.len());
        self.push(Instruction::Jump(1))?;
        self.set(alternation.open, Instruction::Split(1, self.distance(alternation.open)));
        alternation.open = self.code.len();
        self.push(Instruction::Slot)
    }

    /// Ends an alternation; returns the start of its code.
    pub(super) fn end(&mut self, alternation: &Alternation) -> usize {
        for jump in &alternation.jumps {
            self.set(*jump, Instruction::Jump(self.distance(*jump)));
        }
        alternation.start
    }

    /// Repeats the last part. Returns whether the repetition can match the empty text.
    pub(super) fn repeat(
        &mut self,
        part: Part,
        min: u32,
        max: Option<u32>,
        is_lazy: bool,
    ) -> Result<bool, TooLarge> {
        match (min, max) {
            (0, None) => self.star(part, is_lazy)?,
            (1, None) => self.plus(self.body(part.start), is_lazy)?,
            (0, Some(1)) => self.optional(part.start, is_lazy)?,
            (min, max) => self.copies(part.start, min, max, is_lazy)?,
        }
        Ok(part.is_nullable || min == 0)
    }

    fn star(&mut self, part: Part, is_lazy: bool) -> Result<(), TooLarge> {
        self.reserve(part.start)?;
        if part.is_nullable {
            // Keeps the preference between an empty iteration and none, as Go's compiler.
            self.plus(part.start + 1, is_lazy)?;
        } else {
            let back = -self.distance(part.start);
            self.push(Instruction::Jump(back))?;
        }
        self.optional(part.start, is_lazy)
    }

    fn plus(&mut self, body: usize, is_lazy: bool) -> Result<(), TooLarge> {
        let back = -self.distance(body);
        self.push(split(back, 1, is_lazy))
    }

    fn optional(&mut self, start: usize, is_lazy: bool) -> Result<(), TooLarge> {
        self.reserve(start)?;
        self.set(start, split(1, self.distance(start), is_lazy));
        Ok(())
    }

    fn copies(&mut self, start: usize, min: u32, max: Option<u32>, is_lazy: bool) -> Result<(), TooLarge> {
        let body = self.code.split_off(self.body(start));
        self.code.truncate(start);
        let count = max.unwrap_or(min) as usize;
        if (body.len() + 1).saturating_mul(count) > MAX_INSTRUCTIONS - self.code.len() {
            return Err(TooLarge);
        }
        let mut last = start;
        for _ in 0..min {
            last = self.code.len();
            self.code.extend_from_slice(&body);
        }
        let Some(max) = max else { return self.plus(last, is_lazy) };
        let optional = max.saturating_sub(min) as usize;
        for left in (1..=optional).rev() {
            self.push(split(1, ((body.len() + 1) * left) as i32, is_lazy))?;
            self.code.extend_from_slice(&body);
        }
        Ok(())
    }

    /// Makes the first instruction of a part a slot. Only a part without a slot is a single instruction.
    fn reserve(&mut self, start: usize) -> Result<(), TooLarge> {
        if self.body(start) == start {
            let only = self.code.pop();
            self.push(Instruction::Slot)?;
            if let Some(only) = only {
                self.push(only)?;
            }
        }
        Ok(())
    }

    /// Returns the index behind the slot of a part.
    fn body(&self, start: usize) -> usize {
        start + usize::from(matches!(self.code.get(start), Some(Instruction::Slot)))
    }

    /// Returns the distance from an instruction to the end.
    fn distance(&self, from: usize) -> i32 {
        (self.code.len() - from) as i32
    }

    fn set(&mut self, at: usize, instruction: Instruction) {
        if let Some(place) = self.code.get_mut(at) {
            *place = instruction;
        }
    }
}

fn split(body: i32, other: i32, is_lazy: bool) -> Instruction {
    if is_lazy { Instruction::Split(other, body) } else { Instruction::Split(body, other) }
}
