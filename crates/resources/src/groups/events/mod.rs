//! Events. One kind is served in the core group and in `events.k8s.io`, and stored in the core form.

mod convert;
mod validation;

use nave_machinery::{GroupVersion, Value};
use serde_json::json;

use crate::builder::{Builder, GroupBuilder, group as declare, resource};
use crate::convert::ConversionError;
use crate::def::NameRule;
use crate::groups::core::EVENT_TTL;
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, field, moment, name, since, text};
use crate::validate::Errors;
use nave_machinery::time::Timestamp;

pub(crate) fn group() -> GroupBuilder {
    let event = resource("Event", "events")
        .short(&["ev"])
        .named(NameRule::With(any_name))
        .stored_as("", "v1", "io.k8s.api.core")
        .create_on_update()
        .without_dependents()
        .ttl(EVENT_TTL)
        .columns(columns())
        .strategy(EventStrategy);
    declare("events.k8s.io", "io.k8s.api.events", vec![regarding_fields(event)])
}

/// The strategy of events of the core group.
pub(crate) struct CoreEventStrategy;

impl Strategy for CoreEventStrategy {
    fn validate(&self, event: &Value) -> Errors {
        validation::event(event, "reportingComponent")
    }
}

/// The strategy of events of `events.k8s.io`.
struct EventStrategy;

impl Strategy for EventStrategy {
    fn convert(
        &self,
        object: &mut Value,
        _from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        let object = object.as_object_mut().ok_or(ConversionError::NotAnObject)?;
        if to.group.is_empty() {
            convert::to_core(object);
        } else {
            convert::to_events(object);
        }
        Ok(())
    }

    fn validate(&self, event: &Value) -> Errors {
        let mut errors = validation::event(event, "reportingController");
        validation::strict(event, &mut errors);
        errors
    }

    fn validate_update(&self, event: &Value, old: &Value) -> Errors {
        let mut errors = validation::event(event, "reportingController");
        validation::strict_update(event, old, &mut errors);
        errors
    }
}

/// Accepts any path segment as the name of an event; other rules apply only to the involved object.
pub(crate) fn any_name(name: &str) -> Vec<String> {
    NameRule::PathSegment.check(name)
}

/// The selectable fields of the core group.
pub(crate) fn core_fields(event: Builder) -> Builder {
    event
        .field("involvedObject.kind")
        .field("involvedObject.namespace")
        .field("involvedObject.name")
        .field("involvedObject.uid")
        .field("involvedObject.apiVersion")
        .field("involvedObject.resourceVersion")
        .field("involvedObject.fieldPath")
        .field("reason")
        .field("reportingComponent")
        .field_first("source", &["source.component", "reportingComponent"])
        .field("type")
}

/// The same fields under the names of `events.k8s.io`, with paths of the stored form.
fn regarding_fields(event: Builder) -> Builder {
    event
        .field_at("regarding.kind", "involvedObject.kind", "")
        .field_at("regarding.namespace", "involvedObject.namespace", "")
        .field_at("regarding.name", "involvedObject.name", "")
        .field_at("regarding.uid", "involvedObject.uid", "")
        .field_at("regarding.apiVersion", "involvedObject.apiVersion", "")
        .field_at("regarding.resourceVersion", "involvedObject.resourceVersion", "")
        .field_at("regarding.fieldPath", "involvedObject.fieldPath", "")
        .field("reason")
        .field_at("reportingController", "reportingComponent", "")
        .field("type")
}

pub(crate) fn columns() -> Vec<Column> {
    let event = "core.v1.Event";
    vec![
        Column::new("Last Seen", |event, now| json!(last_seen(event, now)))
            .described_by(event, "lastTimestamp"),
        field("Type", "type", "").described_by(event, "type"),
        field("Reason", "reason", "").described_by(event, "reason"),
        text("Object", object).described_by(event, "involvedObject"),
        field("Subobject", "involvedObject.fieldPath", "")
            .wide()
            .described_by("core.v1.ObjectReference", "fieldPath"),
        text("Source", source).wide().described_by(event, "source"),
        text("Message", |event| read::text(event, "message").trim().to_owned())
            .described_by(event, "message"),
        Column::new("First Seen", |event, now| json!(first_seen(event, now)))
            .wide()
            .described_by(event, "firstTimestamp"),
        Column::new("Count", |event, _| json!(count(event))).wide().described_by(event, "count"),
        name().wide(),
    ]
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    let first = if moment(event, "firstTimestamp").is_some() { "firstTimestamp" } else { "eventTime" };
    since(event, first, now)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    if read::map(event, "series").is_some() {
        since(event, "series.lastObservedTime", now)
    } else if moment(event, "lastTimestamp").is_some() {
        since(event, "lastTimestamp", now)
    } else {
        first_seen(event, now)
    }
}

/// Returns the number of occurrences; 1 for an event without a count.
fn count(event: &Value) -> i64 {
    match read::map(event, "series") {
        Some(_) => read::int(event, "series.count"),
        None => read::int(event, "count").max(1),
    }
}

fn object(event: &Value) -> String {
    let kind = read::text(event, "involvedObject.kind").to_lowercase();
    match read::text(event, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let component = read::text_or(event, "source.component", read::text(event, "reportingComponent"));
    match read::text_or(event, "source.host", read::text(event, "reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
