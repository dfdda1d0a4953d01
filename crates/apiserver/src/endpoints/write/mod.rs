//! The write path: a [`Write`] computes the next state of an object from each observed state.
//!
//! | stage | where |
//! | --- | --- |
//! | decode, strictness, defaults | [`Target::decode`] |
//! | apply the change: new object, replacement, patch, applied configuration, deletion | [`Write::next`], [`patch`], `apply` |
//! | managed fields | `managed_fields` |
//! | conversion to the storage version, of built-in objects | [`View::to_storage`] |
//! | namespace, then mutating admission | `stages` |
//! | metadata, strategy `prepare_for_*` | `stages`, [`lifecycle`](crate::lifecycle) |
//! | allocation of addresses and ports | [`allocation`](crate::allocation) |
//! | validation of metadata and by the strategy, canonical form | `stages` |
//! | validating admission | `stages` |
//! | conversion to the storage version, of custom objects | `versions` |
//! | end of a dry run; otherwise compare-and-swap, repeated from the newer state if another writer was faster | [`ResourceStorage::compare_and_swap`] |

mod apply;
mod change;
mod deletion;
mod managed_fields;
mod patch;
mod requests;
mod stages;
mod target;

use std::time::Instant;

use nave_admission::{Attributes, Operation, RequestOptions};
use nave_machinery::options::{CreateOptions, DeleteOptions, FieldValidation};
use nave_machinery::{
    FieldError, FieldPath, GroupKind, GroupVersionKind, Object, Reason, Status, Value, meta,
};

pub use self::apply::Apply;
pub use self::change::{Change, CreateRight};
pub use self::managed_fields::{type_ref, view_type};
pub use self::patch::Patch;
pub use self::requests::{create, create_object, patch, update};
pub use self::target::{Payload, Target, typed_object, with_changed_metadata};
use super::view::View;
use super::{decode, versions};
use crate::lifecycle::{self, Deletion};
use crate::steps::StepKind;
use crate::storage::{Attempt, NextState, ResourceStorage, Stored, Update, WriteResult, WrittenVersion};

/// A change of one object, in progress.
pub struct Write<'a> {
    pub(super) target: &'a Target<'a>,
    change: Change<'a>,
    options: RequestOptions<'a>,
    /// The name of the object, which may be generated.
    name: String,
    /// The kind of the request, for admission.
    kind: GroupVersionKind,
    /// The outcome of a deletion of the last observed state.
    deletion: Deletion,
    /// True if the object did not exist in the last observed state.
    creates: bool,
    /// An admitted new object that admission has renamed. The next attempt stores it under its name.
    renamed: Option<Value>,
    /// The name of a new object before admission; empty if it is generated.
    requested_name: String,
    /// True for one of the deletions of a collection, which have no name in admission.
    is_of_collection: bool,
}

/// The result of a write.
pub struct Written {
    /// The object after the write, or its last state if it was deleted. Its managed fields may be text or trees.
    object: Value,
    /// True if the object was created.
    pub created: bool,
    /// The result of a deletion.
    pub deletion: Deletion,
    /// The stored version, if the object was written.
    pub version: Option<WrittenVersion>,
}

impl Written {
    /// Returns the object after the write, or its last state if it was deleted.
    pub fn into_object(mut self) -> Value {
        nave_machinery::managed_fields::expand(&mut self.object);
        self.object
    }
}

impl<'a> Write<'a> {
    /// Creates the write of a change.
    pub fn new(target: &'a Target<'a>, change: Change<'a>, options: &'a CreateOptions) -> Self {
        Self::with_options(target, change, RequestOptions::Write(options))
    }

    /// Creates the write of a deletion.
    pub fn delete(target: &'a Target<'a>, options: &'a DeleteOptions) -> Self {
        Self::with_options(target, Change::Delete(options), RequestOptions::Delete(options))
    }

    /// Marks the deletion as part of the deletion of a collection.
    pub fn of_collection(mut self) -> Self {
        self.is_of_collection = true;
        self
    }

    fn with_options(target: &'a Target<'a>, change: Change<'a>, options: RequestOptions<'a>) -> Self {
        let kind = target.view.gvk(target.endpoint);
        let (name, deletion) = (String::new(), Deletion::Pending);
        Self {
            target,
            change,
            options,
            name,
            kind,
            deletion,
            creates: false,
            renamed: None,
            requested_name: String::new(),
            is_of_collection: false,
        }
    }

