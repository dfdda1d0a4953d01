use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use super::result::success;
use super::*;

const ALL: Channels = Channels { stdin: true, stdout: true, stderr: true, tty: false };

struct Fixture {
    client: WebSocketStream<DuplexStream>,
    kubelet: Session,
    driver: JoinHandle<()>,
}

async fn start(channels: Channels) -> Fixture {
    let (near, far) = duplex(1 << 16);
    let (kubelet, connection) = duplex(1 << 16);
    let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
    tokio::spawn(run(socket, channels, async { Ok(connection) }));
    let (kubelet, driver) = Session::start(kubelet, Role::Server);
    let driver = tokio::spawn(async { drop(driver.await) });
    let client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
    Fixture { client, kubelet, driver }
}

impl Fixture {
    async fn stream(&mut self, kind: &str) -> Stream {
        let stream = self.kubelet.accept().await.unwrap();
        assert_eq!(stream.headers.get("streamType"), Some(kind));
        stream
    }

    async fn send(&mut self, message: &[u8]) {
        self.client.send(Message::binary(message.to_vec())).await.unwrap();
    }

    async fn receive(&mut self) -> Vec<u8> {
        match self.client.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn result(&mut self) -> Value {
        let message = self.receive().await;
        assert_eq!(message[0], ERROR);
        serde_json::from_slice(&message[1..]).unwrap()
    }
}

async fn write(stream: &mut Stream, bytes: &'static [u8]) {
    stream.writer.write(Bytes::from_static(bytes)).await.unwrap();
    stream.writer.finish().await.unwrap();
}

#[tokio::test]
async fn translates_channels_to_streams() {
    let mut fixture = start(ALL).await;
    assert_eq!(fixture.receive().await, [STDOUT]);
    let mut error = fixture.stream("error").await;
    let mut stdin = fixture.stream("stdin").await;
    let mut stdout = fixture.stream("stdout").await;
    let mut stderr = fixture.stream("stderr").await;
    fixture.send(b"\0input").await;
    fixture.send(b"\x01not writable").await;
    fixture.send(b"").await;
    fixture.send(b"\xff\0").await;
    assert_eq!(stdin.reader.next().await.unwrap().unwrap(), "input");
    assert_eq!(stdin.reader.next().await.unwrap(), None);
    write(&mut stdout, b"output").await;
    assert_eq!(fixture.receive().await, b"\x01output");
    write(&mut stderr, b"problem").await;
    assert_eq!(fixture.receive().await, b"\x02problem");
    write(&mut error, b"{\"status\":\"Success\"}").await;
    assert_eq!(fixture.result().await, success());
    assert!(matches!(fixture.client.next().await, Some(Ok(Message::Close(Some(_))))));
}

#[tokio::test]
async fn a_terminal_has_sizes_and_no_stderr() {
    let mut fixture = start(Channels { tty: true, ..ALL }).await;
    let _error = fixture.stream("error").await;
    let _stdin = fixture.stream("stdin").await;
    let _stdout = fixture.stream("stdout").await;
    let mut resize = fixture.stream("resize").await;
    fixture.send(b"\x04{\"Width\":80,\"Height\":24}\n").await;
    assert_eq!(resize.reader.next().await.unwrap().unwrap(), "{\"Width\":80,\"Height\":24}\n");
    // Ends the command: the close of an unknown channel violates the protocol.
    fixture.send(b"\xff\x09").await;
    assert_eq!(resize.reader.next().await, Err(Ended));
    fixture.driver.await.unwrap();
}

#[tokio::test]
async fn the_result_is_the_exit_code_or_an_error() {
    let exit = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"x","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    for (sent, reason, message) in [
        (
            &exit[..],
            "NonZeroExitCode",
            "command terminated with non-zero exit code: command terminated with exit code 3",
        ),
        (
            br#"{"status":"Failure","message":"no such container"}"#,
            "InternalError",
            "Internal error occurred: no such container",
        ),
        (
            br#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
            "InternalError",
            "Internal error occurred: error stream protocol error: no ExitCode cause given",
        ),
        (
            b"[",
            "InternalError",
            "Internal error occurred: error stream protocol error: \"[\" is not a Status",
        ),
    ] {
        let mut fixture = start(Channels { stdout: true, ..Channels::default() }).await;
        assert_eq!(fixture.receive().await, [STDOUT]);
        let mut error = fixture.stream("error").await;
        let mut stdout = fixture.stream("stdout").await;
        stdout.writer.finish().await.unwrap();
        error.writer.write(Bytes::copy_from_slice(sent)).await.unwrap();
        error.writer.finish().await.unwrap();
        let result = fixture.result().await;
        assert_eq!((&result["reason"], &result["message"]), (&json!(reason), &json!(message)));
    }
}

