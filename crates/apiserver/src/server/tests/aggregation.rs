//! Requests for versions of aggregated servers, with servers that misbehave.

use nave_machinery::conditions;
use parking_lot::Mutex;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.a.example";
const VERSION: &str = "/apis/a.example/v1";
const AGGREGATED: (&str, &str) =
    ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

type Answer = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// A server with TLS that answers each connection once.
struct Extension {
    port: u16,
    ca: String,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Extension {
    async fn start() -> Self {
        let issuer = CertificateParams::new([]).map(|mut params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        });
        let issuer = issuer.unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["s.default.svc".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
                )
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let extension = Self {
            port,
            ca: issuer.pem(),
            answer: Arc::new(Mutex::new(Arc::new(discovery))),
            requests: Arc::default(),
        };
        let (answer, requests) = (Arc::clone(&extension.answer), Arc::clone(&extension.requests));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, answer, requests) =
                    (acceptor.clone(), Arc::clone(&answer), Arc::clone(&requests));
                tokio::spawn(async move {
                    let Ok(mut socket) = acceptor.accept(socket).await else { return };
                    let mut request = Vec::new();
                    let mut piece = [0; 4096];
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        match socket.read(&mut piece).await {
                            Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                            _ => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let answer = Arc::clone(&*answer.lock());
                    let response = answer(&request);
                    requests.lock().push(request);
                    let _ = socket.write_all(&response).await;
                    let _ = socket.shutdown().await;
                });
            }
        });
        extension
    }

    fn answer_with(&self, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) {
        *self.answer.lock() = Arc::new(answer);
    }

    /// Returns the requests of clients, without those of this server.
    fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().drain(..).collect::<Vec<_>>();
        requests.into_iter().filter(|request| !request.contains("system:kube-aggregator")).collect()
    }
}

fn response(code: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {code} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

fn json_response(body: &Value) -> Vec<u8> {
    response(200, "Content-Type: application/json\r\n", &body.to_string())
}

/// Answers as a server with the resource `things` does that has no aggregated discovery.
fn discovery(request: &str) -> Vec<u8> {
    let resources =
        json!([{"name": "things", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]}]);
    let list = json!({"kind": "APIResourceList", "groupVersion": "a.example/v1", "resources": resources});
    match request.split(' ').nth(1).unwrap_or_default() {
        "/apis/a.example/v1" => json_response(&list),
        path if path.starts_with("/apis/a.example/v1/") => response(200, "X-A: 1\r\n", "hi"),
        _ => response(404, "", ""),
    }
}

/// Starts a server with an aggregated server, which may be registered later.
async fn fixture() -> (Fixture, Extension) {
    let fixture = Fixture::start(InflightLimits::default(), Duration::from_secs(3)).await;
    let server = fixture.server.clone();
    tokio::spawn(async move { server.run_background_tasks(|| false).await });
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(fixture.send(Method::POST, "/api/v1/namespaces/default/services", &service).await.0, 201);
    (fixture, Extension::start().await)
}

fn api_service(extension: &Extension) -> Value {
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(&extension.ca);
    json!({"metadata": {"name": NAME}, "spec": {
        "group": "a.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
        "service": {"namespace": "default", "name": "s", "port": extension.port}, "caBundle": bundle}})
}

async fn register(fixture: &Fixture, extension: &Extension) {
    assert_eq!(fixture.send(Method::POST, SERVICES, &api_service(extension)).await.0, 201);
    until(async || is_available(fixture).await).await;
}

async fn is_available(fixture: &Fixture) -> bool {
    conditions::is_true(&fixture.get(&format!("{SERVICES}/{NAME}"), &[]).await.1, "Available")
}

/// Waits for a condition.
async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap();
}

async fn text(fixture: &Fixture, uri: &str) -> (u16, String) {
    let answer = fixture.open(&Method::GET, uri, &[], Bytes::new()).await;
    (answer.status().as_u16(), String::from_utf8(bytes_of(answer).await.to_vec()).unwrap())
}