    /// Runs the write on the object with a name.
    ///
    /// # Errors
    /// The reason for rejecting the write, or the error of the store.
    pub async fn run(mut self, name: &str) -> Result<Written, Status> {
        let target = self.target;
        let storage: &ResourceStorage = target.storage()?;
        name.clone_into(&mut self.name);
        if let Change::Create(object) = &self.change {
            meta::name(object).clone_into(&mut self.requested_name);
        }
        let WriteResult { stored, version, .. } = loop {
            let name = self.name.clone();
            // For a create, validation reports a name that cannot be part of a key.
            let key = match target.key(&name) {
                Ok(key) => key,
                Err(status) => return Err(Box::pin(self.refusal(status)).await),
            };
            let outcome = storage.compare_and_swap(&key, &name, &mut self).await;
            match &self.renamed {
                // A webhook may rename a new object. It is admitted only once.
                Some(object) if meta::name(object) != name => meta::name(object).clone_into(&mut self.name),
                _ => break outcome?,
            }
        };
        let (object, created) = (stored.object.into_value(), self.creates);
        Ok(Written { object, created, deletion: self.deletion, version })
    }

    /// Returns the validation error of a create if its name cannot be part of a key; otherwise `status`.
    async fn refusal(&mut self, status: Status) -> Status {
        let Change::Create(object) = &self.change else { return status };
        let object = object.clone();
        self.create(object).await.err().unwrap_or(status)
    }

    async fn create(&mut self, mut object: Value) -> Result<Attempt, Status> {
        self.remove_repeated_owners(&mut object, "");
        // Before the managed fields are computed: nobody owns these fields.
        lifecycle::wipe_system_fields(&mut object, self.target.namespace)?;
        let admitted = match self.renamed.take() {
            Some(admitted) => admitted,
            None => self.admit_new(self.to_storage(None, object).await?).await?,
        };
        if matches!(self.change, Change::Create(_)) && meta::name(&admitted) != self.name {
            let status = Status::internal("admission changed the name of a new object");
            self.renamed = Some(admitted);
            return Err(status);
        }
        self.prepare_new(admitted).await
    }

    async fn replace(&mut self, version: Option<u64>, current: &Stored) -> Result<Attempt, Status> {
        let target = self.target;
        if let Change::Replace { object, .. } = &self.change {
            target.check_uid(object, &current.object)?;
        }
        if version.is_some_and(|version| version != current.revision) {
            return Err(target.modified());
        }
        let is_scale = matches!(target.view, View::Scale(_));
        if version.is_none() && !is_scale && !target.endpoint.def.rules.unconditional_update {
            let at = FieldPath::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&at, 0, "must be specified for an update");
            // As upstream, the error names the resource in place of the kind.
            let resource = target.endpoint.def.group_resource();
            let named = GroupKind { group: resource.group, kind: resource.resource };
            return Err(Status::invalid(&named, target.name, &[error]));
        }
        let mut object = match &self.change {
            Change::Replace { object, create, .. } if version.is_none() || create.is_some() => object.clone(),
            // Only one attempt can match this version, and none creates the object, so the object can be moved.
            _ => self.take_object(),
        };
        self.remove_repeated_owners(&mut object, "");
        let changed = self.to_storage(Some(current.object.as_value()), object).await?;
        self.prepare_changed(changed, &current.object).await
    }

    /// Takes the object of a create or replacement that no other attempt needs. A copy would take a tenth of the time of
    /// the write.
    fn take_object(&mut self) -> Value {
        match &mut self.change {
            Change::Create(object) | Change::Replace { object, .. } => std::mem::take(object),
            _ => Value::Null,
        }
    }

    async fn patch(
        &self,
        patch: &Patch,
        validation: FieldValidation,
        current: &Stored,
    ) -> Result<Attempt, Status> {
        let target = self.target;
        let stored = current.object.as_value();
        let patched = || {
            let mut view = target.view.to_changed(target.endpoint, stored)?;
            patch.apply(target, &mut view)?;
            Ok::<_, Status>(view)
        };
        let body = decode::Body { object: patched()?, strict_errors: patch.strict_errors(), json: None };
        let object = match target.typed(body, validation) {
            Ok(object) => object,
            Err(decode::Refusal { why: Some(why), .. }) => {
                return Err(patch.refuse(target, &patched()?, &why));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        target.check_name(&object)?;
        if parse_resource_version(&object)?.is_some_and(|version| version != current.revision) {
            return Err(target.modified());
        }
        let changed = self.to_storage(Some(stored), object).await?;
        self.prepare_changed(changed, &current.object).await
    }

    /// Returns the admission attributes of the write.
    fn attributes<'s>(
        &'s self,
        operation: Operation,
        name: &'s str,
        old: Option<&'s Object>,
    ) -> Attributes<'s> {
        let target = self.target;
        Attributes {
            def: &target.endpoint.def,
            kind: &self.kind,
            version: &target.endpoint.version().name,
            subresource: target.view.subresource(),
            namespace: target.namespace,
            name,
            operation,
            verb: target.context.info.attribute_verb(),
            old,
            options: self.options,
            user: target.context.user(),
            deadline: target.context.work_deadline(),
            notes: &target.context.notes,
        }
    }

    async fn next_attempt(&mut self, current: Option<&Stored>) -> Result<Attempt, Status> {
        let target = self.target;
        match (&self.change, current) {
            (Change::Create(_), None) => {
                let object = self.take_object();
                self.create(object).await
            }
            (Change::Create(object), Some(current)) => {
                // As upstream, errors of the object take precedence over a taken name. If an earlier attempt took the
                // object, the object is valid.
                if !object.is_null() || self.renamed.is_some() {
                    let object = object.clone();
                    drop(self.create(object).await?);
                }
                Err(target.already_exists(&self.name, &current.object))
            }
            (Change::Replace { version, .. }, Some(current)) => {
                let version = *version;
                self.replace(version, current).await
            }
            (Change::Replace { object, create: Some(right), .. }, None) => {
                // An update with a uid expects an existing object, so it must not create a new one.
                target.check_precondition("UID", meta::uid(object), "")?;
                right.authorization.authorize(&right.attributes).await?;
                let object = object.clone();
                self.create(object).await
            }
            (Change::Patch { patch, validation }, Some(current)) => {
                Box::pin(self.patch(patch, *validation, current)).await
            }
            // Boxed to keep the futures of other writes small.
            (Change::Apply(apply), current) => Box::pin(self.apply(apply, current)).await,
            (Change::Compute(change), Some(current)) => {
                let mut object = change(&current.object)?;
                self.track_stored(current.object.as_value(), &mut object);
                self.prepare_changed(object, &current.object).await
            }
            (Change::ComputeUnowned(change), Some(current)) => {
                self.prepare_changed(change(&current.object)?, &current.object).await
            }
            (Change::Store(change), Some(current)) => Ok(Update::Put(change(&current.object)?).into()),
            (Change::Delete(options), Some(current)) => {
                let (deletion, attempt) = Box::pin(self.deletion(options, current)).await?;
                self.deletion = deletion;
                Ok(attempt)
            }
            (_, None) => Err(Status::not_found(&target.endpoint.resource(), target.name)),
        }
    }
}

