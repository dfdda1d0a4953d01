//! create, update and patch: the road of a write, from a decoded body to the committed object.
//!
//! | stage | create | update, patch |
//! | --- | --- | --- |
//! | decode or patch, strictness, defaults | [`create`] | [`update`], [`patch`] |
//! | convert to the storage version | [`prepare_new`] | [`prepare_changed`] |
//! | metadata, strategy `prepare_for_*` | [`prepare_new`] | [`prepare_changed`] |
//! | admission | [`Admission`] | [`Admission`] |
//! | validation | [`prepare_new`] | [`prepare_changed`] |
//! | compare and swap | `ResourceStorage::create` | `ResourceStorage::guaranteed_update` |

use bytes::Bytes;
use nave_codec::negotiate::{ContentType, Format, PatchType};
use nave_machinery::limits::{self, LimitError};
use nave_machinery::options::{CreateOptions, FieldValidation, PatchOptions, UpdateOptions};
use nave_machinery::time::{self, Timestamp};
use nave_machinery::user::UserInfo;
use nave_machinery::{FieldError, FieldPath, Reason, Status, Value, meta, names};
use nave_patch::{PatchError, json_patch, merge, strategic};
use nave_resources::{KeptMetadata, ResourceDef, storage_key};
use nave_schema::Shape;
use nave_schema::normalize::{Mode, normalize};

use super::answer::Answer;
use super::view::View;
use super::{Endpoint, decode};
use crate::admission::{Admission, Attributes, Operation};
use crate::lifecycle;
use crate::storage::{Attempt, Reservation, ResourceStorage, Stored, Update, Updated};

/// The encodings patches are taken in.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// How many names are generated at most for an object that asks for one, as upstream does.
const MAX_GENERATED_NAMES: usize = 8;

/// What a write is about.
pub struct Target<'a> {
    /// The resource.
    pub endpoint: &'a Endpoint,
    /// What of the object is written.
    pub view: View,
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty for a create.
    pub name: &'a str,
    /// Who asks for the write.
    pub user: &'a UserInfo,
    /// The stage between preparation and validation.
    pub admission: &'a Admission,
}

/// A request body and what it is.
pub struct Payload {
    /// The bytes.
    pub bytes: Bytes,
    /// What they are; `None` if that is none of what the API takes.
    pub content_type: Option<ContentType>,
}

impl Payload {
    /// An object in one of the formats; a body without a content type is JSON.
    ///
    /// # Errors
    /// 415 for anything else.
    pub fn format(&self) -> Result<Format, Status> {
        match self.content_type {
            Some(ContentType::Object(format)) => Ok(format),
            _ => Err(Status::unsupported_media_type(&decode::BODY_TYPES)),
        }
    }
}

/// Creates an object.
///
/// # Errors
/// What is wrong with the object, or 409 where the name is taken.
pub async fn create(
    target: &Target<'_>,
    payload: &Payload,
    options: &CreateOptions,
) -> Result<Answer, Status> {
    let (object, warnings) = target.decode(payload, options.field_validation)?;
    let object = create_object(target, object, options.dry_run).await?;
    let warnings = [warnings, target.endpoint.def.strategy.warnings(&object, None)].concat();
    Ok(Answer::object(target.endpoint, 201, target.view.present(target.endpoint, object)?)
        .with_warnings(warnings))
}

/// Creates an object that has been decoded and defaulted; the answer is the stored object. Where a generated name is
/// taken, another one is tried.
///
/// # Errors
/// Those of [`create`].
pub async fn create_object(target: &Target<'_>, object: Value, dry_run: bool) -> Result<Value, Status> {
    target.admission.prepare_for_create(&target.endpoint.def, target.namespace, &object).await?;
    if meta::generate_name(&object).is_empty() {
        return create_once(target, object, dry_run).await;
    }
    let is_generated = meta::name(&object).is_empty();
    for _ in 1..MAX_GENERATED_NAMES {
        match create_once(target, object.clone(), dry_run).await {
            Err(status) if is_generated && status.reason == Some(Reason::AlreadyExists) => {}
            outcome => return outcome.map_err(generated_name_is_taken),
        }
    }
    create_once(target, object, dry_run).await.map_err(generated_name_is_taken)
}

async fn create_once(target: &Target<'_>, object: Value, dry_run: bool) -> Result<Value, Status> {
    let storage = target.storage()?;
    let (mut object, reservation) = prepare_new(target, object, time::now())?;
    let name = meta::name(&object).to_owned();
    let key = target.key(&name)?;
    if dry_run {
        storage.check_absent(&key, &name).await?;
    } else {
        storage.create(&key, &name, &mut object, reservation).await?;
    }
    Ok(object)
}

