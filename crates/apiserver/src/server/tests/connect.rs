//! Requests that are passed on to pods and services, with backends that misbehave.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Serves the same bytes for each connection, after the head of a request. Returns the port and the requests.
async fn backend(response: &'static [u8]) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match socket.read(&mut piece).await {
                    Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            let _ = seen.send(String::from_utf8(request).unwrap());
            let _ = socket.write_all(response).await;
            let _ = socket.shutdown().await;
        }
    });
    (port, requests)
}

/// Creates a pod with an address.
async fn pod(fixture: &Fixture, name: &str, address: &str) {
    let pod =
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    assert_eq!(fixture.send(Method::POST, PODS, &pod).await.0, 201);
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    assert_eq!(fixture.send(Method::PATCH, &format!("{PODS}/{name}/status"), &status).await.0, 200);
}

/// Starts a server with the pod `p`, whose address is this machine's.
async fn fixture() -> Fixture {
    let fixture = Fixture::start(InflightLimits::default(), LONG).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(fixture.send(Method::POST, accounts, &account).await.0, 201);
    pod(&fixture, "p", "127.0.0.1").await;
    fixture
}

#[tokio::test]
async fn a_request_is_passed_on_without_credentials() {
    let fixture = fixture().await;
    let (port, mut requests) = backend(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\nX-A: 1\r\n\r\nhi",
    )
    .await;
    let path = format!("{PODS}/p:{port}/proxy/a/../b%20c?x=%26&y");
    let headers =
        [("authorization", "Bearer secret"), ("x-remote-user", "admin"), ("cookie", "c=1"), ("host", "api")];
    let response = fixture.open(&Method::PUT, &path, &headers, Bytes::from_static(b"")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-a"], "1");
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert_eq!(bytes_of(response).await, "hi");
    let request = requests.recv().await.unwrap();
    let lower = request.to_ascii_lowercase();
    assert!(request.starts_with("PUT /b%20c?x=%26&y HTTP/1.1\r\n"), "{request}");
    assert!(lower.contains("cookie: c=1") && lower.contains("host: api"), "{request}");
    assert!(!lower.contains("secret") && !lower.contains("x-remote-user"), "{request}");
}

#[tokio::test]
async fn a_backend_cannot_break_the_response() {
    let fixture = fixture().await;
    for (response, code) in [
        (&b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"[..], 503),
        (b"SSH-2.0-OpenSSH_9\r\n", 503),
        (b"", 503),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", 503),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 503),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
    ] {
        let (port, _requests) = backend(response).await;
        let path = format!("{PODS}/p:{port}/proxy/");
        let answer = fixture.open(&Method::GET, &path, &[], Bytes::new()).await;
        assert_eq!(answer.status(), code, "{}", String::from_utf8_lossy(response));
    }
    let huge: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2 << 20)).into_bytes().into_boxed_slice(),
    );
    let (port, _requests) = backend(huge).await;
    let answer = fixture.open(&Method::GET, &format!("{PODS}/p:{port}/proxy/"), &[], Bytes::new()).await;
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn backends_that_do_not_answer_do_not_use_up_the_connections() {
    let fixture = fixture().await;
    pod(&fixture, "other", "127.0.0.2").await;
    let (port, mut requests) = backend(b"").await;
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = |pod: &str, port: u16| format!("{PODS}/{pod}:{port}/proxy/");
    let hangs = uri("p", hanging.local_addr().unwrap().port());
    let mut waiting = Vec::new();
    let mut accepted = Vec::new();
    // Alone, a host gets two thirds.
    for _ in 0..BACKEND_CONNECTIONS * 2 / 3 {
        let mut request = Box::pin(fixture.open(&Method::GET, &hangs, &[], Bytes::new()));
        tokio::select! {
            _ = &mut request => panic!("the backend does not answer"),
            connection = hanging.accept() => accepted.push(connection.unwrap().0),
        }
        waiting.push(request);
    }
    // Another port is of the same host.
    for path in [&hangs, &uri("p", port)] {
        let refused = fixture.open(&Method::GET, path, &[], Bytes::new()).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
    }
    // The user has its share too.
    let answer = fixture.open(&Method::GET, &uri("other", 1), &[], Bytes::new()).await;
    assert_eq!(answer.status(), 429);
    let other_user = [("impersonate-user", "other")];
    let answer = fixture.open(&Method::GET, &uri("other", 1), &other_user, Bytes::new()).await;
    assert_eq!(answer.status(), 503, "another host is tried");
    // A client that goes gives its place back.
    drop(waiting.pop());
    let answer = fixture.open(&Method::GET, &uri("p", port), &[], Bytes::new()).await;
    assert_eq!(answer.status(), 503);
    assert!(requests.recv().await.is_some());
}

