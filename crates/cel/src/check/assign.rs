//! Assignability of types, with substitutions for type variables.

use std::sync::Arc;

use crate::kinds::Type;
use crate::messages::WRAPPER;

/// The types that are substituted for type variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Substitutions(Vec<Option<Type>>);

impl Substitutions {
    /// Creates a type variable.
    pub(super) fn create_variable(&mut self) -> Type {
        self.0.push(None);
        Type::Variable((self.0.len() - 1) as u32)
    }

    fn find(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Variable(index) => self.0.get(*index as usize)?.as_ref(),
            _ => None,
        }
    }

    fn add(&mut self, variable: &Type, ty: Type) {
        if let Type::Variable(index) = variable
            && let Some(slot) = self.0.get_mut(*index as usize)
        {
            *slot = Some(ty);
        }
    }

    /// Substitutes the variables in a type; with `to_dyn`, unbound variables become `dyn`.
    pub(super) fn apply(&self, ty: &Type, to_dyn: bool) -> Type {
        if let Some(found) = self.find(ty) {
            return self.apply(found, to_dyn);
        }
        let inner = |of: &Arc<Type>| Arc::new(self.apply(of, to_dyn));
        match ty {
            Type::Variable(_) | Type::Parameter(_) if to_dyn => Type::Dyn,
            Type::List(of) => Type::List(inner(of)),
            Type::Map(from, to) => Type::Map(inner(from), inner(to)),
            Type::Opaque(name, Some(of)) => Type::Opaque(name, Some(inner(of))),
            Type::Type(Some(of)) => Type::Type(Some(inner(of))),
            other => other.clone(),
        }
    }

    /// Returns whether one type is assignable to the other. Keeps the substitutions only on success.
    pub(super) fn assignable(&mut self, left: &Type, right: &Type) -> bool {
        self.all_assignable(&[(left, right)])
    }

    /// Like [`Self::assignable`], for all pairs.
    pub(super) fn all_assignable(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        let before = self.clone();
        let fits = pairs.iter().all(|(left, right)| self.fits(left, right));
        if !fits {
            *self = before;
        }
        fits
    }

    fn fits(&mut self, left: &Type, right: &Type) -> bool {
        if right.is_parameter() {
            let (valid, has) = self.substitute(left, right);
            if valid {
                return true;
            }
            if has {
                return false;
            }
        }
        if left.is_parameter() {
            return self.substitute(right, left).0;
        }
        match (left, right) {
            (Type::Dyn | Type::Any | Type::Error, _) | (_, Type::Dyn | Type::Any | Type::Error) => true,
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            (Type::Opaque(WRAPPER, Some(of)), other) | (other, Type::Opaque(WRAPPER, Some(of))) => {
                let scalar = match other {
                    Type::Opaque(WRAPPER, Some(scalar)) => scalar,
                    other => other,
                };
                **of == *scalar
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.fits(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.fits(a, c) && self.fits(b, d),
            (Type::Opaque(a, of), Type::Opaque(b, other)) => {
                a == b
                    && match (of, other) {
                        (Some(of), Some(other)) => self.fits(of, other),
                        (None, None) => true,
                        _ => false,
                    }
            }
            (Type::Unspecified, _) => false,
            _ => left == right,
        }
    }

    /// Tries to substitute a type for a variable. Returns whether the type fits, and whether the variable was already
    /// bound.
    fn substitute(&mut self, ty: &Type, variable: &Type) -> (bool, bool) {
        if ty == variable {
            return (true, true);
        }
        if let Some(found) = self.find(variable).cloned() {
            if *ty == found {
                return (true, true);
            }
            if self.fits(ty, &found) {
                let general = if is_less_specific(ty, &found) { ty.clone() } else { found };
                if self.is_free_in(variable, &general) {
                    self.add(variable, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.is_free_in(variable, ty) {
            self.add(variable, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Returns whether a type does not contain a variable.
    fn is_free_in(&self, variable: &Type, ty: &Type) -> bool {
        if variable == ty {
            return false;
        }
        if ty.is_parameter() {
            return self.find(ty).is_none_or(|found| self.is_free_in(variable, found));
        }
        ty.parameters().into_iter().all(|of| self.is_free_in(variable, of))
    }
}

fn is_nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp)
}

/// Returns whether the first type equals the second or is more general.
pub(super) fn is_less_specific(left: &Type, right: &Type) -> bool {
    if left.is_dyn() || left.is_parameter() {
        return true;
    }
    if right.is_dyn() || right.is_parameter() {
        return false;
    }
    match (left, right) {
        (Type::List(a), Type::List(b)) => is_less_specific(a, b),
        (Type::Map(a, b), Type::Map(c, d)) => is_less_specific(a, c) && is_less_specific(b, d),
        (Type::Opaque(a, of), Type::Opaque(b, other)) => {
            a == b
                && match (of, other) {
                    (Some(of), Some(other)) => is_less_specific(of, other),
                    _ => of.is_none() && other.is_none(),
                }
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => left == right,
    }
}
