//! Clients that open connections without using them, and clients that compete with them.

use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::floods::{HEADERS, PREFACE, SETTINGS, frame};
use super::*;

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_hours(1);

/// Waits until the server has closed the connection.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut read = [0; 4096];
    while stream.read(&mut read).await.is_ok_and(|read| read > 0) {}
}

fn connections(total: usize, per_address: usize) -> Limits {
    let connections = ConnectionLimits { total, unauthenticated: total, per_address };
    let limits = Limits { connections, ..Limits::default() };
    Limits { handshake: NEVER, first_request: NEVER, idle: NEVER, ..limits }
}

#[tokio::test]
async fn closes_a_connection_without_a_first_request() {
    let world = start(Limits { first_request: SOON, idle: NEVER, ..Limits::default() });
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let part_of_headers = [&settings, &*frame(HEADERS, 0, 1, &[0x82, 0x87])].concat();
    let part_of_a_frame = &part_of_headers[..part_of_headers.len() - 1];
    for (protocol, sent) in [
        (&b"http/1.1"[..], &b""[..]),
        (b"http/1.1", b"GET / HTTP/1.1\r\nhost: localhost\r\n"),
        (b"h2", b""),
        (b"h2", &PREFACE[..10]),
        (b"h2", PREFACE),
        (b"h2", &settings),
        (b"h2", &part_of_headers),
        (b"h2", part_of_a_frame),
    ] {
        let mut stream = world.connect(protocol, None).await;
        stream.write_all(sent).await.unwrap();
        stream.flush().await.unwrap();
        closed(&mut stream).await;
    }
}

#[tokio::test]
async fn the_timeout_covers_a_head_that_comes_byte_by_byte() {
    let world = start(Limits { first_request: SOON, idle: NEVER, ..Limits::default() });
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let (mut read, mut write) = tokio::io::split(world.connect(protocol, None).await);
        let start: &[u8] = if protocol == b"h2" { PREFACE } else { b"GET / HTTP/1.1\r\n" };
        let drip = async {
            write.write_all(start).await.unwrap();
            // A header line without an end, or pings; both could go on forever.
            let more = if protocol == b"h2" { frame(6, 0, 0, &[0; 8]) } else { b"a".to_vec() };
            while write.write_all(&more).await.is_ok() && write.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(drip, closed(&mut read));
    }
}

#[tokio::test]
async fn closes_an_idle_connection_and_none_with_a_request() {
    let world = start(Limits { first_request: NEVER, idle: SOON, ..Limits::default() });
    let (mut busy1, mut busy2) = (world.http1().await, world.http2(None).await);
    let slow1 = tokio::spawn(busy1.send_request(get("/slow")));
    world.echo.begun.notified().await;
    let slow2 = tokio::spawn(busy2.send_request(get("/slow")));
    world.echo.begun.notified().await;

    let (mut http1, mut http2) = (world.http1().await, world.http2(None).await);
    assert_eq!(text(http1.send_request(get("/")).await).await, "Http1 anonymous");
    assert_eq!(text(http2.send_request(get("/")).await).await, "Http2 anonymous");
    while http1.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    while http2.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.echo.leave.notify_waiters();
    assert_eq!(text(slow1.await.unwrap()).await, "Http1 anonymous");
    assert_eq!(text(slow2.await.unwrap()).await, "Http2 anonymous");
}

#[tokio::test]
async fn silent_connections_do_not_lock_out_others() {
    let world = start(connections(4, 4));
    let mut alice = world.http2(Some(world.client("alice"))).await;
    assert_eq!(text(alice.send_request(get("/")).await).await, "Http2 alice");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
        assert_eq!(text(alice.send_request(get("/")).await).await, "Http2 alice");
        let mut bob = world.http1().await;
        assert_eq!(text(bob.send_request(get("/")).await).await, "Http1 anonymous");
    }
    // All except the newest were closed in favor of others.
    for mut stream in silent.into_iter().take(16) {
        closed(&mut stream).await;
    }
}

#[tokio::test]
async fn connections_in_any_unauthenticated_state_make_room() {
    let world = start(connections(1, 1));
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut shaken = world.connect(b"h2", None).await;
    closed(&mut silent).await;
    let mut anonymous = world.http2(None).await;
    closed(&mut shaken).await;
    assert_eq!(text(anonymous.send_request(get("/")).await).await, "Http2 anonymous");
    let waiting = tokio::spawn(anonymous.send_request(get("/slow")));
    world.echo.begun.notified().await;
    let mut alice = world.http2(Some(world.client("alice"))).await;
    assert!(waiting.await.unwrap().is_err(), "its request does not keep an unauthenticated connection");
    assert_eq!(text(alice.send_request(get("/")).await).await, "Http2 alice");
}

#[tokio::test]
async fn one_address_gets_only_its_share() {
    let world = start(connections(4, 2));
    let mut alice = Vec::new();
    for _ in 0..2 {
        let mut client = world.http2(Some(world.client("alice"))).await;
        assert_eq!(text(client.send_request(get("/")).await).await, "Http2 alice");
        alice.push(client);
    }
    let mut refused = TcpStream::connect(world.address).await.unwrap();
    closed(&mut refused).await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).unwrap();
    let other = socket.connect(world.address).await.unwrap();
    let stream = world.handshake(other, b"http/1.1", None).await.unwrap();
    let (mut bob, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(bob.send_request(get("/")).await).await, "Http1 anonymous");

    // A closed connection frees capacity for another one.
    alice.pop();
    loop {
        let stream = TcpStream::connect(world.address).await.unwrap();
        if world.handshake(stream, b"h2", None).await.is_ok() {
            break;
        }
    }
}