/// The error where a name that the server generated is taken.
fn generated_name_is_taken(mut status: Status) -> Status {
    if status.reason == Some(Reason::AlreadyExists) {
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status.details.get_or_insert_default().retry_after_seconds = 1;
    }
    status
}

/// Replaces an object, or creates it where its resource allows that and `may_create` does: the right to update is none
/// to create.
///
/// # Errors
/// What is wrong with the object, 404, 403 where it would have to be created, or 409 where another writer was faster.
pub async fn update(
    target: &Target<'_>,
    payload: &Payload,
    options: &UpdateOptions,
    may_create: impl AsyncFnOnce() -> Result<(), Status>,
) -> Result<Answer, Status> {
    let (object, warnings) = target.decode(payload, options.field_validation)?;
    target.check_name(&object)?;
    let version = parse_resource_version(&object)?;
    let storage = target.storage()?;
    let key = target.key(target.name)?;
    let change = |current: &Stored| -> Result<Attempt, Status> {
        if let Some(version) = version
            && version != current.revision
        {
            return Err(target.modified());
        }
        if version.is_none() && !target.endpoint.def.rules.unconditional_update {
            let at = FieldPath::new("metadata").child("resourceVersion");
            return Err(target.invalid(&[FieldError::invalid(&at, 0, "must be specified for an update")]));
        }
        target.check_uid(&object, &current.object, &key)?;
        let changed = target.view.absorb(target.endpoint, &current.object, object.clone())?;
        prepare_changed(target, changed, &current.object)
    };
    match target.commit(storage, &key, options.dry_run, change).await {
        Ok(updated) => target.answer(updated, warnings),
        Err(status)
            if status.code == 404
                && target.endpoint.def.rules.create_on_update
                && target.view == View::Object =>
        {
            may_create().await?;
            let options = CreateOptions { dry_run: options.dry_run, ..CreateOptions::default() };
            create(target, payload, &options).await
        }
        Err(status) => Err(status),
    }
}

/// Patches an object.
///
/// # Errors
/// What is wrong with the patch or its outcome, 404, 409, or 501 for server-side apply.
pub async fn patch(target: &Target<'_>, payload: &Payload, options: &PatchOptions) -> Result<Answer, Status> {
    let patch = Patch::parse(target, payload)?;
    let storage = target.storage()?;
    let key = target.key(target.name)?;
    let mut warnings = Vec::new();
    let change = |current: &Stored| -> Result<Attempt, Status> {
        let mut view = target.view.present(target.endpoint, current.object.clone())?;
        patch.apply(target, &mut view)?;
        let body = decode::Body { object: view, lax: patch.duplicates.clone() };
        let (object, found) = target.typed(body, options.field_validation)?;
        warnings = found;
        target.check_name(&object)?;
        if parse_resource_version(&object)?.is_some_and(|version| version != current.revision) {
            return Err(target.modified());
        }
        let changed = target.view.absorb(target.endpoint, &current.object, object)?;
        prepare_changed(target, changed, &current.object)
    };
    let updated = target.commit(storage, &key, options.dry_run, change).await?;
    target.answer(updated, warnings)
}

/// From a decoded object to one that can be stored: conversion, metadata, strategy, admission, allocation, validation.
fn prepare_new(
    target: &Target<'_>,
    object: Value,
    now: Timestamp,
) -> Result<(Value, Option<Box<dyn Reservation>>), Status> {
    let def = &target.endpoint.def;
    if !meta::resource_version(&object).is_empty() && meta::resource_version(&object) != "0" {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, Reason::Unknown, text));
    }
    let mut object = target.view.absorb(target.endpoint, &Value::Null, object)?;
    lifecycle::before_create(def, &mut object, target.namespace, now)?;
    if def.has_status() {
        drop_status(def, &mut object);
    }
    def.strategy.prepare_for_create(&mut object);
    target.admit(Operation::Create, &mut object)?;
    let reservation = target.allocate(&mut object, None)?;
    let mut errors = names::validate_object_meta(
        object.get("metadata").unwrap_or(&Value::Null),
        def.namespaced,
        |name| def.name_rule.check(name),
        &FieldPath::new("metadata"),
    );
    errors.extend(def.strategy.validate(&object));
    if !errors.is_empty() {
        return Err(target.invalid_named(meta::name(&object), &errors));
    }
    def.strategy.canonicalize(&mut object);
    Ok((object, reservation))
}

