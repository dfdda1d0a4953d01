//! To be written.

use std::sync::Arc;

use http::HeaderMap;
use nave_machinery::Status;
use nave_resources::Registry;

use crate::endpoints::answer::Answer;
use crate::request_info::RequestInfo;

/// The OpenAPI documents.
pub struct OpenApi;

impl OpenApi {
    /// The documents of a registry.
    pub fn new(_registry: Arc<Registry>) -> Self {
        Self
    }

    /// Answers `/openapi/…`.
    ///
    /// # Errors
    /// None.
    pub fn answer(&self, _path: &[&str], _info: &RequestInfo, _headers: &HeaderMap) -> Result<Answer, Status> {
        Ok(Answer::page_not_found())
    }
}