#[tokio::test]
async fn the_backend_learns_the_path_below_the_proxy() {
    let fixture = fixture().await;
    let (port, mut requests) =
        backend(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n").await;
    let prefix = format!("{PODS}/p:{port}/proxy");
    for (rest, target) in
        [("a/b", "/a/b"), ("a//b/", "/a/b/"), ("x/../a%20b", "/a%20b"), ("../", "/"), ("/", "/")]
    {
        let response = fixture.open(&Method::GET, &format!("{prefix}/{rest}"), &[], Bytes::new()).await;
        assert_eq!(response.headers()["location"], format!("{prefix}/login").as_str(), "{rest}");
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{rest}: {request}");
        assert!(request.contains(&format!("x-forwarded-uri: {prefix}{target}\r\n")), "{rest}: {request}");
    }
}

#[tokio::test]
async fn a_service_leads_to_the_addresses_of_its_pods_only() {
    let fixture = fixture().await;
    // An address of documentation (RFC 5737), where nothing answers. Endpoints cannot have addresses of this machine.
    pod(&fixture, "q", "192.0.2.1").await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    assert_eq!(fixture.send(Method::POST, "/api/v1/namespaces/default/services", &service).await.0, 201);
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let target = |name: &str, namespace: &str| json!({"kind": "Pod", "name": name, "namespace": namespace});
    let (reached, refused) = ("error trying to reach service", "no endpoints available for service");
    for (index, (address, answer)) in [
        (json!({"ip": "192.0.2.1", "targetRef": target("q", "default")}), reached),
        (json!({"ip": "192.0.2.1"}), refused),
        (json!({"ip": "192.0.2.1", "targetRef": target("q", "other")}), refused),
        (json!({"ip": "192.0.2.1", "targetRef": target("none", "default")}), refused),
        (json!({"ip": "192.0.2.2", "targetRef": target("q", "default")}), refused),
    ]
    .into_iter()
    .enumerate()
    {
        let object = json!({"metadata": {"name": "s"},
            "subsets": [{"addresses": [address], "ports": [{"name": "web", "port": 80}]}]});
        let (method, uri) = match index {
            0 => (Method::POST, endpoints.to_owned()),
            _ => (Method::PUT, format!("{endpoints}/s")),
        };
        let (written, written_object) = fixture.send(method, &uri, &object).await;
        assert!(written < 300, "{written_object}");
        for name in ["s:web", "s:80", "http:s:80"] {
            let path = format!("/api/v1/namespaces/default/services/{name}/proxy/");
            let (code, status) = fixture.get(&path, &[]).await;
            let message = status["message"].as_str().unwrap_or_default();
            assert!(code == 503 && message.starts_with(answer), "{name}: {object}: {message}");
        }
    }
    for (name, message) in [
        ("s:81", "no service port 81 found for service \"s\""),
        ("s:none", "no endpoints available for service \"s:none\""),
        ("ftp:s:80", "invalid service request \"ftp:s:80\""),
        ("none:web", "services \"none\" not found"),
    ] {
        let path = format!("/api/v1/namespaces/default/services/{name}/proxy/");
        let (_, status) = fixture.get(&path, &[]).await;
        assert_eq!(status["message"], message, "{name}");
    }
}

#[tokio::test]
async fn a_large_body_is_streamed_to_the_backend() {
    let fixture = fixture().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let length: usize = 20 << 20;
    let counted = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut total, mut piece) = (0, vec![0; 64 << 10]);
        while total < length {
            total += socket.read(&mut piece).await.unwrap();
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        total
    });
    let body = Bytes::from(vec![b'x'; length]);
    let content_length = length.to_string();
    let headers = [("content-length", content_length.as_str())];
    let path = format!("{PODS}/p:{port}/proxy/upload");
    let response = fixture.open(&Method::POST, &path, &headers, body).await;
    assert_eq!(response.status(), 200);
    assert!(counted.await.unwrap() >= length);
}

#[tokio::test]
async fn requests_that_cannot_be_passed_on_say_why() {
    let fixture = fixture().await;
    for (method, path, code, message) in [
        (Method::POST, format!("{PODS}/p/exec?command=id"), 400, "pod p does not have a host assigned"),
        (Method::GET, format!("{PODS}/p/attach?container=x"), 400, "container x is not valid for pod p"),
        (Method::POST, format!("{PODS}/none/portforward"), 404, "pods \"none\" not found"),
        (
            Method::GET,
            format!("{PODS}/p/portforward?ports=x"),
            400,
            "cannot convert to []int32: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (Method::GET, "/api/v1/nodes/none/proxy/".to_owned(), 404, "nodes \"none\" not found"),
        (Method::GET, format!("{PODS}/a:b:c:d/proxy/"), 400, "invalid pod request \"a:b:c:d\""),
        (
            Method::DELETE,
            format!("{PODS}/p/exec"),
            405,
            "the server does not allow this method on the requested resource",
        ),
    ] {
        let (answered, status) = fixture.send(method, &path, &json!({})).await;
        assert_eq!((answered, &status["message"]), (code, &json!(message)), "{path}");
    }
    // A pod without a node has no log.
    let response = fixture.open(&Method::GET, &format!("{PODS}/p/log"), &[], Bytes::new()).await;
    assert_eq!(response.status(), 204);
    // A proxied path without a trailing slash is redirected to one.
    let response = fixture.open(&Method::GET, &format!("{PODS}/p/proxy?x=1"), &[], Bytes::new()).await;
    assert_eq!(response.status(), 301);
    assert_eq!(response.headers()["location"], format!("{PODS}/p/proxy/?x=1").as_str());
}
