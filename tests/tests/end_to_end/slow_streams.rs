//! Streams whose clients read slowly or not at all, idle streams, and many streams at the same time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use nave_loadtest::http::{Call, Stream};
use nave_loadtest::process::Processes;
use nave_tests::kubelet::StandInKubelet;
use nave_tests::{Server, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const FLAGS: [&str; 3] =
    ["--controllers=none", "--disable-admission-plugins=ServiceAccount", "--allow-local-backends"];
const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
/// Growth of the server's memory that streams may cause. Each of the streams whose client does not read could fill it
/// within seconds.
const GROWTH: u64 = 192 << 20;

async fn start(speaks_web_socket: bool, flags: &[&str]) -> (Server, StandInKubelet) {
    let server = Server::start_with(&[&FLAGS[..], flags].concat()).await;
    let kubelet = StandInKubelet::start(&server, speaks_web_socket).await;
    kubelet.run_pod(&server, "p").await;
    (server, kubelet)
}

/// Starts a command.
async fn exec(server: &Server, command: &str, is_slow: bool) -> WebSocketStream<Stream> {
    let path = format!("/api/v1/namespaces/default/pods/p/exec?stdin=true&stdout=true&command={command}");
    let stream = server.target().connect_web_socket(&path, PROTOCOL, is_slow).await.unwrap();
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

fn memory(server: &Server) -> u64 {
    Processes(vec![server.pid()]).rss().unwrap().unwrap()
}

/// Serves endlessly many bytes on a port of this machine.
async fn flood() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let piece = vec![7; 32 << 10];
                while socket.write_all(&piece).await.is_ok() {}
            });
        }
    });
    port
}

#[tokio::test]
async fn clients_that_do_not_read_cost_little_memory() {
    for speaks_web_socket in [false, true] {
        let (server, kubelet) = start(speaks_web_socket, &[]).await;
        kubelet.run_pod(&server, "flood").await;
        let port = flood().await;
        let before = memory(&server);
        let commands = join_all((0..20).map(|_| exec(&server, "yes", true))).await;
        let mut logs = Vec::new();
        for _ in 0..10 {
            let mut connection = server.target().connect_slow_reader().await.unwrap();
            let follow = Call::get("/api/v1/namespaces/default/pods/flood/log?follow=true");
            let response = connection.send(&follow).await.unwrap();
            logs.push((connection, response));
        }
        let mut forwarding = server.kubectl_running(&["port-forward", "pod/p", &format!(":{port}")]);
        let line = forwarding.line().await;
        let local = line.split(" -> ").next().unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let sockets = join_all((0..5).map(|_| TcpStream::connect(("127.0.0.1", local)))).await;
        eventually("all streams are open", async || kubelet.open_streams() == 21).await;
        // Other streams go on.
        for number in 0..5 {
            let echoed = server.kubectl(&["exec", "p", "--", "echo", &number.to_string()]).await;
            assert_eq!(echoed.trim(), number.to_string());
        }
        let after = memory(&server);
        assert!(after < before + GROWTH, "memory grew from {before} to {after}");
        drop((commands, logs, sockets, forwarding));
        eventually("all commands end", async || kubelet.open_streams() == 0).await;
    }
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_delay_the_shutdown() {
    let (mut server, kubelet) = start(false, &["--request-timeout=1s"]).await;
    let _commands = join_all((0..5).map(|_| exec(&server, "yes", true))).await;
    eventually("the commands run", async || kubelet.open_streams() == 5).await;
    assert!(server.terminate().await.success());
    eventually("the commands end", async || kubelet.open_streams() == 0).await;
}

#[tokio::test]
async fn idle_streams_are_ended() {
    for speaks_web_socket in [false, true] {
        let (server, kubelet) = start(speaks_web_socket, &["--stream-idle-timeout=2s"]).await;
        let mut command = exec(&server, "echo-input", false).await;
        let port = flood().await;
        // kubectl asks for the connection of the tunnel at once, and for the port's with the first client.
        let _forwarding = server.kubectl_running(&["port-forward", "pod/p", &format!(":{port}")]);
        eventually("the streams are open", async || kubelet.open_streams() == 2).await;
        eventually("the streams are ended", async || kubelet.open_streams() == 0).await;
        while command.next().await.is_some_and(|message| message.is_ok()) {}
    }
}

/// Sends a message and reads it back.
async fn echo(socket: &mut WebSocketStream<Stream>, content: &[u8]) {
    let message = [&[STDIN], content].concat();
    socket.send(Message::Binary(Bytes::from(message))).await.unwrap();
    let mut received = Vec::new();
    while received.len() < content.len() {
        let message = socket.next().await.unwrap().unwrap();
        if let Message::Binary(bytes) = message {
            assert_eq!(bytes[0], STDOUT, "{}", String::from_utf8_lossy(&bytes));
            received.extend_from_slice(&bytes[1..]);
        }
    }
    assert!(received == content);
}

#[tokio::test]
async fn many_streams_have_flat_memory() {
    for speaks_web_socket in [false, true] {
        let (server, kubelet) = start(speaks_web_socket, &[]).await;
        let before = memory(&server);
        let mut sockets = Vec::new();
        // Not more handshakes at a time than the server accepts.
        for _ in 0..10 {
            sockets.extend(join_all((0..50).map(|_| exec(&server, "echo-input", false))).await);
        }
        eventually("all streams are open", async || kubelet.open_streams() == 500).await;
        let content = vec![9; 16 << 10];
        let mut sizes = vec![before];
        for _ in 0..4 {
            join_all(sockets.iter_mut().map(|socket| echo(socket, &content))).await;
            sizes.push(memory(&server));
        }
        eprintln!("500 streams, WebSocket to the kubelet: {speaks_web_socket}, resident memory: {sizes:?}");
        assert!(
            sizes[4] < sizes[1] + (sizes[1] - before) / 4 + (16 << 20),
            "memory grows with content: {sizes:?}"
        );
        drop(sockets);
        eventually("all commands end", async || kubelet.open_streams() == 0).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_ends_all_streams() {
    let (mut server, kubelet) = start(false, &[]).await;
    let mut sockets = join_all((0..20).map(|_| exec(&server, "echo-input", false))).await;
    eventually("all streams are open", async || kubelet.open_streams() == 20).await;
    server.kill9();
    eventually("all commands end", async || kubelet.open_streams() == 0).await;
    for socket in &mut sockets {
        let ended = async { while socket.next().await.is_some_and(|message| message.is_ok()) {} };
        tokio::time::timeout(Duration::from_mins(2), ended).await.unwrap();
    }
}
