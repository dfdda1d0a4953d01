//! Streams from kubectl through the server to a kubelet: logs, commands, port forwards, proxies.

use std::time::Duration;

use nave_loadtest::http::Call;
use nave_tests::kubelet::{KUBELET_NODE, StandInKubelet};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ALONE: [&str; 2] = ["--controllers=none", "--disable-admission-plugins=ServiceAccount"];
/// Lets the server connect to kubelets on this machine.
const LOCAL: &str = "--allow-local-backends";
/// Makes kubectl use SPDY, as before version 1.31.
const SPDY: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];

async fn server() -> Server {
    Server::start_with(&[ALONE[0], ALONE[1], LOCAL]).await
}

/// Starts a server, a kubelet and the pod `p`.
async fn start(speaks_web_socket: bool) -> (Server, StandInKubelet) {
    let server = server().await;
    let kubelet = StandInKubelet::start(&server, speaks_web_socket).await;
    kubelet.run_pod(&server, "p").await;
    (server, kubelet)
}

/// The ways from kubectl to a kubelet: translated, passed on, SPDY.
const WAYS: [(bool, &[(&str, &str)]); 3] = [(false, &[]), (true, &[]), (false, &SPDY)];

#[tokio::test]
async fn commands_have_input_output_and_exit_codes() {
    for (speaks_web_socket, environment) in WAYS {
        let (server, kubelet) = start(speaks_web_socket).await;
        let way = format!("{speaks_web_socket} {environment:?}");
        let script = ["exec", "p", "--", "sh", "-c", "echo out; echo problem >&2; exit 3"];
        let ran = server.kubectl_with(&script, "", environment).await;
        assert_eq!((&*ran.stdout, ran.status.code()), ("out\n", Some(3)), "{way}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("problem\n"), "{way}: {}", ran.stderr);
        // The end of the input is passed on: `wc` ends only then.
        let input = "line\n".repeat(40_000);
        let ran = server.kubectl_with(&["exec", "-i", "p", "--", "wc", "-l"], &input, environment).await;
        assert_eq!(ran.stdout.trim(), "40000", "{way}: {}", ran.stderr);
        let ran = server.kubectl_with(&["exec", "p", "--", "no-such-program"], "", environment).await;
        assert!(
            !ran.status.success() && ran.stderr.contains("cannot run no-such-program"),
            "{way}: {}",
            ran.stderr
        );
        let ran = server.kubectl_with(&["attach", "-i", "p"], "hello\n", environment).await;
        assert!(ran.stdout.contains("hello"), "{way}: {}{}", ran.stdout, ran.stderr);
        eventually("no stream is left", async || kubelet.open_streams() == 0).await;
    }
}

#[tokio::test]
async fn files_are_copied_both_ways() {
    for (speaks_web_socket, environment) in WAYS {
        let (server, _kubelet) = start(speaks_web_socket).await;
        let way = format!("{speaks_web_socket} {environment:?}");
        let path = |name: &str| server.folder().join(name).display().to_string();
        let content: Vec<u8> =
            (0..20_000_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(path("original"), &content).unwrap();
        for (from, to) in [
            (path("original"), format!("p:{}", path("there"))),
            (format!("p:{}", path("there")), path("back")),
        ] {
            let ran = server.kubectl_with(&["cp", &from, &to], "", environment).await;
            assert!(ran.status.success(), "{way}: {}", ran.stderr);
        }
        assert!(std::fs::read(path("there")).unwrap() == content, "{way}");
        assert!(std::fs::read(path("back")).unwrap() == content, "{way}");
    }
}

#[tokio::test]
async fn a_terminal_is_passed_on_with_its_size() {
    for speaks_web_socket in [false, true] {
        let (server, _kubelet) = start(speaks_web_socket).await;
        let kubectl = std::env::var("NAVE_CLIENTS").unwrap() + "/kubectl";
        let script = format!(
            r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv("{kubectl}", ["kubectl", "exec", "-it", "p", "--", "sh", "-c", "echo shown; cat"])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
os.write(terminal, b"typed\n")
seen = b""
while b"shown" not in seen or b"typed" not in seen.split(b"shown")[-1]:
    seen += os.read(terminal, 1000)
os.write(terminal, b"\x04")
os.kill(pid, 9)
print(seen.decode(errors="replace"))
"#
        );
        let seen = server.python(&script).await;
        assert!(seen.contains("{\"Width\":") && seen.contains("\"Height\":"), "{seen}");
    }
}

#[tokio::test]
async fn logs_are_streamed_with_all_options() {
    let (server, kubelet) = start(false).await;
    let printed =
        server.kubectl(&["logs", "p", "--timestamps", "--tail=5", "--limit-bytes=100", "--since=1m"]).await;
    assert_eq!(printed, "parameters: timestamps=true sinceSeconds=60 tailLines=5 limitBytes=100\n");
    let mut following = server.kubectl_running(&["logs", "-f", "p"]);
    assert_eq!(following.line().await, "parameters: follow=true");
    for number in 1..=20 {
        assert_eq!(following.line().await, format!("line {number}"));
    }
    for (arguments, why) in [
        (&["logs", "-p", "p"][..], "previous terminated container \"main\" not found"),
        (&["logs", "p", "-c", "x"], "container x is not valid for pod p"),
        (&["get", "--raw", "/api/v1/namespaces/default/pods/p/log?tailLines=-1"], "tailLines: Invalid value"),
        (&["get", "--raw", "/api/v1/namespaces/default/pods/p/log?tailLines=x"], "invalid syntax"),
        (&["get", "--raw", "/api/v1/namespaces/default/pods/none/log"], "pods \"none\" not found"),
    ] {
        let error = server.kubectl_fails(arguments).await;
        assert!(error.contains(why), "{arguments:?}: {error}");
    }
    // The end of the kubelet ends the stream.
    kubelet.kill().await;
    let error = server.kubectl_fails(&["logs", "p"]).await;
    assert!(error.contains("connection refused"), "{error}");
}

/// Serves an echo on a port of this machine.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = socket.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test]
async fn ports_are_forwarded_for_many_connections() {
    for speaks_web_socket in [false, true] {
        let (server, _kubelet) = start(speaks_web_socket).await;
        let port = echo().await;
        let mut forwarding = server.kubectl_running(&["port-forward", "pod/p", &format!(":{port}")]);
        let line = forwarding.line().await;
        let local = line.split(" -> ").next().unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let connections = (0..50_u8).map(|number| async move {
            let mut socket = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
            let sent = vec![number; 100_000];
            let mut received = vec![0; sent.len()];
            let (mut reads, mut writes) = socket.split();
            let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut received));
            written.unwrap();
            read.unwrap();
            assert!(received == sent, "connection {number}");
        });
        futures_util::future::join_all(connections).await;
    }
}

