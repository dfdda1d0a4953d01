//! Updates managed fields during a write. At this stage the decoded object has the request's version; conversion and
//! admission follow. As upstream, fields set by admission and the strategy have no owner.
//!
//! Managers may have applied other versions, so the comparison converts objects. It does not wait: if a conversion
//! needs a webhook, the comparison fails, the webhook is called, and the comparison is repeated.

use std::borrow::Cow;

use nave_admission::RequestOptions;
use nave_machinery::managed_fields;
use nave_machinery::{GroupVersion, Map, Object, Status, Value, meta, time};
use nave_patch::managed_fields::{
    ApplyError, FieldManager, FieldSet, PathElement, ScaleFields, TypeRef, Versions,
};
use nave_resources::{ResourceVersion, ScalePaths, SubresourceKind};
use nave_schema::TypeId;
use nave_schema::normalize::{Mode, normalize};
use parking_lot::Mutex;

use super::{Target, Write};
use crate::endpoints::Endpoint;
use crate::endpoints::view::View;

/// Updates the managed fields of the view that the request writes.
struct Tracker<'a> {
    target: &'a Target<'a>,
    reset: FieldSet,
    now: String,
    /// The conversions by webhooks so far.
    conversions: Mutex<Conversions>,
}

/// Conversions of a write by webhooks.
#[derive(Default)]
struct Conversions {
    done: Vec<Conversion>,
    /// The next conversion: an object and a version.
    wanted: Option<(Value, GroupVersion)>,
}

struct Conversion {
    object: Value,
    to: GroupVersion,
    outcome: Result<Value, String>,
}

/// Maximum number of conversions by webhooks in one write. Each version of a manager needs a few.
const MAX_CONVERSIONS: usize = 64;

impl Write<'_> {
    /// Converts a created or changed view to the object to store, with updated managed fields.
    pub(super) async fn to_storage(&self, stored: Option<&Value>, view: Value) -> Result<Value, Status> {
        let tracker = Tracker::new(self.target);
        let live = stored.map(|stored| tracker.live(stored)).transpose()?;
        let gvk = self.target.view.gvk(self.target.endpoint);
        let api_version = gvk.group_version().to_string();
        let manager = self.field_manager();
        let update = |mut view: Value| {
            tracker.update(live.as_deref(), &mut view, &api_version, &gvk.kind, &manager);
            view
        };
        let view = if self.target.endpoint.converter().is_some() {
            Box::pin(tracker.with_conversions(|| update(view.clone()))).await
        } else {
            update(view)
        };
        tracker.to_storage(stored, view)
    }

    /// Converts the result of an apply to the object to store.
    pub(super) fn applied_to_storage(&self, stored: Option<&Value>, view: Value) -> Result<Value, Status> {
        Tracker::new(self.target).to_storage(stored, view)
    }

    /// Updates the managed fields of a changed object in its storage version.
    pub(super) fn track_stored(&self, stored: &Value, object: &mut Value) {
        let (api_version, kind) = (meta::api_version(object).to_owned(), meta::kind(object).to_owned());
        let manager = self.field_manager();
        Tracker::new(self.target).update(Some(stored), object, &api_version, &kind, &manager);
    }

    /// Merges an applied configuration into the current view of the object.
    pub(super) async fn merge_applied(
        &self,
        stored: Option<&Value>,
        configuration: &Value,
        force: bool,
    ) -> Result<Value, Status> {
        let tracker = Tracker::new(self.target);
        let live = stored.map(|stored| tracker.live(stored)).transpose()?;
        let gvk = self.target.view.gvk(self.target.endpoint);
        let api_version = gvk.group_version().to_string();
        let empty = tracker.empty();
        let manager = tracker.manager(&api_version, &gvk.kind, &empty);
        let field_manager = self.field_manager();
        let apply = || manager.apply(live.as_deref(), configuration, &field_manager, force);
        Box::pin(tracker.with_conversions(apply)).await.map_err(ApplyError::into_status)
    }

    fn field_manager(&self) -> String {
        match self.options {
            RequestOptions::Write(options) if !options.field_manager.is_empty() => {
                options.field_manager.clone()
            }
            _ => self.target.context.default_field_manager(),
        }
    }
}

impl<'a> Tracker<'a> {
    fn new(target: &'a Target<'a>) -> Self {
        let (reset, now) = (reset_fields(target), time::now().rfc3339());
        Self { target, reset, now, conversions: Mutex::default() }
    }

    /// Repeats a comparison until it needs no more conversions by a webhook.
    async fn with_conversions<T>(&self, compare: impl Fn() -> T) -> T {
        loop {
            let outcome = compare();
            let Some((object, to)) = self.conversions.lock().wanted.take() else { return outcome };
            let converted = match self.target.endpoint.converter() {
                Some(converter) => converter.convert(vec![object.clone()], &to).await,
                None => Ok(Vec::new()),
            };
            let outcome = match converted {
                Ok(converted) => {
                    converted.into_iter().next().ok_or_else(|| "no object was converted".to_owned())
                }
                Err(error) => Err(error.to_string()),
            };
            self.conversions.lock().done.push(Conversion { object, to, outcome });
        }
    }

