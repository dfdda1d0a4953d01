//! Programs of expressions.

use std::sync::LazyLock;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::draft::{ClassText, Draft, Instruction, Look};

/// Maximum work of looking up the classes of a pattern, in steps of a search.
const MAX_WORK: usize = 1 << 22;

/// The work for a range of characters; `\pL` has 700. Also limits the memory of classes to 2 MiB.
const WORK_PER_RANGE: usize = 16;

/// The work for a character that has cases.
const WORK_PER_CASED: usize = 10;

/// The characters that have other cases.
static CASED: LazyLock<Option<ClassUnicode>> = LazyLock::new(|| unfolded(r"\p{Changes_When_Casemapped}"));

/// A compiled expression. Its memory is about that of its counted repetitions written out.
#[derive(Clone, Debug)]
pub struct Regex {
    pub(super) steps: Box<[Step]>,
    pub(super) classes: Box<[CharacterSet]>,
    /// True if only the start of the text can begin a match.
    pub(super) is_anchored: bool,
    work: u64,
}

/// An instruction of a program, with the indexes of the next ones.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Char(char, u32),
    Class(u32, u32),
    Any(u32),
    Look(Look, u32),
    Split(u32, u32),
    Jump(u32),
    Match,
}

/// A set of characters.
#[derive(Clone, Debug)]
pub(super) struct CharacterSet {
    /// One bit for each ASCII character.
    ascii: u128,
    ranges: Box<[(char, char)]>,
}

impl Regex {
    /// Looks up classes and resolves jumps. Returns `None` if the classes are too large.
    pub(super) fn link(draft: &Draft) -> Option<Self> {
        let mut left = MAX_WORK;
        let classes = draft.classes.iter().map(|text| CharacterSet::new(text, &mut left));
        let classes = classes.collect::<Option<Box<[CharacterSet]>>>()?;
        let steps: Vec<Step> = draft.code.iter().enumerate().map(|(at, it)| link(at, *it)).collect();
        let mut regex = Self {
            steps: steps.into_iter().chain([Step::Match]).collect(),
            classes,
            is_anchored: false,
            work: (MAX_WORK - left) as u64,
        };
        for at in (0..regex.steps.len()).rev() {
            let Some(step) = regex.steps.get(at) else { continue };
            let step = step.map(|next| regex.behind_jumps(next));
            if let Some(place) = regex.steps.get_mut(at) {
                *place = step;
            }
        }
        let first = regex.behind_jumps(0);
        regex.is_anchored = matches!(regex.steps.get(first as usize), Some(Step::Look(Look::TextStart, _)));
        Some(regex)
    }

    /// Returns the memory of the program in bytes.
    pub fn bytes(&self) -> usize {
        let classes = self.classes.iter().map(|class| size_of_val(&*class.ranges)).sum::<usize>();
        size_of::<Self>() + size_of_val(&*self.steps) + size_of_val(&*self.classes) + classes
    }

    /// Returns the work of compiling the program, in steps of a search.
    pub fn work(&self) -> u64 {
        self.work + self.steps.len() as u64
    }

    /// Returns the target of a jump at an index, or the index of another instruction. Jumps behind the index are
    /// resolved already, and jumps back lead to splits.
    fn behind_jumps(&self, at: u32) -> u32 {
        match self.steps.get(at as usize) {
            Some(Step::Jump(next)) => *next,
            _ => at,
        }
    }
}

fn link(at: usize, instruction: Instruction) -> Step {
    let next = |distance: i32| (at as u32).wrapping_add_signed(distance);
    match instruction {
        Instruction::Char(character) => Step::Char(character, next(1)),
        Instruction::Class(class) => Step::Class(class, next(1)),
        Instruction::Any => Step::Any(next(1)),
        Instruction::Look(look) => Step::Look(look, next(1)),
        Instruction::Split(first, second) => Step::Split(next(first), next(second)),
        Instruction::Jump(distance) => Step::Jump(next(distance)),
        Instruction::Slot => Step::Jump(next(1)),
    }
}

impl Step {
    /// Replaces the indexes.
    fn map(self, to: impl Fn(u32) -> u32) -> Self {
        match self {
            Self::Char(character, next) => Self::Char(character, to(next)),
            Self::Class(class, next) => Self::Class(class, to(next)),
            Self::Any(next) => Self::Any(to(next)),
            Self::Look(look, next) => Self::Look(look, to(next)),
            Self::Split(first, second) => Self::Split(to(first), to(second)),
            Self::Jump(next) => Self::Jump(to(next)),
            Self::Match => Self::Match,
        }
    }
}

impl CharacterSet {
    /// Looks up the characters. Subtracts the work from `work`; returns `None` if too little is left.
    fn new(class: &ClassText, work: &mut usize) -> Option<Self> {
        let ranges: Box<[(char, char)]> =
            characters(class, work)?.iter().map(|range| (range.start(), range.end())).collect();
        *work = work.checked_sub(ranges.len() * WORK_PER_RANGE)?;
        let mut ascii = 0;
        for (first, last) in ranges.iter().take_while(|(first, _)| first.is_ascii()) {
            for character in u32::from(*first)..=u32::from(*last).min(127) {
                ascii |= 1 << character;
            }
        }
        Some(Self { ascii, ranges })
    }

    pub(super) fn contains(&self, character: char) -> bool {
        if character.is_ascii() {
            return self.ascii >> u32::from(character) & 1 == 1;
        }
        let after = self.ranges.partition_point(|(first, _)| *first <= character);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, last)| character <= *last)
    }
}

/// Returns the characters of a class.
fn characters(class: &ClassText, work: &mut usize) -> Option<ClassUnicode> {
    let text = &class.text;
    if !class.ignores_case {
        return unfolded(text);
    }
    let (is_negated, inner) = match text.strip_prefix("[^") {
        Some(inner) => (true, format!("[{inner}")),
        None => (false, text.clone()),
    };
    let mut all = unfolded(&inner)?;
    let has_negated_part = [r"\P", "^"].iter().any(|part| inner.contains(part));
    if has_negated_part {
        // A negated part is folded before it is negated. The parser folds each of its characters.
        let width = all.iter().map(ClassUnicodeRange::len).sum::<usize>();
        *work = work.checked_sub(width)?;
        return class_of(text, true);
    }
    // Most characters have no cases. Folding only the others makes large classes cheap.
    let mut cased = all.clone();
    cased.intersect(CASED.as_ref()?);
    let width = cased.iter().map(ClassUnicodeRange::len).sum::<usize>();
    *work = work.checked_sub(width * WORK_PER_CASED)?;
    cased.try_case_fold_simple().ok()?;
    all.union(&cased);
    if is_negated {
        all.negate();
    }
    Some(all)
}

fn unfolded(text: &str) -> Option<ClassUnicode> {
    class_of(text, false)
}

fn class_of(text: &str, ignores_case: bool) -> Option<ClassUnicode> {
    let parsed = ParserBuilder::new().case_insensitive(ignores_case).build().parse(text).ok()?;
    match parsed.kind() {
        HirKind::Class(Class::Unicode(found)) => Some(found.clone()),
        // The class without characters.
        HirKind::Class(Class::Bytes(found)) => found.to_unicode_class(),
        HirKind::Literal(literal) => {
            let characters = std::str::from_utf8(&literal.0).ok()?.chars();
            Some(ClassUnicode::new(characters.map(|only| ClassUnicodeRange::new(only, only))))
        }
        _ => None,
    }
}
