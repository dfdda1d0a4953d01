//! Field selectors on custom objects that a webhook converts.
//!
//! Each version of such a resource has selectable fields of its own, and the watch cache has the fields of the stored
//! version. A list or watch therefore selects objects after their conversion to the version of the request.

use std::sync::Arc;

use futures_util::future::join_all;
use nave_cacher::{CachedObject, Delivery, FieldRef, FieldTerm};
use nave_machinery::Status;

use super::frames::CONVERSIONS;
use super::versions::{self, ServedRef};
use super::{Endpoint, encode};

/// Requirements on selectable fields of converted objects. The default selects all objects.
#[derive(Default)]
pub(super) struct ServedSelector {
    terms: Vec<FieldTerm>,
}

impl ServedSelector {
    pub(super) fn new(terms: Vec<FieldTerm>) -> Self {
        Self { terms }
    }

    /// Returns whether all objects are selected, so that no object has to be converted for the selection.
    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns whether an object in the version of the endpoint is selected.
    ///
    /// # Errors
    /// 500 if the converted object cannot be read.
    pub(super) fn matches(&self, endpoint: &Endpoint, object: ServedRef<'_>) -> Result<bool, Status> {
        let Some(json) = object.converted else {
            // The object is stored in the version of the endpoint.
            return Ok(self.terms.iter().all(|term| term.matches(term.field.value_in(object.cached))));
        };
        let converted = encode::parse(json)?;
        Ok(self.terms.iter().all(|term| match term.field {
            FieldRef::Declared(index) => {
                endpoint.def.fields.get(index).is_some_and(|field| term.matches(&field.value(&converted)))
            }
            field => term.matches(field.value_in(object.cached)),
        }))
    }

    /// Returns the events of a watch that selects by the terms too. If an object cannot be converted, returns the
    /// events before it and the error.
    pub(super) async fn narrow(
        &self,
        endpoint: &Endpoint,
        deliveries: &[Delivery],
    ) -> (Vec<Delivery>, Option<Status>) {
        let initial = deliveries.iter().take_while(|delivery| delivery.is_initial()).count();
        let (initial, events) = deliveries.split_at(initial);
        let mut narrowed = match self.narrow_initial(endpoint, initial).await {
            Ok(narrowed) => narrowed,
            Err(status) => return (Vec::new(), Some(status)),
        };
        for events in events.chunks(CONVERSIONS) {
            for event in join_all(events.iter().map(|event| self.narrow_event(endpoint, event))).await {
                match event {
                    Ok(event) => narrowed.extend(event),
                    Err(status) => return (narrowed, Some(status)),
                }
            }
        }
        (narrowed, None)
    }

    async fn narrow_initial(
        &self,
        endpoint: &Endpoint,
        initial: &[Delivery],
    ) -> Result<Vec<Delivery>, Status> {
        let page = versions::read_page(endpoint, initial.iter().map(Delivery::object).collect()).await?;
        let mut narrowed = Vec::new();
        for (delivery, object) in initial.iter().zip(&page) {
            if self.matches(endpoint, object.as_served())? {
                narrowed.push(delivery.clone());
            }
        }
        Ok(narrowed)
    }

    async fn narrow_event(&self, endpoint: &Endpoint, event: &Delivery) -> Result<Option<Delivery>, Status> {
        let (old, new) = event.states();
        Ok(event.narrowed(self.selects(endpoint, old).await?, self.selects(endpoint, new).await?))
    }

    async fn selects(&self, endpoint: &Endpoint, state: Option<&Arc<CachedObject>>) -> Result<bool, Status> {
        let Some(cached) = state else { return Ok(false) };
        let converted = versions::event_json(endpoint, cached).await?;
        self.matches(endpoint, ServedRef { cached, converted: converted.as_ref() })
    }
}

/// Minimum number of objects that are converted at a time to fill a page.
pub(super) const CHUNK: usize = 500;
