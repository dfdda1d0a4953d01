//! Comprehensions.

use super::{Local, Machine, fatal};
use crate::failure::Failure;
use crate::plan::Fold;
use crate::value::{Value, go_type};

impl<'a> Machine<'a, '_> {
    pub(super) fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Failure> {
        let range = self.eval(&fold.range)?;
        let before = self.locals.get(fold.slot..fold.slot + 3).map(<[Local<'a>]>::to_vec);
        if let Some(accumulator) = self.locals.get_mut(fold.slot) {
            *accumulator = Local::Lazy(&fold.init);
        }
        let result = self.iterate(fold, &range);
        if let (Some(before), Some(slots)) = (before, self.locals.get_mut(fold.slot..fold.slot + 3)) {
            slots.clone_from_slice(&before);
        }
        result
    }

    fn iterate(&mut self, fold: &'a Fold, range: &Value<'a>) -> Result<Value<'a>, Failure> {
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let more = if fold.two {
                        self.step(fold, &Ok(Value::Int(index as i64)), Some(&item))?
                    } else {
                        self.step(fold, &item, None)?
                    };
                    if !more {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = fold.two.then(|| {
                        map.find(&key).and_then(|value| value.ok_or_else(|| Failure::new("no such key")))
                    });
                    if !self.step(fold, &Ok(key), value.as_ref())? {
                        break;
                    }
                }
            }
            other if fold.two => {
                let name = go_type(other);
                return Err(Failure::new(format!("unsupported comprehension range type: {name}")));
            }
            other => return Err(Failure::new(format!("got '{}', expected iterable type", go_type(other)))),
        }
        self.eval(&fold.result)
    }

    /// Runs one iteration. Returns whether the loop continues.
    fn step(
        &mut self,
        fold: &'a Fold,
        first: &Result<Value<'a>, Failure>,
        second: Option<&Result<Value<'a>, Failure>>,
    ) -> Result<bool, Failure> {
        self.set(fold.slot + 1, first);
        if let Some(second) = second {
            self.set(fold.slot + 2, second);
        }
        let condition = self.eval(&fold.condition);
        fatal(&condition)?;
        if matches!(condition, Ok(Value::Bool(false))) {
            return Ok(false);
        }
        let value = self.eval(&fold.step);
        fatal(&value)?;
        if let Some(local) = self.locals.get_mut(fold.slot) {
            *local = match value {
                Ok(value) => Local::Value(value),
                Err(failure) => Local::Failed(failure),
            };
        }
        Ok(true)
    }
}
