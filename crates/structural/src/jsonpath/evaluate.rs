//! Evaluates paths.

use std::borrow::Cow;

use nave_machinery::Value;

use super::{End, JsonPathError, MAX_STEPS, Slice, Step, Test, compare};

type Values<'v> = Vec<Cow<'v, Value>>;

/// An evaluation, with the number of steps left.
pub(super) struct Evaluation {
    left: usize,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self { left: MAX_STEPS }
    }
}

impl Evaluation {
    pub(super) fn steps<'v>(
        &mut self,
        input: Values<'v>,
        steps: &'v [Step],
    ) -> Result<Values<'v>, JsonPathError> {
        steps.iter().try_fold(input, |values, step| self.step(values, step))
    }

    fn charge(&mut self, values: usize) -> Result<(), JsonPathError> {
        let left = self.left.checked_sub(values.saturating_add(1));
        self.left = left.ok_or_else(|| JsonPathError::new("the path visits too many values"))?;
        Ok(())
    }

    fn step<'v>(&mut self, input: Values<'v>, step: &'v Step) -> Result<Values<'v>, JsonPathError> {
        self.charge(input.len())?;
        let mut found = Vec::new();
        match step {
            Step::Constant(value) => found.extend(input.iter().map(|_| Cow::Borrowed(value))),
            Step::Field(name) => found.extend(input.iter().filter_map(|value| field(value, name))),
            Step::Word(word) => return Err(JsonPathError::new(format!("unrecognized identifier {word}"))),
            Step::Union(parts) => {
                for part in parts {
                    found.extend(self.steps(input.clone(), part)?);
                }
            }
            Step::Wildcard => {
                for value in input {
                    found.extend(self.children(&value)?);
                }
            }
            Step::Recursive => {
                for value in input {
                    self.descend(value, &mut found)?;
                }
            }
            Step::Slice(slice) => {
                for value in input {
                    found.extend(self.slice(value, *slice)?);
                }
            }
            Step::Filter { left, test } => {
                for value in input {
                    found.extend(self.filter(&value, left, test)?);
                }
            }
        }
        Ok(found)
    }

    fn children<'v>(&mut self, value: &Cow<'v, Value>) -> Result<Values<'v>, JsonPathError> {
        let children: Values<'v> = match value {
            Cow::Borrowed(Value::Object(fields)) => fields.values().map(Cow::Borrowed).collect(),
            Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
            // The elements of a string are its bytes; they are the only owned values.
            other => match &**other {
                Value::String(text) => {
                    self.charge(text.len())?;
                    text.bytes().map(|byte| Cow::Owned(Value::from(byte))).collect()
                }
                _ => Vec::new(),
            },
        };
        self.charge(children.len())?;
        Ok(children)
    }

    /// Adds a value that has elements, and all such values below it.
    fn descend<'v>(&mut self, value: Cow<'v, Value>, found: &mut Values<'v>) -> Result<(), JsonPathError> {
        self.charge(0)?;
        if let Value::String(text) = &*value {
            if !text.is_empty() {
                found.push(value);
            }
            return Ok(());
        }
        let children = self.children(&value)?;
        if !children.is_empty() {
            found.push(value);
            for child in children {
                self.descend(child, found)?;
            }
        }
        Ok(())
    }

    fn slice<'v>(&mut self, value: Cow<'v, Value>, slice: Slice) -> Result<Values<'v>, JsonPathError> {
        let items = match value {
            Cow::Borrowed(Value::Array(items)) => items,
            value if value.is_null() => return Ok(Vec::new()),
            _ => return Err(JsonPathError::new("the value is not array or slice")),
        };
        let length = items.len() as i64;
        let mut start = slice.start.unwrap_or(0);
        let mut end = match slice.end {
            End::AfterStart => start.saturating_add(1),
            End::Open => length,
            End::At(end) => end,
        };
        if start < 0 {
            start += length;
        }
        if end < 0 || (end == 0 && slice.end == End::AfterStart) {
            end += length;
        }
        if start == end {
            return Ok(Vec::new());
        }
        let out_of_bounds = |index: i64| {
            JsonPathError::new(format!("array index out of bounds: index {index}, length {length}"))
        };
        if !(0..length).contains(&start) {
            return Err(out_of_bounds(start));
        }
        if !(0..=length).contains(&end) {
            return Err(out_of_bounds(end - 1));
        }
        if start > end {
            let message = format!("starting index {start} is greater than ending index {end}");
            return Err(JsonPathError::new(message));
        }
        let step = slice.step.unwrap_or(1);
        if step <= 0 {
            return Err(JsonPathError::new("step must be > 0"));
        }
        let chosen = items.get(start as usize..end as usize).unwrap_or_default();
        let chosen: Values<'v> = chosen.iter().step_by(step as usize).map(Cow::Borrowed).collect();
        self.charge(chosen.len())?;
        Ok(chosen)
    }

    fn filter<'v>(
        &mut self,
        value: &Cow<'v, Value>,
        left: &'v [Step],
        test: &'v Test,
    ) -> Result<Values<'v>, JsonPathError> {
        let Cow::Borrowed(Value::Array(items)) = *value else {
            return Err(JsonPathError::new("the value is not array or slice and cannot be filtered"));
        };
        let mut found = Vec::new();
        for item in items {
            if self.passes(item, left, test)? {
                found.push(Cow::Borrowed(item));
            }
        }
        Ok(found)
    }

    fn passes<'v>(
        &mut self,
        item: &'v Value,
        left: &'v [Step],
        test: &'v Test,
    ) -> Result<bool, JsonPathError> {
        self.charge(0)?;
        let lefts = self.steps(vec![Cow::Borrowed(item)], left);
        let (operator, right) = match test {
            // A path that does not fit the value counts as existing, as upstream.
            Test::Exists => return Ok(lefts.map_or(self.left > 0, |lefts| !lefts.is_empty())),
            Test::Compare(operator, right) => (operator, right),
        };
        let Some(left) = single(lefts?)? else { return Ok(false) };
        let Some(right) = single(self.steps(vec![Cow::Borrowed(item)], right)?)? else { return Ok(false) };
        compare::holds(&left, operator, &right)
    }
}

fn field<'v>(value: &Cow<'v, Value>, name: &str) -> Option<Cow<'v, Value>> {
    match *value {
        Cow::Borrowed(value) => value.as_object()?.get(name).map(Cow::Borrowed),
        Cow::Owned(_) => None,
    }
}

fn single(mut values: Values) -> Result<Option<Cow<Value>>, JsonPathError> {
    if values.len() > 1 {
        return Err(JsonPathError::new("can only compare one element at a time"));
    }
    Ok(values.pop())
}
