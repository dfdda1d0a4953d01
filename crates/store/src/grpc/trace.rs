//! The trace that calls belong to (W3C Trace Context). The context belongs to the task, because the contract of a store
//! knows no requests.

use http::{HeaderName, HeaderValue};

tokio::task_local! {
    static PARENT: HeaderValue;
}

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Runs work whose calls belong to a trace. `parent` is the value of the header `traceparent`. Calls of tasks that the
/// work spawns have no trace.
pub async fn traced<T>(parent: HeaderValue, work: impl Future<Output = T>) -> T {
    PARENT.scope(parent, work).await
}

/// Returns the value of the header for a call; `None` outside of a trace.
pub(super) fn parent() -> Option<HeaderValue> {
    PARENT.try_with(Clone::clone).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::sync::mpsc;

    use super::*;
    use crate::grpc::Connection;

    #[tokio::test]
    async fn calls_of_a_traced_task_have_its_header() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (sender, mut seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                // The test reads all headers.
                let _ = sender.send(request.headers().get(HEADER).cloned());
                let response = Response::builder().header("grpc-status", "5").body(Full::<Bytes>::default());
                async { Ok::<_, Infallible>(response.unwrap_or_default()) }
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), answer)
                .await
        });
        let connection = Connection::open(TokioIo::new(client), "http://etcd".to_owned()).await.unwrap();
        let call = async || connection.call::<()>("/s/m", &()).await.unwrap_err();
        call().await;
        assert_eq!(seen.recv().await.unwrap(), None);
        let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        traced(parent.clone(), call()).await;
        assert_eq!(seen.recv().await.unwrap(), Some(parent));
    }
}
