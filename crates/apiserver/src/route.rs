//! The routing stage: selects and runs the handler of a request.
//!
//! | path | handler |
//! | --- | --- |
//! | `/apis/GROUP/VERSION…` of an aggregated server | [`Aggregator`] |
//! | a resource that only a peer serves | [`Peers`] |
//! | `/api/VERSION/…`, `/apis/GROUP/VERSION/…` with a resource | [`Resources`] |
//! | all others | [`Documents`]: discovery, OpenAPI, version, health, metrics |

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use nave_machinery::Status;

use crate::aggregator::Aggregator;
use crate::body::{BodyError, ResponseBody};
use crate::catalog::Catalog;
use crate::context::RequestContext;
use crate::cpu_pool::CpuPool;
use crate::documents::Documents;
use crate::endpoints::Resources;
use crate::endpoints::response::EndpointResponse;
use crate::peers::Peers;
use crate::request_info::{RequestInfo, ResourceRequest};

/// The handlers of all requests.
pub struct Router {
    /// The versions of groups that other servers serve.
    pub(crate) aggregator: Arc<Aggregator>,
    /// The other API servers of the cluster; `None` to pass on no requests to them.
    pub(crate) peers: Option<Arc<Peers>>,
    /// Discovery, OpenAPI, health, metrics, version.
    pub documents: Documents,
    /// The API's resources.
    pub resources: Resources,
    /// The threads for large requests.
    pub(crate) cpu: CpuPool,
}

/// The handler of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    /// A resource.
    Resource(&'a ResourceRequest),
    /// A document.
    Document,
}

impl<'a> Route<'a> {
    fn new(info: &'a RequestInfo) -> Self {
        info.resource.as_ref().map_or(Self::Document, Self::Resource)
    }
}

impl Router {
    /// Serves a request.
    ///
    /// # Errors
    /// The error of the handler, or 406 if the client accepts none of the available encodings.
    pub(crate) async fn run<B>(
        &self,
        request: &mut Request<B>,
        context: &RequestContext,
        catalog: &Catalog,
    ) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        if let Some(service) = self.aggregator.route(&context.info) {
            // Boxed, because this large future is rarely needed.
            return Box::pin(self.aggregator.serve(&service, request, context)).await;
        }
        if let Some(peers) = &self.peers
            && let Some(route) = peers.route(context, request.headers(), catalog)
        {
            return Box::pin(peers.serve(route, request, context)).await;
        }
        let outcome = match Route::new(&context.info) {
            Route::Resource(resource) => self.resources.serve(request, resource, context, catalog).await?,
            Route::Document => {
                let headers = request.headers();
                let document = self.documents.serve(context, catalog, &self.aggregator, headers);
                let size = self.documents.size(catalog, &self.aggregator, &context.info, headers);
                self.cpu.run(size, pin!(document)).await?
            }
        };
        match outcome {
            EndpointResponse::Object(answer) => {
                let negotiation = &context.negotiation;
                if let Some(record) = &context.audit {
                    return Box::pin(answer.encode_recorded(record, negotiation, &self.cpu)).await;
                }
                self.cpu.run(answer.size(negotiation), async { answer.encode(negotiation) }).await
            }
            EndpointResponse::Http(response) => Ok(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn each_path_has_a_handler() {
        for (uri, is_resource) in [
            ("/api/v1/pods", true),
            ("/apis/apps/v1/deployments?watch=true", true),
            ("/apis/example.com/v1/unknown", true),
            ("/api/v1", false),
            ("/openapi/v2", false),
            ("/api/v1//pods", false),
            ("/", false),
        ] {
            let info = RequestInfo::new(&Method::GET, &uri.parse().unwrap());
            assert_eq!(matches!(Route::new(&info), Route::Resource(_)), is_resource, "{uri}");
        }
    }
}
