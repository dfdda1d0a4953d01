//! The WebSocket of a client of `exec` and `portforward`, and a kubelet, which both send any bytes and then end. The
//! stream must end too, within the time limits.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nave_machinery::Status;
use nave_streams::remote_command::{self, Channels};
use nave_streams::tunnel::tunnel;
use tokio::io::{AsyncWriteExt, DuplexStream, copy, duplex, sink, split};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Longer than all time limits of a stream whose ends have gone.
const LIMIT: Duration = Duration::from_mins(10);
const PIPE: usize = 4 << 10;

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (mode, from_client, from_kubelet) = input;
    let is_framed = mode & 1 != 0;
    let from_client = if is_framed { frames(from_client) } else { from_client.to_vec() };
    let from_kubelet = from_kubelet.to_vec();
    // Time passes only while all tasks wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let (client, server_end) = duplex(PIPE);
        let (kubelet, kubelet_end) = duplex(PIPE);
        let config = WebSocketConfig::default().max_message_size(Some(1 << 20)).max_frame_size(Some(1 << 20));
        let socket = WebSocketStream::from_raw_socket(server_end, Role::Server, Some(config)).await;
        let stream = async {
            if mode & 2 != 0 {
                let _ = tunnel(socket, kubelet_end).await;
            } else {
                let has = |bit: u8| mode & bit != 0;
                let channels = Channels { stdin: has(4), stdout: has(8), stderr: has(16), tty: has(32) };
                let connect = async { Ok::<_, Status>(kubelet_end) };
                remote_command::run(socket, channels, connect).await;
            }
        };
        let all = async { tokio::join!(stream, peer(client, from_client), peer(kubelet, from_kubelet)) };
        tokio::time::timeout(LIMIT, all).await.expect("the stream ends");
    });
});

/// Sends bytes and ends, and reads all that comes.
async fn peer(end: DuplexStream, bytes: Vec<u8>) {
    let (mut reads, mut writes) = split(end);
    let write = async {
        let _ = writes.write_all(&bytes).await;
        let _ = writes.shutdown().await;
    };
    let mut sink = sink();
    let _ = tokio::join!(write, copy(&mut reads, &mut sink));
}

/// Returns valid frames of a client, with the pieces of the input as their content.
fn frames(mut input: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [kind, length, rest @ ..] = input {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(length % 126)));
        let opcode = match kind % 8 {
            0 => 0x0,
            1 => 0x1,
            2 => 0x9,
            3 => 0xa,
            4 => 0x8,
            _ => 0x2,
        };
        frames.extend([0x80 | opcode, 0x80 | content.len() as u8, 0, 0, 0, 0]);
        frames.extend(content);
        input = rest;
    }
    frames
}