#[tokio::test]
async fn requests_are_proxied_to_nodes_pods_and_services() {
    let (server, kubelet) = start(false).await;
    let port = kubelet.address.port();
    let raw = async |path: &str| -> Value {
        serde_json::from_str(&server.kubectl(&["get", "--raw", path]).await).unwrap()
    };
    let seen = raw(&format!("/api/v1/nodes/{KUBELET_NODE}/proxy/a/../b%20c/?x=1&y=%2F")).await;
    assert_eq!((&seen["method"], &seen["target"]), (&json!("GET"), &json!("/b%20c/?x=1&y=%2F")));
    assert_eq!(seen["headers"]["authorization"], Value::Null);
    assert!(seen["headers"]["x-forwarded-for"].as_str().unwrap().contains("127.0.0.1"));
    // A redirect reaches the client and is not followed.
    let mut connection = server.target().connect_http1().await.unwrap();
    let redirect = Call::get(format!("/api/v1/nodes/{KUBELET_NODE}/proxy/redirect"));
    let response = connection.send(&redirect).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.header("location"), Some("http://169.254.169.254/"));
    let pods = server
        .kubectl_fails(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/p:{port}/proxy/")])
        .await;
    assert!(pods.contains("error trying to reach service"), "the kubelet speaks TLS only: {pods}");
}

