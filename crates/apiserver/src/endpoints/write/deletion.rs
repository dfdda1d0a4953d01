//! The deletion of an object.

use nave_admission::Operation;
use nave_machinery::options::DeleteOptions;
use nave_machinery::{Object, Status, meta, time};

use super::Write;
use crate::lifecycle::{self, Deletion};
use crate::storage::{Attempt, Stored, Update};

impl Write<'_> {
    /// Marks or removes the object, after admission.
    pub(super) async fn deletion(
        &self,
        options: &DeleteOptions,
        current: &Stored,
    ) -> Result<(Deletion, Attempt), Status> {
        let target = self.target;
        let def = &target.endpoint.def;
        let mut object = current.object.as_value().clone();
        let deletion = lifecycle::before_delete(def, &mut object, options, target.name, time::now())?;
        let is_held = current.object.deletion_timestamp().is_some()
            && def.strategy.holds_deletion(current.object.as_value());
        // As upstream, a deletion that is already pending is not admitted again.
        if deletion != Deletion::Pending && !is_held {
            self.admit_deletion(&current.object).await?;
        }
        // Upstream marks an object that supports graceful deletion, or removes a finalizer of the garbage collector,
        // before it removes the object, and admits both steps.
        if deletion == Deletion::Now && object != *current.object.as_value() {
            let marked = match meta::deletion_timestamp(&object) {
                Some(_) => &Object::try_from(object.clone()).map_err(Status::internal)?,
                None => &current.object,
            };
            self.admit_deletion(marked).await?;
        }
        let attempt = match deletion {
            Deletion::Pending => Update::NoWrite(object).into(),
            Deletion::Marked => Update::Put(object).into(),
            Deletion::Now => target.deletion(object, current.object.as_value()),
        };
        Ok((deletion, attempt))
    }

    async fn admit_deletion(&self, old: &Object) -> Result<(), Status> {
        let admission = self.target.admission;
        let name = if self.is_of_collection { "" } else { self.target.name };
        let attributes = self.attributes(Operation::Delete, name, Some(old));
        admission.mutate(&attributes, None).await?;
        admission.validate(&attributes, None).await
    }
}
