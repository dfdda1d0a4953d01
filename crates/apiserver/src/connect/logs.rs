//! `pods/log`: the log of a container (upstream: `LogREST`, `LocationStreamer`).

use http::{HeaderValue, Request, Response, StatusCode, header};
use nave_machinery::status::StatusDetails;
use nave_machinery::{Reason, Status, meta};
use nave_webhook::BackendError;

use super::exchange::{self, Exchange};
use super::location::{container, encode_query};
use super::options::LogOptions;
use super::{ConnectRequest, unreachable};
use crate::body::ResponseBody;
use crate::raw_response;

/// Maximum size of a kubelet's error text, in bytes.
const MAX_ERROR: usize = 50_000;

/// Streams the log of a container.
pub(super) async fn serve(request: &ConnectRequest<'_>) -> Result<Response<ResponseBody>, Status> {
    let name = request.resource.name.as_str();
    let options = LogOptions::parse(&request.context.info.query)?;
    options.validate(name)?;
    let pod = request.read("pods", &request.resource.namespace, name).await?;
    let container = container(&pod, &options.container)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // A pod without a node has no log.
        return Ok(raw_response::bytes(StatusCode::NO_CONTENT, "", bytes::Bytes::new()));
    }
    request.backends.log_usage.requested(options.skip_verification);
    let mut location = request.kubelet(node, !options.skip_verification).await?.location;
    location.path = format!("/containerLogs/{}/{name}/{container}", meta::namespace(&pod));
    location.query = encode_query(&options.parameters());
    let mut head = Request::get(location.target()?).body(()).map_err(Status::internal)?;
    let authority = HeaderValue::try_from(location.authority()).map_err(Status::internal)?;
    head.headers_mut().insert(header::HOST, authority);
    let place = request.backends.place(&location.host, request.context.user())?;
    let connection = location.connect(&request.backends.dialer, place).await.map_err(|error| {
        if matches!(error, BackendError::Tls(_)) {
            request.backends.log_usage.tls_failed();
        }
        let url = format!("https://{}{}", location.authority(), head.uri());
        match unreachable(&error) {
            status if status.code == 400 => status,
            _ => super::failed(format!("Get {url:?}: {error}")),
        }
    })?;
    let body: Option<&mut http_body_util::Empty<bytes::Bytes>> = None;
    let exchange = exchange::send(connection, head, body).await;
    let exchange = exchange.map_err(|error| super::failed(format!("reading the log: {error}")))?;
    if !matches!(exchange.response.status().as_u16(), 200..=206) {
        return Err(error(name, exchange).await);
    }
    Ok(raw_response::with_body(StatusCode::OK, "text/plain".into(), exchange.into_body()))
}

/// Returns the kubelet's error for the client (upstream: `GenericHttpResponseChecker`).
async fn error(pod: &str, exchange: Exchange) -> Status {
    let code = exchange.response.status().as_u16();
    let text = String::from_utf8_lossy(&exchange.read(MAX_ERROR).await).into_owned();
    let generic = |reason, message: String| {
        let details =
            StatusDetails { name: pod.to_owned(), kind: "pods/log".to_owned(), ..StatusDetails::default() };
        Status::failure(code, reason, format!("{message} ( pods/log {pod})")).with_details(details)
    };
    match code {
        400 => Status::bad_request(text),
        500 => Status::internal(text),
        401 => generic(
            Reason::Unauthorized,
            "the server has asked for the client to provide credentials".to_owned(),
        ),
        403 => generic(Reason::Forbidden, text),
        404 => generic(Reason::NotFound, "the server could not find the requested resource".to_owned()),
        503 => generic(
            Reason::ServiceUnavailable,
            "the server is currently unable to handle the request".to_owned(),
        ),
        // Redirects are not followed.
        300..=399 => super::failed("the kubelet redirects the request, which is not allowed"),
        code if (400..=599).contains(&code) => generic(
            Reason::InternalError,
            format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
        // Not codes of errors: 101 would even promise the client another protocol.
        _ => super::failed(format!("the kubelet responds with the unexpected status code {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::answer;
    use super::*;

    #[tokio::test]
    async fn only_codes_of_errors_become_the_code_of_the_response() {
        for (head, code) in [
            (&b"HTTP/1.1 101 SP\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"[..], 500),
            (b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n", 500),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 500),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
            (b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n", 418),
            (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", 503),
            (b"HTTP/1.1 999 None\r\nContent-Length: 0\r\n\r\n", 500),
        ] {
            let status = error("p", answer(head, 1).await.unwrap()).await;
            assert_eq!(status.code, code, "{}", String::from_utf8_lossy(head));
        }
    }
}
