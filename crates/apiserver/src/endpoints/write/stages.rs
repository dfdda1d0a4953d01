//! The stages from a decoded or patched object to an object that can be committed, in upstream's order.

use std::time::Instant;

use nave_admission::{Operation, set_certificate_requester};
use nave_machinery::time;
use nave_machinery::{FieldErrors, FieldPath, Map, Object, Reason, Status, Value, meta, names};
use nave_resources::{KeptMetadata, ResourceDef, pod};
use nave_schema::Shape;
use nave_schema::normalize::{Mode, normalize};

use super::managed_fields::keep_times_of_unchanged;
use super::{Target, Write};
use crate::endpoints::view::View;
use crate::lifecycle;
use crate::steps::StepKind;
use crate::storage::{Attempt, Update};

impl Write<'_> {
    /// Runs mutating admission on a new object in its storage version. The result has a name.
    pub(super) async fn admit_new(&self, mut object: Value) -> Result<Value, Status> {
        let target = self.target;
        let def = &target.endpoint.def;
        lifecycle::wipe_system_fields(&mut object, target.namespace)?;
        if def.rules.refuses_creates {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&def.group_resource(), &self.name, why));
        }
        let mut object = self.mutate(Operation::Create, object, None).await?;
        check_has_no_version(&object, self.options.dry_run())?;
        if meta::name(&object).is_empty() && !self.name.is_empty() {
            meta::set(&mut object, "name", Value::String(self.name.clone()));
        }
        Ok(object)
    }

    /// Prepares the creation of an admitted object.
    pub(super) async fn prepare_new(&self, mut object: Value) -> Result<Attempt, Status> {
        let target = self.target;
        let def = &target.endpoint.def;
        if meta::name(&object) != self.name {
            return Err(Status::internal("admission changed the name of a new object"));
        }
        lifecycle::before_create(def, &mut object, target.namespace, time::now())?;
        if target.endpoint.version().has_status() && !def.rules.creates_with_status {
            drop_status(def, &mut object);
        }
        let mut object = prepared_for_create(def, object, target)?;
        let reservation = target.allocate(&mut object, None, self.options.dry_run()).await?;
        let mut errors = names::validate_object_meta(
            object.get("metadata").unwrap_or(&Value::Null),
            def.namespaced,
            |name| def.name_rule.check(name),
            &FieldPath::new("metadata"),
        );
        errors.append(finalizer_errors(def, &object));
        errors.append(def.strategy.validate(&object));
        errors.append(pod::refused_privileged(def, &object));
        if let Some(schema) = target.endpoint.version().custom() {
            errors.append(schema.validate(&def.kind, &object, None));
            let (violated, warnings) = schema.validate_rules(&object, None, &errors);
            errors.append(violated);
            target.warn(warnings);
        }
        if !errors.is_empty() {
            return Err(target.invalid(meta::name(&object), &errors));
        }
        target.warn(def.strategy.warnings(&object, None));
        def.strategy.canonicalize(&mut object);
        let object = self.validate(Operation::Create, object, None).await?;
        Ok(Attempt { update: Update::Put(object), reservation })
    }

    /// Prepares the update of a stored object to a changed object.
    pub(super) async fn prepare_changed(&self, mut object: Value, old: &Object) -> Result<Attempt, Status> {
        let target = self.target;
        let def = &target.endpoint.def;
        let (strategy, old_value) = (&def.strategy, old.as_value());
        lifecycle::ensure_namespace(&mut object, target.namespace)?;
        let mut object = self.mutate(Operation::Update, object, Some(old)).await?;
        let (version, stored) = (meta::resource_version(&object), old.resource_version());
        if !matches!(version, "" | "0") && !stored.is_empty() && version != stored {
            return Err(target.modified());
        }
        keep_times_of_unchanged(&mut object, old);
        match &target.view {
            View::Status => object = with_status_of(old_value, &object),
            View::Object | View::Scale(_) if target.endpoint.version().has_status() => {
                keep_status(&mut object, old_value);
            }
            _ => {}
        }
        if matches!(target.view, View::Status | View::Subresource(_)) {
            def.rules.kept_metadata.restore(&mut object, old_value);
            KeptMetadata::OWNERS.restore(&mut object, old_value);
        }
        lifecycle::before_update(&mut object, old_value, target.namespace)?;
        match &target.view {
            View::Status => strategy.prepare_for_status_update(&mut object, old_value),
            View::Subresource(name) => {
                // Preserve the managed fields, which the strategy may drop.
                let entries = meta::field(&object, "managedFields").cloned();
                strategy.prepare_for_subresource_update(name, &mut object, old_value);
                match entries {
                    Some(entries) => meta::set(&mut object, "managedFields", entries),
                    None => drop(meta::remove(&mut object, "managedFields")),
                }
            }
            View::Object | View::Scale(_) => strategy.prepare_for_update(&mut object, old_value),
        }
        if target.view != View::Status {
            lifecycle::bump_generation(def, &mut object, old_value);
        }
        let reservation = target.allocate(&mut object, Some(old_value), self.options.dry_run()).await?;
        let mut errors = names::validate_object_meta_update(
            object.get("metadata").unwrap_or(&Value::Null),
            old_value.get("metadata").unwrap_or(&Value::Null),
            &FieldPath::new("metadata"),
        );
        errors.append(finalizer_errors(def, &object));
        errors.append(match &target.view {
            View::Status => strategy.validate_status_update(&object, old_value),
            View::Subresource(name) => strategy.validate_subresource_update(name, &object, old_value),
            View::Object | View::Scale(_) => strategy.validate_update(&object, old_value),
        });
        if target.view != View::Status {
            errors.append(pod::refused_privileged(def, &object));
        }
        if let Some(schema) = target.endpoint.version().custom() {
            errors.append(match &target.view {
                View::Status => schema.validate_status(&object, old_value),
                _ => schema.validate(&def.kind, &object, Some(old_value)),
            });
            let (violated, warnings) = schema.validate_rules(&object, Some(old_value), &errors);
            errors.append(violated);
            target.warn(warnings);
        }
        if !errors.is_empty() {
            return Err(target.invalid(target.name, &errors));
        }
        if matches!(target.view, View::Object | View::Scale(_)) {
            target.warn(strategy.warnings(&object, Some(old_value)));
        }
        strategy.canonicalize(&mut object);
        let object = self.validate(Operation::Update, object, Some(old)).await?;
        if lifecycle::is_deletable(def, &object) {
            return Ok(target.deletion(object, old_value));
        }
        Ok(Attempt { update: Update::Put(object), reservation })
    }

    /// Runs mutating admission.
    async fn mutate(
        &self,
        operation: Operation,
        object: Value,
        old: Option<&Object>,
    ) -> Result<Value, Status> {
        let mut object = Object::try_from(object).map_err(Status::internal)?;
        let name = object.name().to_owned();
        let attributes = self.attributes(operation, &name, old);
        let started = Instant::now();
        let admitted = self.target.admission.mutate(&attributes, Some(&mut object)).await;
        self.target.context.steps.record(StepKind::MutatingAdmission, started);
        admitted?;
        let mut object = object.into_value();
        self.remove_repeated_owners(&mut object, " after mutating admission happens");
        Ok(object)
    }

    /// Removes repeated owner references, with a warning; `when` is the stage in the warning.
    pub(super) fn remove_repeated_owners(&self, object: &mut Value, when: &str) {
        let repeated = lifecycle::remove_repeated_owners(object);
        if !repeated.is_empty() {
            let uids = repeated.join(", ");
            self.target.context.notes.warn(format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
            ));
        }
    }

    /// Runs validating admission.
    async fn validate(
        &self,
        operation: Operation,
        object: Value,
        old: Option<&Object>,
    ) -> Result<Value, Status> {
        let object = Object::try_from(object).map_err(Status::internal)?;
        // As upstream, a new object that admission has renamed is validated by its first name.
        let name = if self.requested_name.is_empty() { object.name() } else { &self.requested_name };
        let attributes = self.attributes(operation, name, old);
        let started = Instant::now();
        let admitted = self.target.admission.validate(&attributes, Some(&object)).await;
        self.target.context.steps.record(StepKind::ValidatingAdmission, started);
        admitted?;
        Ok(object.into_value())
    }
}