#[tokio::test]
async fn a_kubelet_that_goes_away_is_an_error() {
    let mut fixture = start(ALL).await;
    assert_eq!(fixture.receive().await, [STDOUT]);
    let streams = [fixture.stream("error").await, fixture.stream("stdin").await];
    fixture.driver.abort();
    drop(streams);
    let result = fixture.result().await;
    assert_eq!(result["message"], ended().message);
}

#[tokio::test]
async fn a_failed_connection_is_the_result() {
    let (near, far) = duplex(1 << 10);
    let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
    let refused = async { Err::<DuplexStream, _>(Status::internal("refused")) };
    tokio::spawn(run(socket, Channels { stderr: true, ..Channels::default() }, refused));
    let mut client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![STDERR]));
    let Message::Binary(result) = client.next().await.unwrap().unwrap() else { panic!("no result") };
    assert_eq!(serde_json::from_slice::<Value>(&result[1..]).unwrap()["code"], 500);
}

/// Starts a command whose kubelet accepts the connection and then never answers. `connected` is false if not even the
/// connection is accepted.
async fn start_hanging(connected: bool) -> (WebSocketStream<DuplexStream>, DuplexStream, JoinHandle<()>) {
    let (near, far) = duplex(1 << 20);
    let (kubelet, connection) = duplex(1 << 10);
    let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
    let connect = async move {
        if !connected {
            pending::<()>().await;
        }
        Ok(connection)
    };
    let running = tokio::spawn(run(socket, ALL, connect));
    let mut client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![STDOUT]));
    (client, kubelet, running)
}

#[tokio::test]
async fn a_client_that_leaves_while_the_kubelet_hangs_ends_the_command() {
    for connected in [false, true] {
        for last in [None, Some(Message::Ping(Bytes::new())), Some(Message::Close(None))] {
            let (mut client, mut kubelet, running) = start_hanging(connected).await;
            if let Some(last) = last {
                client.send(last).await.unwrap();
            }
            drop(client);
            running.await.unwrap();
            // The connection to the kubelet ends too.
            kubelet.read_to_end(&mut Vec::new()).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_open_the_streams_in_time_is_an_error() {
    for connected in [false, true] {
        let (mut client, _kubelet, running) = start_hanging(connected).await;
        // Content that waits for the streams is no reason to wait longer.
        client.send(Message::binary(vec![STDIN, b'x'])).await.unwrap();
        let Message::Binary(result) = client.next().await.unwrap().unwrap() else { panic!("no result") };
        let result: Value = serde_json::from_slice(&result[1..]).unwrap();
        assert_eq!(result["message"], timed_out().message);
        drop(client);
        running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_input_waits_ends_the_command() {
    let (near, far) = duplex(1 << 20);
    let (kubelet, connection) = duplex(1 << 10);
    let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
    let channels = Channels { stdin: true, ..Channels::default() };
    let running = tokio::spawn(run(socket, channels, async { Ok(connection) }));
    let mut client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
    let (mut session, driver) = Session::start(kubelet, Role::Server);
    let mut driver = Box::pin(driver);
    let _streams = tokio::select! {
        streams = async { (session.accept().await.unwrap(), session.accept().await.unwrap()) } => streams,
        _ = &mut driver => panic!("the connection ended"),
    };
    // The answers to the streams are still to be written; afterwards the kubelet hangs.
    let _ = timeout(Duration::from_secs(1), &mut driver).await;
    let mut input = vec![b'x'; 64 << 10];
    input[0] = STDIN;
    for _ in 0..14 {
        client.send(Message::binary(input.clone())).await.unwrap();
    }
    drop(client);
    running.await.unwrap();
}
