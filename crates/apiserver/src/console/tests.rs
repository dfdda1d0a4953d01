//! The stream as viewers read it, with a sampler of its own.

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;

fn console() -> (Console, Closing) {
    let closing = Closing::default();
    (Console::new(closing.clone(), None), closing)
}

/// Returns the next event's data; `None` at the end of the stream.
async fn next(response: &mut Response<ResponseBody>) -> Option<Value> {
    use bytes::Buf as _;
    let mut data = response.body_mut().frame().await?.unwrap().into_data().ok()?;
    let event = data.copy_to_bytes(data.remaining());
    let json = event.strip_prefix(b"event: snapshot\ndata: ").unwrap().strip_suffix(b"\n\n").unwrap();
    assert!(!json.contains(&b'\n'));
    Some(serde_json::from_slice(json).unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "compared with the next event, which may be none")]
fn event(number: u32) -> Option<Bytes> {
    Some(format!("event: snapshot\ndata: {number}\n\n").into())
}

#[tokio::test]
async fn viewers_are_bounded_and_give_their_place_back() {
    let (console, _closing) = console();
    let user = |number: usize| format!("user-{}", number / MAX_VIEWERS_OF_USER);
    let mut open: Vec<_> = (0..MAX_VIEWERS).map(|number| console.stream(&user(number)).unwrap()).collect();
    let Err(status) = console.stream("another") else { panic!("one viewer too many") };
    assert_eq!((status.code, status.details.unwrap().retry_after_seconds), (429, 10));
    open.pop();
    assert_eq!(console.viewers(), MAX_VIEWERS - 1);
    // One user does not get all places.
    assert!(console.stream(&user(0)).is_err());
    let response = console.stream("another").unwrap();
    assert_eq!((response.status(), console.viewers()), (StatusCode::OK, MAX_VIEWERS));
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn a_slow_viewer_misses_snapshots_and_none_is_queued() {
    let (console, _closing) = console();
    let (mut slow, mut quick) = (console.stream("user").unwrap(), console.stream("user").unwrap());
    for number in 0..1_000 {
        console.latest.send_replace(event(number));
        assert_eq!(next(&mut quick).await.unwrap(), number);
    }
    assert_eq!(next(&mut slow).await.unwrap(), 999);
}

#[tokio::test]
async fn a_new_viewer_gets_the_latest_snapshot_at_once() {
    let (console, _closing) = console();
    let _first = console.stream("user").unwrap();
    console.latest.send_replace(event(7));
    assert_eq!(next(&mut console.stream("user").unwrap()).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_its_time_and_with_the_server() {
    let (console, closing) = console();
    let mut response = console.stream("user").unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(next(&mut response).await, None);
    assert!(started.elapsed() >= STREAM_TIME);
    drop(response);
    let mut response = console.stream("user").unwrap();
    closing.begin();
    assert_eq!(next(&mut response).await, None);
    drop(response);
    assert_eq!(console.viewers(), 0);
}