/// From a changed object to what is done to the stored one: metadata, strategy, admission, allocation, validation.
fn prepare_changed(target: &Target<'_>, mut object: Value, old: &Value) -> Result<Attempt, Status> {
    let def = &target.endpoint.def;
    let strategy = &def.strategy;
    match &target.view {
        View::Status => object = with_status_of(old, &object),
        View::Object | View::Scale(_) if def.has_status() => keep_status(&mut object, old),
        _ => {}
    }
    let through_subresource = matches!(target.view, View::Status | View::Part(_));
    if through_subresource {
        def.rules.kept_metadata.restore(&mut object, old);
    }
    lifecycle::before_update(&mut object, old, target.namespace)?;
    match &target.view {
        View::Status => strategy.prepare_for_status_update(&mut object, old),
        View::Part(part) => strategy.prepare_for_part_update(part, &mut object, old),
        View::Object | View::Scale(_) => strategy.prepare_for_update(&mut object, old),
    }
    if target.view != View::Status {
        lifecycle::bump_generation(def, &mut object, old);
    }
    target.admit(Operation::Update(old), &mut object)?;
    if through_subresource {
        // After admission, so that a plugin can refuse the attempt.
        KeptMetadata::OWNERS.restore(&mut object, old);
    }
    let reservation = target.allocate(&mut object, Some(old))?;
    let (new_meta, old_meta) =
        (object.get("metadata").unwrap_or(&Value::Null), old.get("metadata").unwrap_or(&Value::Null));
    let mut errors = names::validate_object_meta_update(new_meta, old_meta, &FieldPath::new("metadata"));
    errors.extend(match &target.view {
        View::Status => strategy.validate_status_update(&object, old),
        View::Part(part) => strategy.validate_part_update(part, &object, old),
        View::Object | View::Scale(_) => strategy.validate_update(&object, old),
    });
    if !errors.is_empty() {
        return Err(target.invalid(&errors));
    }
    strategy.canonicalize(&mut object);
    if lifecycle::is_deletable(def, &object) {
        return Ok(target.deletion(&target.key(target.name)?, object));
    }
    Ok(Attempt { update: Update::Put(object), reservation })
}

impl Target<'_> {
    /// Where the objects are.
    ///
    /// # Errors
    /// 501 for a virtual resource.
    pub fn storage(&self) -> Result<&ResourceStorage, Status> {
        let virtual_resource = || Status::not_implemented(self.endpoint.resource());
        self.endpoint.storage.as_deref().ok_or_else(virtual_resource)
    }

    fn key(&self, name: &str) -> Result<String, Status> {
        let namespace = self.endpoint.def.namespaced.then_some(self.namespace);
        storage_key(&self.endpoint.def, namespace, name)
            .map_err(|error| Status::bad_request(error.to_string()))
    }

    fn decode(&self, payload: &Payload, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        let expected = self.view.gvk(self.endpoint).kind;
        self.typed(decode::parse(&payload.bytes, payload.format()?, &expected)?, validation)
    }

    /// A body as a defaulted object of the view's kind, and warnings for the client.
    ///
    /// # Errors
    /// 400 where the body is no object of the kind, or not one that the strictness allows.
    pub fn typed(
        &self,
        body: decode::Body,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Status> {
        let type_id = self.view.type_id(self.endpoint);
        let (mut object, warnings) = decode::typed(body, &self.view.gvk(self.endpoint), type_id, validation)?;
        decode::set_defaults(&mut object, type_id)?;
        if !matches!(self.view, View::Scale(_)) {
            self.endpoint.def.strategy.default(&mut object, &self.endpoint.version().name);
        }
        limits::check(&object).map_err(LimitError::into_status)?;
        Ok((object, warnings))
    }

    fn admit(&self, operation: Operation<'_>, object: &mut Value) -> Result<(), Status> {
        let name = meta::name(object).to_owned();
        let attributes = Attributes {
            def: &self.endpoint.def,
            subresource: self.view.subresource(),
            namespace: self.namespace,
            name: &name,
            operation,
            user: self.user,
        };
        self.admission.admit(&attributes, Some(object))
    }

    /// Reserves the addresses and ports that the object needs.
    fn allocate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        let Some(allocator) = &self.endpoint.allocator else { return Ok(None) };
        let key = self.key(meta::name(object))?;
        Ok(Some(Box::new(allocator.begin(&key, object, old)?)))
    }

    /// The deletion of the object at `key`, which frees what the object had.
    pub(super) fn deletion(&self, key: &str, object: Value) -> Attempt {
        let reservation = self
            .endpoint
            .allocator
            .as_ref()
            .map(|allocator| -> Box<dyn Reservation> { Box::new(allocator.begin_deletion(key)) });
        Attempt { update: Update::Delete(object), reservation }
    }

    fn check_name(&self, object: &Value) -> Result<(), Status> {
        let name = meta::name(object);
        if name == self.name {
            return Ok(());
        }
        if name.is_empty() {
            return Err(Status::bad_request("name must be provided"));
        }
        let text =
            format!("the name of the object ({name}) does not match the name on the URL ({})", self.name);
        Err(Status::bad_request(text))
    }

    /// An update that names a uid is meant for that object and no other of the same name.
    fn check_uid(&self, object: &Value, old: &Value, key: &str) -> Result<(), Status> {
        let (wanted, found) = (meta::uid(object), meta::uid(old));
        if wanted.is_empty() || wanted == found || matches!(self.view, View::Scale(_)) {
            return Ok(());
        }
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Err(Status::conflict(&self.endpoint.resource(), self.name, &why))
    }

    fn modified(&self) -> Status {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(&self.endpoint.resource(), self.name, why)
    }

    fn invalid(&self, errors: &[FieldError]) -> Status {
        self.invalid_named(self.name, errors)
    }

    fn invalid_named(&self, name: &str, errors: &[FieldError]) -> Status {
        let gvk = self.view.gvk(self.endpoint);
        Status::invalid(&gvk.group_kind(), name, errors)
    }

    async fn commit<F>(
        &self,
        storage: &ResourceStorage,
        key: &str,
        dry_run: bool,
        mut change: F,
    ) -> Result<Updated, Status>
    where
        F: FnMut(&Stored) -> Result<Attempt, Status>,
    {
        let attempt = |current: &Stored| {
            let attempt = change(current)?;
            // A dry run stops before the write: what would have been written is the answer.
            Ok(if dry_run { attempt.dry() } else { attempt })
        };
        storage.guaranteed_update(key, self.name, attempt).await
    }

    fn answer(&self, updated: Updated, warnings: Vec<String>) -> Result<Answer, Status> {
        let object = updated.stored.object;
        Ok(Answer::object(self.endpoint, 200, self.view.present(self.endpoint, object)?)
            .with_warnings(warnings))
    }
}