    fn manager<'s>(&'s self, api_version: &'s str, kind: &'s str, empty: &'s Value) -> FieldManager<'s> {
        let subresource = self.target.view.subresource();
        FieldManager { versions: self, api_version, kind, subresource, now: &self.now, empty }
    }

    fn update(&self, live: Option<&Value>, new: &mut Value, api_version: &str, kind: &str, manager: &str) {
        let empty = if live.is_none() { self.empty() } else { Value::Null };
        self.manager(api_version, kind, &empty).update(live, new, manager);
        // Drop managed fields that would make the object too large to be read.
        if managed_fields::check_limits(new).is_err() {
            meta::remove(new, "managedFields");
        }
    }

    /// Returns an empty object of the view's kind.
    fn empty(&self) -> Value {
        let mut empty = Value::Object(Map::new());
        if let Some(type_id) = self.target.view.type_id(self.target.endpoint) {
            // Normalizing an empty object cannot fail.
            let _ = normalize(nave_schema::builtin(), type_id, &mut empty, Mode::Ignore);
        }
        empty
    }

    /// Returns the view of a stored object, with its managed fields.
    fn live<'v>(&self, stored: &'v Value) -> Result<Cow<'v, Value>, Status> {
        let Target { view, endpoint, .. } = self.target;
        match view {
            View::Scale(paths) => {
                let mut scale = view.to_changed(endpoint, stored)?;
                let entries = self.scale_fields(paths, stored).scale_entries();
                // Ignore managed fields that cannot be read, as in any update.
                if let Ok(Some(entries)) = entries {
                    meta::set(&mut scale, "managedFields", entries);
                }
                Ok(Cow::Owned(scale))
            }
            // Custom objects are read in the request's version.
            _ if endpoint.is_storage_version() || endpoint.def.is_custom() => Ok(Cow::Borrowed(stored)),
            _ => Ok(Cow::Owned(view.to_served(endpoint, stored.clone())?)),
        }
    }

    fn to_storage(&self, stored: Option<&Value>, view: Value) -> Result<Value, Status> {
        let target = self.target;
        let (View::Scale(paths), Some(stored)) = (&target.view, stored) else {
            return target.view.to_storage(target.endpoint, stored.unwrap_or(&Value::Null), view);
        };
        let scale_entries = meta::field(&view, "managedFields").cloned();
        let entries = self.scale_fields(paths, stored).object_entries(scale_entries.as_ref());
        let mut object = target.view.to_storage(target.endpoint, stored, view)?;
        match entries {
            Ok(Some(entries)) => meta::set(&mut object, "managedFields", entries),
            _ => drop(meta::remove(&mut object, "managedFields")),
        }
        Ok(object)
    }

    fn scale_fields<'v>(&'v self, paths: &'v ScalePaths, stored: &'v Value) -> ScaleFields<'v> {
        let endpoint = self.target.endpoint;
        ScaleFields {
            entries: meta::field(stored, "managedFields"),
            api_version: endpoint.gvk().group_version().to_string(),
            replicas: Box::new(move |version| replicas_in(endpoint, paths, version)),
        }
    }
}

impl Versions for Tracker<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        type_in_version(self.target.endpoint, &self.target.view, api_version)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, String> {
        let version = |text: &str| GroupVersion::parse(text).unwrap_or_default();
        if self.target.endpoint.converter().is_some() && !matches!(self.target.view, View::Scale(_)) {
            return self.conversions.lock().find(object, version(api_version));
        }
        let mut converted = object.clone();
        let (from, to) = (version(meta::api_version(object)), version(api_version));
        let strategy = &self.target.endpoint.def.strategy;
        strategy.convert(&mut converted, &from, &to).map_err(|error| error.to_string())?;
        Ok(converted)
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        Some(&self.reset)
    }
}

/// Returns the type of a view's objects.
pub fn view_type<'e>(endpoint: &'e Endpoint, view: &View) -> Option<TypeRef<'e>> {
    type_in_version(endpoint, view, &view.gvk(endpoint).group_version().to_string())
}

fn type_in_version<'e>(endpoint: &'e Endpoint, view: &View, api_version: &str) -> Option<TypeRef<'e>> {
    match view {
        View::Scale(_) => (api_version == "autoscaling/v1").then(|| type_ref(view.type_id(endpoint))),
        _ => type_of(endpoint, api_version),
    }
}

impl Conversions {
    /// Returns the result of a conversion, or an error that leads to the conversion.
    fn find(&mut self, object: &Value, to: GroupVersion) -> Result<Value, String> {
        let is_same = |done: &&Conversion| done.to == to && done.object == *object;
        if let Some(done) = self.done.iter().find(is_same) {
            return done.outcome.clone();
        }
        if self.done.len() >= MAX_CONVERSIONS {
            return Err("the managed fields need too many conversions".to_owned());
        }
        self.wanted = Some((object.clone(), to));
        Err("the conversion is pending".to_owned())
    }
}