impl Write<'_> {
    /// Returns the state of a custom object as read in the request's version; `None` if the write uses the stored
    /// state.
    async fn as_read(&self, current: &Stored) -> Result<Option<Stored>, Status> {
        let endpoint = self.target.endpoint;
        let is_used = !matches!(self.change, Change::Create(_));
        if !endpoint.def.is_custom() || endpoint.is_storage_version() || !is_used {
            return Ok(None);
        }
        let object = versions::read(endpoint, current.object.as_value().clone()).await?;
        let object = Object::try_from(object).map_err(Status::internal)?;
        Ok(Some(Stored { object, revision: current.revision }))
    }
}

impl NextState for Write<'_> {
    fn sent(&self, started: Instant) {
        let kind = match self.change {
            Change::Delete(_) => StepKind::Delete,
            _ if self.creates => StepKind::Create,
            _ => StepKind::Update,
        };
        self.target.context.steps.record(kind, started);
    }

    async fn next(&mut self, current: Option<&Stored>) -> Result<Attempt, Status> {
        self.creates = current.is_none();
        let read = match current {
            Some(current) => Box::pin(self.as_read(current)).await?,
            None => None,
        };
        let mut attempt = self.next_attempt(read.as_ref().or(current)).await?;
        if let Update::Put(object) = &mut attempt.update {
            *object = Box::pin(versions::write(self.target.endpoint, std::mem::take(object))).await?;
        }
        // A dry run ends before the transaction and returns the object that would have been stored.
        Ok(if self.options.dry_run() { attempt.dry() } else { attempt })
    }

    fn refuse_undecodable(&self, error: Status) -> Status {
        match &self.change {
            Change::Create(_) => Status::already_exists(&self.target.endpoint.resource(), &self.name),
            _ => error,
        }
    }

    /// As upstream, an apply must not lose the record of what it owns.
    fn may_drop_managed_fields(&self) -> bool {
        !matches!(self.change, Change::Apply(_))
    }
}

/// Parses the revision that an update expects; `None` for any.
pub(crate) fn parse_resource_version(object: &Value) -> Result<Option<u64>, Status> {
    match meta::resource_version(object) {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let text = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            Status::failure(500, Reason::Unknown, text)
        }),
    }
}