/// A patch, parsed once and applied to each state the update meets.
struct Patch {
    kind: PatchType,
    body: Value,
    duplicates: Vec<String>,
}

impl Patch {
    fn parse(target: &Target<'_>, payload: &Payload) -> Result<Self, Status> {
        let unsupported = || Status::unsupported_media_type(&PATCH_TYPES);
        let Some(ContentType::Patch(kind)) = payload.content_type else { return Err(unsupported()) };
        match kind {
            PatchType::Apply => return Err(Status::not_implemented("server-side apply")),
            // A kind without a built-in type has no merge keys.
            PatchType::Strategic if target.view.type_id(target.endpoint).is_none() => {
                return Err(unsupported());
            }
            _ => {}
        }
        let decoded =
            nave_codec::json::decode(&payload.bytes).map_err(nave_codec::json::JsonError::into_status)?;
        let fits = if kind == PatchType::Json { decoded.value.is_array() } else { decoded.value.is_object() };
        if !fits {
            return Err(Status::bad_request(format!(
                "the body is not a patch of type {}",
                kind.media_type()
            )));
        }
        Ok(Self { kind, body: decoded.value, duplicates: decoded.duplicates })
    }

    fn apply(&self, target: &Target<'_>, view: &mut Value) -> Result<(), Status> {
        let outcome = match self.kind {
            PatchType::Json => json_patch::apply(view, &self.body),
            PatchType::Merge | PatchType::Apply => merge::apply(view, &self.body),
            PatchType::Strategic => match target.view.type_id(target.endpoint) {
                Some(type_id) => strategic::apply(nave_schema::builtin(), type_id, view, &self.body),
                None => return Err(Status::unsupported_media_type(&PATCH_TYPES)),
            },
        };
        outcome.map_err(PatchError::into_status)
    }
}

/// The revision an update is meant for; `None` for whatever is there.
fn parse_resource_version(object: &Value) -> Result<Option<u64>, Status> {
    match meta::resource_version(object) {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let text = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            Status::failure(500, Reason::Unknown, text)
        }),
    }
}

/// Empties the status, which only its subresource writes: an empty one of the type, or none where the object has none.
fn drop_status(def: &ResourceDef, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let set = nave_schema::builtin();
    let type_id = def.storage.as_ref().and_then(|storage| storage.type_id);
    let status = type_id.and_then(|id| set.get(id).field("status")).filter(|status| status.always);
    if let Some(Shape::Struct(id)) = status.map(|status| &status.shape) {
        let mut empty = Value::Object(nave_machinery::Map::new());
        // An empty object has nothing that could be of a wrong type.
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

/// The old object with the new one's status and metadata.
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
