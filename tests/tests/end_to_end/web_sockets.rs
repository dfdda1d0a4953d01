//! Watches over WebSocket with a common client: Python's `websocket-client`.

use nave_tests::Server;

/// Defines `connect(path, protocols, headers)`, which returns a WebSocket with the administrator's certificate.
const PRELUDE: &str = r#"
import base64, json, os, socket, ssl, tempfile, threading, yaml
import websocket
kubeconfig = yaml.safe_load(open(os.environ["KUBECONFIG"]))
cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
def file(data):
    with tempfile.NamedTemporaryFile(delete=False) as out:
        out.write(base64.b64decode(data))
    return out.name
context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
anonymous = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
context.load_cert_chain(file(user["client-certificate-data"]), file(user["client-key-data"]))
def connect(path, protocols=None, context=context, **more):
    url = cluster["server"].replace("https", "wss") + path
    return websocket.create_connection(url, subprotocols=protocols, sslopt={"context": context}, timeout=60, **more)
def refused(path, **more):
    try:
        connect(path, **more)
    except websocket.WebSocketBadStatusException as error:
        return error
    raise AssertionError(path)
maps = "/api/v1/namespaces/default/configmaps?watch=true"
"#;

fn script(body: &str) -> String {
    format!("{PRELUDE}\n{body}")
}

#[tokio::test]
async fn events_are_messages_until_the_watch_times_out() {
    let server = Server::start_without_controllers().await;
    server.kubectl(&["create", "configmap", "one", "--from-literal=a=1"]).await;
    let printed = server
        .python(&script(
            r#"
ws = connect(maps + "&timeoutSeconds=2&fieldSelector=metadata.name=one")
opcode, data = ws.recv_data()
event = json.loads(data)
print(opcode, event["type"], event["object"]["data"]["a"], data.endswith(b"\n"))
ws.ping("are you there")
print(*ws.recv_data(control_frame=True))
opcode, data = ws.recv_data(control_frame=True)
print(opcode, int.from_bytes(data[:2], "big"))
ws = connect("/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name=one",
    header=["Accept: application/vnd.kubernetes.protobuf"])
opcode, data = ws.recv_data()
print(opcode, data[:7], b"k8s\0" in data)
"#,
        ))
        .await;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        ["1 ADDED 1 True", "10 b'are you there'", "8 1000", "2 b'\\n\\x05ADDED' True"],
        "{printed}"
    );
}

#[tokio::test]
async fn a_browser_brings_its_token_as_a_subprotocol() {
    let server = Server::start().await;
    server.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]).await;
    let rights =
        ["create", "clusterrolebinding", "view", "--clusterrole=view", "--serviceaccount=default:default"];
    server.kubectl(&rights).await;
    let token = server.kubectl(&["create", "token", "default"]).await;
    let printed = server
        .python_with(
            &script(
                r#"
token = os.environ["TOKEN"].strip()
bearer = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
def browser(protocols, **more):
    return connect(maps, protocols, context=anonymous, origin="https://dashboard.example.com", **more)
ws = browser([bearer, "base64.binary.k8s.io"])
print(ws.getsubprotocol(), json.loads(ws.recv())["type"])
for protocols in (["base64.binary.k8s.io"], [bearer], [bearer, bearer, "binary.k8s.io"], [bearer[:-4], "binary.k8s.io"]):
    try:
        browser(protocols)
    except websocket.WebSocketBadStatusException as error:
        print(error.status_code)
"#,
            ),
            &[("TOKEN", &token)],
        )
        .await;
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["base64.binary.k8s.io ADDED", "403", "401", "401", "401"],
        "{printed}"
    );
    assert!(!server.log().contains(token.trim()), "a token is in the log");
}

#[tokio::test]
async fn bad_handshakes_are_refused_and_other_requests_are_not_upgraded() {
    let server = Server::start_without_controllers().await;
    let printed = server
        .python(&script(
            r#"
error = refused(maps, header={"Sec-WebSocket-Version": "8"})
print(error.status_code, error.resp_headers.get("sec-websocket-version"))
print(refused(maps, origin="null").status_code)
print(refused(maps, header={"Sec-WebSocket-Key": "short"}).status_code)
print(refused(maps + "&fieldSelector=nonsense=1").status_code)
print(refused(maps, header=["Accept: text/html"]).status_code)
print(refused("/api/v1/namespaces/default/configmaps").status_code)
print(refused("/api/v1/nothing?watch=true").status_code)
"#,
        ))
        .await;
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["400 13", "403", "400", "400", "406", "200", "404"],
        "{printed}"
    );
}

#[tokio::test]
async fn sockets_are_counted_and_closed_when_the_server_stops() {
    let mut server = Server::start_without_controllers().await;
    let counted = r#"apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"}"#;
    let ready = server.folder().join("ready");
    let watching = {
        let body = format!(
            r#"
ws = connect(maps)
open({:?}, "w").close()
while True:
    opcode, data = ws.recv_data(control_frame=True)
    if opcode == 8:
        print("closed", int.from_bytes(data[:2], "big"))
        break
"#,
            ready.to_string_lossy()
        );
        server.python_running(&script(&body))
    };
    nave_tests::eventually("the socket is open", async || ready.exists()).await;
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
    assert!(metrics.contains(&format!("{counted} 1")), "{metrics}");
    assert!(server.terminate().await.success());
    let mut watching = watching;
    assert_eq!(watching.line().await, "closed 1000");
}