/// Returns the type of the resource in a served or stored version; `None` for an unknown version.
fn type_of<'e>(endpoint: &'e Endpoint, api_version: &str) -> Option<TypeRef<'e>> {
    let def = &endpoint.def;
    let version = GroupVersion::parse(api_version).filter(|version| version.group == def.group)?;
    if let Some(schema) = def.schema(&version.version) {
        return Some(schema.topology().map_or(TypeRef::Deduced, TypeRef::custom));
    }
    let served = def.versions.iter().chain(&def.unserved).find(|known| known.name == version.version);
    let stored = || def.storage.as_ref().filter(|storage| storage.version == version);
    let type_id = served.map(ResourceVersion::type_id).or_else(|| stored().map(|storage| storage.type_id));
    type_id.map(type_ref)
}

/// Returns the path of the replicas in a version: that of the request for built-in kinds, that of the version for custom
/// ones. The path is empty if the version has no scale; `None` for an unknown version.
fn replicas_in<'e>(endpoint: &'e Endpoint, paths: &'e ScalePaths, api_version: &str) -> Option<&'e [String]> {
    type_of(endpoint, api_version)?;
    if !endpoint.def.is_custom() {
        return Some(&paths.spec_replicas);
    }
    let version = GroupVersion::parse(api_version)?.version;
    let served = endpoint.def.versions.iter().find(|served| served.name == version);
    let scale = served.and_then(|served| served.subresource("scale")).map(|scale| &scale.kind);
    Some(match scale {
        Some(SubresourceKind::Scale(paths)) => &paths.spec_replicas,
        _ => &[],
    })
}

/// Returns the type with this id, or the untyped reference if the id is `None`.
pub fn type_ref(type_id: Option<TypeId>) -> TypeRef<'static> {
    type_id.map_or(TypeRef::Deduced, |id| TypeRef::Struct(nave_schema::builtin(), id))
}

/// Returns the fields that a write to the view cannot change and that therefore get no owner (upstream: each strategy's
/// `GetResetFields`).
fn reset_fields(target: &Target<'_>) -> FieldSet {
    let def = &target.endpoint.def;
    let field = PathElement::field;
    let mut reset = FieldSet::default();
    let is_request = def.group == "certificates.k8s.io" && def.resource == "certificatesigningrequests";
    match &target.view {
        View::Object if is_request => {
            reset.insert(&[field("spec")]);
            reset.insert(&[field("status")]);
        }
        View::Object if target.endpoint.version().has_status() => reset.insert(&[field("status")]),
        View::Status => {
            reset.insert(&[field("spec")]);
            match def.rules.kept_metadata.fields() {
                None => reset.insert(&[field("metadata")]),
                Some(names) => names.iter().for_each(|name| reset.insert(&[field("metadata"), field(name)])),
            }
            if is_request {
                reset.insert(&[field("status"), field("conditions")]);
            }
        }
        View::Subresource(name) if name == "approval" => {
            reset.insert(&[field("spec")]);
            reset.insert(&[field("status"), field("certificate")]);
        }
        View::Subresource(name) if name == "finalize" => reset.insert(&[field("status")]),
        View::Object | View::Subresource(_) | View::Scale(_) => {}
    }
    reset
}

/// Restores the old timestamps of managed fields if the object is otherwise unchanged, so that the write is a no-op.
pub(super) fn keep_times_of_unchanged(object: &mut Value, old: &Object) {
    let old = old.as_value();
    let (Some(new_entries), Some(old_entries)) = (entries(object), entries(old)) else { return };
    let metadata = |object| Value::as_object(object)?.get("metadata")?.as_object();
    // Entries are compared last: those with text must be parsed.
    let is_same = new_entries != old_entries
        && new_entries.len() == old_entries.len()
        && is_same_but(object.as_object(), old.as_object(), &["metadata"])
        && is_same_but(metadata(object), metadata(old), &["managedFields", "resourceVersion"])
        && new_entries
            .iter()
            .zip(old_entries)
            .all(|(new, old)| managed_fields::is_same_entry(new, old, &["time"]));
    if is_same {
        meta::set(object, "managedFields", Value::Array(old_entries.clone()));
    }
}

fn entries(object: &Value) -> Option<&Vec<Value>> {
    meta::field(object, "managedFields")?.as_array()
}

/// Returns whether two maps are equal except for the ignored fields.
fn is_same_but(new: Option<&Map>, old: Option<&Map>, ignored: &[&str]) -> bool {
    let is_compared = |(name, _): &(&String, &Value)| !ignored.contains(&name.as_str());
    let new = new.into_iter().flatten().filter(is_compared);
    new.eq(old.into_iter().flatten().filter(is_compared))
}