#[tokio::test]
async fn addresses_of_this_machine_are_refused_by_default() {
    let server = Server::start_with(&ALONE).await;
    let kubelet = StandInKubelet::start(&server, false).await;
    kubelet.run_pod(&server, "p").await;
    for arguments in [
        &["logs", "p"][..],
        &["exec", "p", "--", "id"],
        &["get", "--raw", &format!("/api/v1/nodes/{KUBELET_NODE}/proxy/")],
        &["get", "--raw", "/api/v1/namespaces/default/pods/p:80/proxy/"],
        &["get", "--raw", "/api/v1/namespaces/default/pods/https:p:443/proxy/"],
    ] {
        let error = server.kubectl_fails(arguments).await;
        assert!(error.contains("address not allowed"), "{arguments:?}: {error}");
    }
    assert_eq!(kubelet.open_streams(), 0);
}

#[tokio::test]
async fn a_kubelet_with_another_ca_is_refused() {
    let server = server().await;
    let other = Server::start_with(&ALONE).await;
    let kubelet = StandInKubelet::start_with_ca(&server, false, &other.folder().join("data/pki")).await;
    kubelet.run_pod(&server, "p").await;
    for arguments in [&["logs", "p"][..], &["exec", "p", "--", "id"]] {
        let error = server.kubectl_fails(arguments).await;
        assert!(error.contains("certificate signed by unknown authority"), "{arguments:?}: {error}");
    }
    // The option of one request.
    let printed = server.kubectl(&["logs", "p", "--insecure-skip-tls-verify-backend"]).await;
    assert_eq!(printed, "parameters: \n");
}

#[tokio::test]
async fn the_end_of_a_side_ends_the_other() {
    for speaks_web_socket in [false, true] {
        let (server, kubelet) = start(speaks_web_socket).await;
        let client = server.kubectl_running(&["exec", "p", "--", "sleep", "1000"]);
        eventually("the command runs", async || kubelet.open_streams() == 1).await;
        drop(client);
        eventually("the command ends", async || kubelet.open_streams() == 0).await;
        let running = ["exec", "p", "--", "sleep", "1000"];
        let (ran, ()) = tokio::join!(server.kubectl_with(&running, "", &[]), async {
            eventually("the command runs", async || kubelet.open_streams() == 1).await;
            kubelet.kill().await;
        });
        assert!(!ran.status.success(), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn open_streams_are_cut_at_shutdown() {
    let mut server = Server::start_with(&[ALONE[0], ALONE[1], LOCAL, "--request-timeout=1s"]).await;
    let kubelet = StandInKubelet::start(&server, false).await;
    kubelet.run_pod(&server, "p").await;
    let _client = server.kubectl_running(&["exec", "p", "--", "sleep", "1000"]);
    eventually("the command runs", async || kubelet.open_streams() == 1).await;
    assert!(tokio::time::timeout(Duration::from_mins(1), server.terminate()).await.unwrap().success());
    eventually("the command ends", async || kubelet.open_streams() == 0).await;
}

#[tokio::test]
async fn a_websocket_needs_the_right_to_create() {
    let (server, _kubelet) = start(false).await;
    server.kubectl(&["create", "role", "reader", "--verb=get", "--resource=pods,pods/exec,pods/log"]).await;
    server.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--user=u"]).await;
    let error = server.kubectl_fails(&["exec", "p", "--as=u", "--", "id"]).await;
    assert!(error.contains("cannot create resource \"pods/exec\""), "{error}");
    server.kubectl(&["logs", "p", "--as=u"]).await;
}
