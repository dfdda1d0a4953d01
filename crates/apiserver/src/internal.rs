//! Writes by the server itself, as the user `system:apiserver`. They take the same path as all other writes.

use nave_admission::Chain;
use nave_machinery::options::{CreateOptions, DeleteOptions, FieldValidation, UpdateOptions};
use nave_machinery::{Object, Status, Value, meta};

use crate::context::{RequestContext, server_user};
use crate::endpoints::view::View;
use crate::endpoints::write::{self, Apply, Change, Target, Write};
use crate::endpoints::{Endpoint, decode};

/// Writes objects of one resource.
pub(crate) struct InternalWriter<'a> {
    endpoint: &'a Endpoint,
    admission: &'a Chain,
    context: RequestContext,
}

impl<'a> InternalWriter<'a> {
    /// Creates a writer for the objects of the endpoint, in the endpoint's version.
    pub(crate) fn new(endpoint: &'a Endpoint, admission: &'a Chain) -> Self {
        Self { endpoint, admission, context: RequestContext::internal(server_user()) }
    }

    /// Writes as this field manager.
    pub(crate) fn with_field_manager(self, manager: &'static str) -> Self {
        Self { context: self.context.with_field_manager(manager), ..self }
    }

    /// Creates an object and returns the stored object.
    ///
    /// # Errors
    /// 409 if the name is taken, or the error that rejects the object.
    pub(crate) async fn create(&self, namespace: &str, object: Value) -> Result<Value, Status> {
        let target = self.target(View::Object, namespace, "");
        let body = decode::Body { object, ..decode::Body::default() };
        let object = target.typed(body, FieldValidation::Ignore)?;
        Ok(write::create_object(&target, object, &CreateOptions::default()).await?.into_object())
    }

    /// Updates an object, through a view, to the state that a function returns for the stored object. Returns the
    /// stored object. After a conflict, calls the function again with the newer state.
    ///
    /// # Errors
    /// 404 if the object does not exist, or the error that rejects the change.
    pub(crate) async fn update(
        &self,
        view: View,
        (namespace, name): (&str, &str),
        options: &UpdateOptions,
        change: &(dyn Fn(&Object) -> Result<Value, Status> + Sync),
    ) -> Result<Value, Status> {
        let target = self.target(view, namespace, name);
        let written = Write::new(&target, Change::Compute(change), options).run(name).await?;
        Ok(written.into_object())
    }

    /// Replaces the status of an object if its resourceVersion is unchanged. Returns the stored object.
    ///
    /// # Errors
    /// 409 if the object has changed, or the error that rejects the status.
    pub(crate) async fn replace_status(&self, object: Value) -> Result<Value, Status> {
        let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let target = self.target(View::Status, &namespace, &name);
        let version = write::parse_resource_version(&object)?;
        let change = Change::Replace { object, version, create: None };
        let options = UpdateOptions::default();
        Ok(Write::new(&target, change, &options).run(&name).await?.into_object())
    }

    /// Applies a status, and takes ownership of conflicting fields.
    ///
    /// # Errors
    /// 404 if the object does not exist, or the error that rejects the status.
    pub(crate) async fn apply_status(&self, configuration: Value) -> Result<(), Status> {
        let (namespace, name) =
            (meta::namespace(&configuration).to_owned(), meta::name(&configuration).to_owned());
        let target = self.target(View::Status, &namespace, &name);
        let change = Change::Apply(Box::new(Apply::internal(configuration)));
        Write::new(&target, change, &UpdateOptions::default()).run(&name).await.map(drop)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// 404 if the object does not exist, 409 if a precondition fails.
    pub(crate) async fn delete(
        &self,
        (namespace, name): (&str, &str),
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let target = self.target(View::Object, namespace, name);
        Write::delete(&target, options).run(name).await.map(drop)
    }

    fn target<'t>(&'t self, view: View, namespace: &'t str, name: &'t str) -> Target<'t> {
        let Self { endpoint, admission, context } = self;
        Target { context, endpoint, view, namespace, name, admission }
    }
}
