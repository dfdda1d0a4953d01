//! Requests from within the process: they pass through the pipeline as a given user, without a connection. Client
//! libraries use this service in place of an HTTP connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use nave_machinery::user::UserInfo;
use tower_service::Service;

use crate::body::{BodyError, Pieces, ResponseBody};
use crate::context::Client;
use crate::pipeline::Pipeline;
use crate::serving::Served;

/// Sends requests to the server as one user. Clones share their state.
#[derive(Clone)]
pub struct LocalService {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) user: Arc<UserInfo>,
}

impl<B> Service<Request<B>> for LocalService
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    type Response = Response<LocalBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { pipeline, user } = self.clone();
        Box::pin(async move {
            let Served { response, .. } = pipeline.handle(request, Client::Process(user)).await;
            Ok(response.map(|body| body.map_frame(joined as fn(_) -> _)))
        })
    }
}

/// A response body of the type that client libraries expect.
pub type LocalBody = MapFrame<ResponseBody, fn(Frame<Pieces>) -> Frame<Bytes>>;

fn joined(frame: Frame<Pieces>) -> Frame<Bytes> {
    frame.map_data(|mut pieces| pieces.copy_to_bytes(pieces.remaining()))
}