/// Returns the versions of the group in the aggregated document.
async fn discovered(fixture: &Fixture) -> Value {
    let (_, document) = fixture.get("/apis", &[AGGREGATED]).await;
    let groups = document["items"].as_array().unwrap().clone();
    let group = groups.into_iter().find(|group| group["metadata"]["name"] == "a.example");
    group.map_or(Value::Null, |group| group["versions"].clone())
}

#[tokio::test]
async fn a_request_is_passed_on_as_its_user() {
    let (fixture, extension) = fixture().await;
    register(&fixture, &extension).await;
    extension.requests();
    let headers = [
        ("authorization", "Bearer secret"),
        ("x-remote-user", "system:admin"),
        ("x-remote-extra-a", "b"),
        ("x_remote_group", "system:masters"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("accept", "application/json"),
    ];
    let uri = format!("{VERSION}/namespaces/n/things/t?a=%26");
    let answer = fixture.open(&Method::GET, &uri, &headers, Bytes::new()).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-a"]), (200, &"1".parse().unwrap()));
    assert_eq!(bytes_of(answer).await, "hi");
    let requests = extension.requests();
    let request = requests[0].to_ascii_lowercase();
    assert!(
        request.starts_with("get /apis/a.example/v1/namespaces/n/things/t?a=%26 http/1.1\r\n"),
        "{request}"
    );
    for expected in [
        "x-remote-user: system:anonymous\r\n",
        "x-remote-group: system:unauthenticated\r\n",
        "accept: application/json\r\n",
        &format!("host: localhost:{}\r\n", extension.port),
    ] {
        assert!(request.contains(expected), "{expected} in {request}");
    }
    for unexpected in ["secret", "system:admin", "system:masters", "x-remote-extra", "x-hop"] {
        assert!(!request.contains(unexpected), "{unexpected} in {request}");
    }
    for path in ["namespaces/n%2Fsecrets/things", "namespaces/../things", "namespaces//things"] {
        assert_eq!(text(&fixture, &format!("{VERSION}/{path}")).await.0, 404, "{path}");
    }
    assert_eq!(extension.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_cannot_break_the_response() {
    let (fixture, extension) = fixture().await;
    register(&fixture, &extension).await;
    let long = "x".repeat(2 << 20);
    for (answer, code, body) in [
        (
            response(302, "Location: https://169.254.169.254/\r\n", ""),
            502,
            "the backend attempted to redirect",
        ),
        (response(304, "ETag: \"1\"\r\n", ""), 304, ""),
        (response(200, "X: a\0b\r\n", ""), 503, "error trying to reach service"),
        (response(200, &format!("X: {long}\r\n"), ""), 503, "error trying to reach service"),
        (response(200, &"X: 1\r\n".repeat(5000), ""), 503, "error trying to reach service"),
        // A response between the failures keeps the circuit closed.
        (response(404, "", "none"), 404, "none"),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".to_vec(),
            503,
            "error trying to reach service",
        ),
        (b"SSH-2.0-OpenSSH_9\r\n".to_vec(), 503, "error trying to reach service"),
        (Vec::new(), 503, "error trying to reach service"),
    ] {
        extension.answer_with(
            move |request| {
                if request.contains("/things") { answer.clone() } else { discovery(request) }
            },
        );
        let found = text(&fixture, &format!("{VERSION}/things")).await;
        assert!(found.0 == code && found.1.starts_with(body), "{code} {body}: {found:?}");
    }
    let answer = response(200, "Access-Control-Allow-Origin: *\r\nAlt-Svc: h3=\":1\"\r\n", "");
    extension.answer_with(move |_| answer.clone());
    let answer = fixture.open(&Method::GET, &format!("{VERSION}/things"), &[], Bytes::new()).await;
    assert_eq!(answer.status(), 200);
    assert!(
        ["access-control-allow-origin", "alt-svc"].iter().all(|name| !answer.headers().contains_key(*name))
    );
}

#[tokio::test]
async fn requests_fail_at_once_after_failures_until_a_check_passes() {
    let (fixture, extension) = fixture().await;
    register(&fixture, &extension).await;
    // The server passes its checks until five requests have failed.
    let failures = std::sync::atomic::AtomicUsize::new(0);
    extension.answer_with(move |request| {
        let added = usize::from(request.contains("/things"));
        let before = failures.fetch_add(added, std::sync::atomic::Ordering::Relaxed);
        if before + added >= 5 || added == 1 { b"SSH-2.0-OpenSSH_9\r\n".to_vec() } else { discovery(request) }
    });
    extension.requests();
    let things = format!("{VERSION}/things");
    for _ in 0..5 {
        assert!(text(&fixture, &things).await.1.starts_with("error trying to reach service"));
    }
    for _ in 0..5 {
        assert_eq!(text(&fixture, &things).await, (503, "service unavailable\n".to_owned()));
    }
    let requests = extension.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/things")).count(), 5);
    // The failures led to a check, long before the next regular one.
    until(async || !is_available(&fixture).await).await;
    extension.answer_with(discovery);
    until(async || is_available(&fixture).await).await;
    until(async || text(&fixture, &things).await.0 == 200).await;
}

#[tokio::test]
async fn discovery_has_the_resources_and_keeps_them_while_the_server_is_down() {
    let (fixture, extension) = fixture().await;
    register(&fixture, &extension).await;
    until(async || discovered(&fixture).await[0]["freshness"] == "Current").await;
    let versions = discovered(&fixture).await;
    assert_eq!(versions[0]["resources"][0]["resource"], "things");
    let group = fixture.get("/apis/a.example", &[]).await.1;
    assert_eq!(group["preferredVersion"]["groupVersion"], "a.example/v1");
    let groups = fixture.get("/apis", &[]).await.1;
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "a.example");
    assert_eq!(fixture.get(VERSION, &[]).await.1["resources"][0]["name"], "things");
    let paths = fixture.get("/", &[]).await.1;
    assert!(paths["paths"].as_array().unwrap().contains(&json!(VERSION)));

    extension.answer_with(|_| response(503, "", ""));
    // A change of the APIService leads to a check at once.
    let touch = |value: &str| json!({"metadata": {"annotations": {"touched": value}}});
    fixture.send(Method::PATCH, &format!("{SERVICES}/{NAME}"), &touch("1")).await;
    until(async || !is_available(&fixture).await).await;
    until(async || discovered(&fixture).await[0]["freshness"] == "Stale").await;
    assert_eq!(discovered(&fixture).await[0]["resources"], versions[0]["resources"]);
    assert_eq!(text(&fixture, &format!("{VERSION}/things")).await, (503, "service unavailable\n".to_owned()));
    let status = fixture.get(&format!("{SERVICES}/{NAME}"), &[]).await.1;
    let condition = &status["status"]["conditions"][0];
    assert_eq!(condition["reason"], "FailedDiscoveryCheck");
    let url = format!("https://localhost:{}{VERSION}", extension.port);
    let message = format!("failing or missing response from {url}: bad status from {url}: 503");
    assert_eq!(condition["message"], message);
    assert!(
        fixture.metrics(&[]).await.contains("aggregator_unavailable_apiservice{name=\"v1.a.example\"} 1")
    );

    extension.answer_with(discovery);
    fixture.send(Method::PATCH, &format!("{SERVICES}/{NAME}"), &touch("2")).await;
    until(async || is_available(&fixture).await).await;
    until(async || discovered(&fixture).await == versions).await;
    assert_eq!(fixture.send(Method::DELETE, &format!("{SERVICES}/{NAME}"), &Value::Null).await.0, 200);
    until(async || discovered(&fixture).await.is_null()).await;
    assert_eq!(text(&fixture, &format!("{VERSION}/things")).await.0, 404);
}

#[tokio::test]
async fn a_server_describes_only_its_own_version() {
    let (fixture, extension) = fixture().await;
    let things = json!([{"resource": "things", "responseKind": {"kind": "Thing"}, "scope": "Cluster", "verbs": ["get"]}]);
    let group = |name: &str| json!({"metadata": {"name": name}, "versions": [{"version": "v1", "resources": things, "freshness": "Current"}]});
    let document = json!({"kind": "APIGroupDiscoveryList", "items": [group("apps"), group("b.example"), group("a.example")]});
    let media_type = "Content-Type: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\r\n";
    let document = response(200, media_type, &document.to_string());
    extension.answer_with(move |request| {
        if request.starts_with("GET /apis ") { document.clone() } else { discovery(request) }
    });
    register(&fixture, &extension).await;
    until(async || discovered(&fixture).await[0]["freshness"] == "Current").await;
    assert_eq!(discovered(&fixture).await[0]["resources"][0]["scope"], "Cluster");
    let document = fixture.get("/apis", &[AGGREGATED]).await.1.to_string();
    assert!(!document.contains("b.example"));
    let apps = fixture.get("/apis/apps/v1", &[]).await.1.to_string();
    assert!(apps.contains("deployments") && !apps.contains("things"));
    // A document without an end, and one that never comes.
    extension.answer_with(|request| match request.split(' ').nth(1) {
        Some("/apis") => response(
            200,
            "Content-Type: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\r\n",
            &"[".repeat(9 << 20),
        ),
        _ => discovery(request),
    });
    fixture
        .send(Method::PATCH, &format!("{SERVICES}/{NAME}"), &json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    until(async || discovered(&fixture).await[0]["freshness"] == "Stale").await;
}

#[tokio::test]
async fn a_server_with_openapi_2_only_has_a_converted_document() {
    let (fixture, extension) = fixture().await;
    let get = json!({"responses": {"200": {"description": "OK", "schema": {"type": "string"}}}});
    let document = json!({"swagger": "2.0", "paths": {"/apis/a.example/v1/things": {"get": get}}});
    extension.answer_with(move |request| {
        if request.starts_with("GET /openapi/v2 ") { json_response(&document) } else { discovery(request) }
    });
    register(&fixture, &extension).await;
    let path = "apis/a.example/v1";
    let listed = async || fixture.get("/openapi/v3", &[]).await.1["paths"][path]["serverRelativeURL"].clone();
    until(async || listed().await.is_string()).await;
    let url = listed().await.as_str().unwrap().to_owned();
    assert!(url.starts_with("/openapi/v3/apis/a.example/v1?hash="), "{url}");
    let (code, found) = fixture.get(&url, &[]).await;
    let response = &found["paths"]["/apis/a.example/v1/things"]["get"]["responses"]["200"];
    assert_eq!(code, 200);
    assert_eq!(response["content"]["application/json"]["schema"]["type"], "string", "{found}");
    assert_eq!(found["openapi"], "3.0.0");
}

#[tokio::test]
async fn a_server_with_another_certificate_is_not_used() {
    let (fixture, extension) = fixture().await;
    let other = Extension { ca: Extension::start().await.ca, ..extension };
    assert_eq!(fixture.send(Method::POST, SERVICES, &api_service(&other)).await.0, 201);
    let message = async || {
        let status = fixture.get(&format!("{SERVICES}/{NAME}"), &[]).await.1;
        status["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned()
    };
    until(async || !message().await.is_empty()).await;
    let found = message().await;
    assert!(found.ends_with("x509: certificate signed by unknown authority"), "{found}");
    assert_eq!(other.requests.lock().len(), 0);
    let own = json!({"metadata": {"name": "v1.loop.example"}, "spec": {
        "group": "loop.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
        "service": {"namespace": "default", "name": "kubernetes"}, "insecureSkipTLSVerify": true}});
    assert_eq!(fixture.send(Method::POST, SERVICES, &own).await.0, 201);
    until(async || {
        let status = fixture.get(&format!("{SERVICES}/v1.loop.example"), &[]).await.1;
        status["status"]["conditions"][0]["status"] == "False"
    })
    .await;
}

#[tokio::test]
async fn a_slow_server_costs_its_own_requests_only() {
    let (fixture, extension) = fixture().await;
    register(&fixture, &extension).await;
    // The head of a response without its body.
    extension.answer_with(|request| {
        if request.contains("/things") {
            std::thread::sleep(Duration::from_millis(10));
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi".to_vec()
        } else {
            discovery(request)
        }
    });
    let answer = fixture.open(&Method::GET, &format!("{VERSION}/things"), &[], Bytes::new()).await;
    assert_eq!(answer.status(), 200);
    assert!(
        answer.into_body().collect().await.is_err(),
        "an incomplete body is not taken for a complete one"
    );
    assert_eq!(fixture.get("/api/v1/namespaces", &[]).await.0, 200);
}
