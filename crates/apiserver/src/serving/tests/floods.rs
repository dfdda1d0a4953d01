//! Clients that send cheap frames that are expensive for the server; the server must close the connection.

use std::task::Poll;

use futures_util::poll;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::AsyncWriteExt;

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Timeout of a test; shorter than the time after which an unanswered ping ends a connection.
const HANGS: Duration = Duration::from_secs(25);
/// Number of frames within which the server must detect a flood.
const MANY: u32 = 200_000;

/// Encodes an HTTP/2 frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the header block of a request for a path.
fn request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x09localhost");
    block
}

/// Returns the frame of round `n` of a flood.
type Flood = fn(u32) -> Vec<u8>;

/// Returns the stream of round `n`.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

const FLOODS: [(&str, Flood); 6] = [
    ("malformed requests", |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &[])),
    ("continuations", |n| match n {
        0 => frame(HEADERS, 0, 1, &[]),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
    ("requests reset at once", |n| {
        let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &request("/slow"));
        [headers, frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat()
    }),
    ("requests beyond the limit of streams", |n| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &request("/slow"))
    }),
    ("empty data", |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &request("/slow")),
        _ => frame(DATA, 0, 1, &[]),
    }),
    ("data of streams that have ended", |n| {
        let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &request("/slow"));
        [headers, frame(DATA, 0, stream(n), b"more")].concat()
    }),
];

#[tokio::test]
async fn disconnects_a_client_that_floods_frames() {
    let world = start(Limits::default());
    for (what, flood) in FLOODS {
        let (mut read, mut write) = tokio::io::split(world.connect(b"h2", None).await);
        let reader = tokio::spawn(async move {
            let mut frames = [0; 4096];
            while read.read(&mut frames).await.is_ok_and(|read| read > 0) {}
        });
        let mut all = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for n in 0..MANY {
            all.extend_from_slice(&flood(n));
            if all.len() > 16 << 10 {
                let written = write.write_all(&all).await.is_ok() && write.flush().await.is_ok();
                if !written || reader.is_finished() {
                    break;
                }
                all.clear();
            }
        }
        // The client does not close its side, so only the server can end the connection.
        assert!(
            tokio::time::timeout(HANGS, reader).await.is_ok(),
            "the connection outlives the flood: {what}"
        );
    }
    assert_eq!(text(world.http2(None).await.send_request(get("/")).await).await, "Http2 anonymous");
}

#[tokio::test]
async fn disconnects_a_client_that_abandons_its_requests() {
    let world = start(Limits { abandoned_requests: 50, ..Limits::default() });
    let mut client = world.http2(None).await;
    for _ in 0..50 {
        let mut request = std::pin::pin!(client.send_request(get("/slow")));
        assert!(poll!(request.as_mut()).is_pending());
        tokio::select! {
            () = world.echo.begun.notified() => {}
            answer = request => panic!("cut off too early: {answer:?}"),
        }
    }
    // Each answered request allows one more abandoned request.
    for _ in 0..50 {
        assert_eq!(text(client.send_request(get("/")).await).await, "Http2 anonymous");
    }
    let ended = async {
        loop {
            let mut request = std::pin::pin!(client.send_request(get("/slow")));
            let begun = std::pin::pin!(world.echo.begun.notified());
            if let Poll::Ready(Err(_)) = poll!(request.as_mut()) {
                return;
            }
            tokio::select! {
                answer = request => if answer.is_err() { return },
                () = begun => {}
            }
        }
    };
    ended.await;
}

#[tokio::test]
async fn refusals_before_the_body_is_read_keep_the_connection() {
    let world = start(Limits::default());
    let stream = TokioIo::new(world.connect(b"h2", None).await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..1500 {
        client.ready().await.unwrap();
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, io::Error>>());
        let request = Request::post("https://localhost/").body(body).unwrap();
        assert_eq!(text(client.send_request(request).await).await, "Http2 anonymous");
    }
}