fn finalizer_errors(def: &ResourceDef, object: &Value) -> FieldErrors {
    if !def.requires_qualified_finalizers() {
        return FieldErrors::new();
    }
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    names::validate_qualified_finalizers(metadata, &FieldPath::new("metadata"))
}

fn prepared_for_create(def: &ResourceDef, mut object: Value, target: &Target<'_>) -> Result<Value, Status> {
    target.warn(def.strategy.warnings_before_create(&object));
    def.strategy.prepare_for_create(&mut object);
    // Set the requesting user here, because strategies do not have it.
    if def.group == "certificates.k8s.io" && def.resource == "certificatesigningrequests" {
        let mut request = Object::try_from(object).map_err(Status::internal)?;
        set_certificate_requester(&mut request, target.context.user());
        object = request.into_value();
    }
    Ok(object)
}

/// Resets the status, which can be written only through its subresource, to the type's empty status, or removes it.
fn drop_status(def: &ResourceDef, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let set = nave_schema::builtin();
    let type_id = def.storage.as_ref().and_then(|storage| storage.type_id);
    let status = type_id.and_then(|id| set.get(id).field("status")).filter(|status| status.always);
    if let Some(Shape::Struct(id)) = status.map(|status| &status.shape) {
        let mut empty = Value::Object(Map::new());
        // Normalizing an empty object cannot fail.
        let _ = normalize(set, *id, &mut empty, Mode::Ignore);
        fields.insert("status".to_owned(), empty);
    }
}

fn keep_status(object: &mut Value, old: &Value) {
    if let Some(fields) = object.as_object_mut() {
        match old.get("status") {
            Some(status) => fields.insert("status".to_owned(), status.clone()),
            None => fields.remove("status"),
        };
    }
}

/// Returns the old object with the status and metadata of the new one.
fn with_status_of(old: &Value, new: &Value) -> Value {
    let mut object = old.clone();
    if let Some(fields) = object.as_object_mut() {
        match new.get("status") {
            Some(status) => fields.insert("status".to_owned(), status.clone()),
            None => fields.remove("status"),
        };
        if let Some(metadata) = new.get("metadata") {
            fields.insert("metadata".to_owned(), metadata.clone());
        }
    }
    object
}

/// Checks that a new object has no resource version.
pub(super) fn check_has_no_version(object: &Value, dry_run: bool) -> Result<(), Status> {
    if dry_run || matches!(meta::resource_version(object), "" | "0") {
        return Ok(());
    }
    let text = "resourceVersion should not be set on objects to be created";
    Err(Status::failure(500, Reason::Unknown, text))
}
