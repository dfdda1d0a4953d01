//! Validation of objects against a schema, with the texts and the order of `kube-openapi/pkg/validation/validate` as
//! `ValidateCustomResource` reports them.

mod number;
mod old;
mod outcome;
mod path;
mod types;
mod walk;

use nave_machinery::{FieldError, FieldPath, Value};

use crate::node::Node;
use crate::{list_type, metadata};
use old::Old;
use outcome::Outcome;
use path::Path;
use walk::Walk;

/// Maximum number of errors kept for one object, which is the number of errors in a response.
pub(crate) const MAX_ERRORS: usize = 100;

/// The result of a validation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The errors, about 100 at most.
    pub errors: Vec<FieldError>,
    /// Errors in unchanged parts of an update. These are accepted; upstream does not report them.
    pub ratcheted: Vec<FieldError>,
}

pub(crate) fn object(root: &Node, object: &Value, old: Option<&Value>) -> Findings {
    let base = FieldPath::new(NO_PATH);
    let mut outcome = Outcome::collect();
    let correlated = old.map(|old| Old::new(old, root));
    Walk::new(&base).ratcheted(root, object, &Path::Root, correlated, &mut outcome);
    let mut found = outcome.into_findings();
    metadata::validate_below(root, object, &FieldPath::default(), &mut found.errors);
    add_duplicates(root, object, old, &mut found);
    found
}

pub(crate) fn status(root: &Node, object: &Value, old: &Value) -> Findings {
    let mut found = Findings::default();
    if let (Some(node), Some(status)) = (root.property("status"), object.get("status")) {
        let base = FieldPath::new("status");
        let mut outcome = Outcome::collect();
        let correlated = old.get("status").map(|old| Old::new(old, node));
        Walk::new(&base).ratcheted(node, status, &Path::Root, correlated, &mut outcome);
        found = outcome.into_findings();
    }
    add_duplicates(root, object, Some(old), &mut found);
    found
}

pub(crate) fn value(node: &Node, value: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut outcome = Outcome::collect();
    Walk::new(path).check(node, value, &Path::Root, None, &mut outcome);
    outcome.into_findings().errors
}

/// Adds errors for duplicates in lists, unless the old object also has duplicates.
fn add_duplicates(root: &Node, object: &Value, old: Option<&Value>, found: &mut Findings) {
    let mut duplicates = Vec::new();
    list_type::validate(root, object, &FieldPath::default(), &mut duplicates);
    if duplicates.is_empty() {
        return;
    }
    let mut earlier = Vec::new();
    if let Some(old) = old {
        list_type::validate(root, old, &FieldPath::default(), &mut earlier);
    }
    if earlier.is_empty() {
        found.errors.extend(duplicates);
    }
}

/// The field of an error of the whole object: the text of upstream's nil path.
const NO_PATH: &str = "<nil>";
