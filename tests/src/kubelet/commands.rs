//! Commands in place of containers.

use std::process::Stdio;

use bytes::Bytes;
use nave_streams::remote_command::Channels;
use nave_streams::spdy::session::StreamWriter;
use nave_streams::spdy::{Session, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The command that returns its input.
const ECHO_INPUT: &str = "echo-input";

/// The streams of a command.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Waits for the streams of a command, runs it, and reports its exit code. With a terminal, the first size is printed
/// before the output.
pub(super) async fn run(mut session: Session, channels: Channels, command: Vec<String>) {
    let Channels { stdin, stdout, stderr, tty } = channels;
    let expected = 1 + [stdin, stdout, stderr && !tty, tty].into_iter().filter(|expected| *expected).count();
    let mut streams = Streams::default();
    for _ in 0..expected {
        let Some(stream) = session.accept().await else { return };
        let place = match stream.headers.get("streamType") {
            Some("error") => &mut streams.error,
            Some("stdin") => &mut streams.stdin,
            Some("stdout") => &mut streams.stdout,
            Some("stderr") => &mut streams.stderr,
            _ => &mut streams.resize,
        };
        *place = Some(stream);
    }
    let result = execute(&mut streams, command).await;
    for stream in [&mut streams.stdout, &mut streams.stderr].into_iter().flatten() {
        let _ = stream.writer.finish().await;
    }
    if let Some(mut error) = streams.error {
        let _ = error.writer.write(Bytes::from(result.to_string())).await;
        let _ = error.writer.finish().await;
    }
}

async fn execute(streams: &mut Streams, command: Vec<String>) -> Value {
    let Some((program, arguments)) = command.split_first() else {
        return json!({"status": "Failure", "message": "no command"});
    };
    if let (Some(resize), Some(stdout)) = (&mut streams.resize, &mut streams.stdout)
        && let Ok(Some(size)) = resize.reader.next().await
    {
        let _ = stdout.writer.write(size).await;
    }
    if program == ECHO_INPUT {
        return echo(streams).await;
    }
    let mut process = Command::new(program);
    let process = process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match process.kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) => {
            return json!({"status": "Failure", "message": format!("cannot run {program}: {error}")});
        }
    };
    let mut input = child.stdin.take();
    let feed = async {
        if let Some(stdin) = &mut streams.stdin {
            while let (Some(pipe), Ok(Some(piece))) = (&mut input, stdin.reader.next().await) {
                if pipe.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
        drop(input);
        std::future::pending::<()>().await;
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async {
        let stdout = copy(stdout, streams.stdout.as_mut().map(|stream| &mut stream.writer));
        let stderr = copy(stderr, streams.stderr.as_mut().map(|stream| &mut stream.writer));
        tokio::join!(stdout, stderr);
        child.wait().await
    };
    let status = tokio::select! {
        status = output => status,
        () = feed => return Value::Null,
    };
    match status.ok().and_then(|status| status.code()) {
        Some(0) => json!({"status": "Success"}),
        Some(code) => json!({"status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        None => json!({"status": "Failure", "message": "the command was killed"}),
    }
}

/// Returns the input, without a process.
async fn echo(streams: &mut Streams) -> Value {
    if let (Some(stdin), Some(stdout)) = (&mut streams.stdin, &mut streams.stdout) {
        while let Ok(Some(piece)) = stdin.reader.next().await {
            if stdout.writer.write(piece).await.is_err() {
                break;
            }
        }
    }
    json!({"status": "Success"})
}

async fn copy(pipe: Option<impl AsyncRead + Unpin>, writer: Option<&mut StreamWriter>) {
    let (Some(mut pipe), Some(writer)) = (pipe, writer) else { return };
    let mut piece = vec![0; 32 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        if writer.write(Bytes::copy_from_slice(&piece[..count])).await.is_err() {
            return;
        }
    }
    let _ = writer.finish().await;
}
