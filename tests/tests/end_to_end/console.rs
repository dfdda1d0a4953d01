//! The console in headless Chromium: signing in, rights, and the numbers of the page beside those of `/metrics`.
#![expect(clippy::float_cmp, reason = "counts are exact")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nave_tests::browser::Browser;
use nave_tests::{Server, eventually};

const TOKENS: &str = "tok-admin,admin,u1,\"system:masters\"\ntok-bob,bob,u2\n";

async fn start() -> Server {
    start_with(|_| Vec::new()).await
}

/// Starts a server that records all requests in its audit log.
async fn start_auditing() -> Server {
    start_with(|folder| {
        let policy = folder.join("policy.yaml");
        let rules = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: RequestResponse}]}";
        std::fs::write(&policy, rules).unwrap();
        vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", folder.join("audit.log").display()),
        ]
    })
    .await
}

/// Starts a server with the flags that depend on its folder.
async fn start_with(flags: impl FnOnce(&Path) -> Vec<String>) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, TOKENS).unwrap();
    std::fs::set_permissions(&tokens, PermissionsExt::from_mode(0o600)).unwrap();
    let flag = format!("--token-auth-file={}", tokens.display());
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--controllers=none", &flag]).collect();
    Server::start_in(folder, &flags).await
}

/// Returns the text of an element; empty if it does not exist.
async fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector('{selector}')?.textContent ?? ''");
    browser.script(&script).await.as_str().unwrap_or_default().to_owned()
}

/// Waits until an element contains a text.
async fn shows(browser: &Browser, selector: &str, expected: &str) {
    eventually(&format!("{selector} shows {expected}"), async || {
        text(browser, selector).await.contains(expected)
    })
    .await;
}

async fn sign_in(browser: &Browser, token: &str) {
    browser.write("#token", token).await;
    browser.click("#sign-in button").await;
}

/// Returns the exact number behind a cell of a table.
async fn cell(browser: &Browser, table: &str, row: &str, column: &str) -> f64 {
    let selector = format!("#{table} tr[data-row=\"{row}\"] [data-column={column}]");
    let script = format!("return document.querySelector('{selector}')?.dataset.value ?? ''");
    browser.script(&script).await.as_str().unwrap_or_default().parse().unwrap_or(-1.0)
}

/// Returns the sum of the series of a metric whose line contains a text.
async fn metric(server: &Server, name: &str, labels: &str) -> f64 {
    let text = server.kubectl(&["get", "--raw", "/metrics"]).await;
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn the_page_shows_the_numbers_of_the_metrics() {
    let (server, browser) = (start().await, Browser::start().await);
    browser.open(&format!("{}/console", server.url())).await;
    shows(&browser, "#status", "Signed out").await;
    sign_in(&browser, "tok-admin").await;
    shows(&browser, "#status", "Live").await;
    for number in 0..7 {
        server.kubectl(&["create", "configmap", &format!("m{number}")]).await;
    }
    server.kubectl(&["delete", "configmap", "m0", "m1"]).await;
    for verb in ["POST", "DELETE"] {
        eventually(&format!("the page and /metrics agree about {verb}"), async || {
            let expected = metric(&server, "apiserver_request_total", &format!("verb=\"{verb}\"")).await;
            expected > 0.0 && cell(&browser, "verbs", verb, "total").await == expected
        })
        .await;
    }
    eventually("the page and /metrics agree about a watch cache", async || {
        let labels = "group=\"\",resource=\"configmaps\"";
        let objects = metric(&server, "apiserver_resource_objects", labels).await;
        let bytes = metric(&server, "apiserver_resource_size_estimate_bytes", labels).await;
        objects >= 5.0
            && cell(&browser, "caches", "configmaps.", "objects").await == objects
            && cell(&browser, "caches", "configmaps.", "bytes").await == bytes
    })
    .await;
    eventually("the administrator's requests are shown", async || {
        cell(&browser, "clients", "nave-admin", "requests").await >= 10.0
    })
    .await;
    // The numbers that people see are those numbers.
    let objects = metric(&server, "apiserver_resource_objects", "group=\"\",resource=\"configmaps\"").await;
    let shown = text(&browser, "#caches tr[data-row=\"configmaps.\"] [data-column=objects]").await;
    assert_eq!(shown, objects.to_string());
    let state = "return [document.cookie, localStorage.length, sessionStorage.length, location.search, \
        document.getElementById('token').value]";
    assert_eq!(browser.script(state).await, serde_json::json!(["", 0, 0, "", ""]), "no token is kept");
    let messages = browser.messages().await;
    let unexpected: Vec<_> = messages
        .iter()
        .filter(|message| {
            let refused = ["/console/stream", "/console/audit"];
            !refused.iter().any(|path| message.contains(&format!("{path} - Failed to load resource")))
        })
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    browser.click("#forget").await;
    shows(&browser, "#status", "Signed out").await;
}

#[tokio::test]
async fn audit_events_have_a_right_of_their_own_and_no_bodies() {
    let (server, browser) = (start_auditing().await, Browser::start().await);
    server
        .kubectl(&["create", "clusterrole", "viewer", "--verb=get", "--non-resource-url=/console/stream"])
        .await;
    server.kubectl(&["create", "clusterrolebinding", "viewer", "--clusterrole=viewer", "--user=bob"]).await;
    browser.open(&format!("{}/console/", server.url())).await;
    shows(&browser, "#status", "Signed out").await;
    sign_in(&browser, "tok-admin").await;
    shows(&browser, "#queues", "No request waits or executes in a queue.").await;
    eventually("an event is shown", async || {
        let arguments =
            ["create", "secret", "generic", "hidden", "--from-literal=word=unseen", "--dry-run=server"];
        server.kubectl(&arguments).await;
        text(&browser, "#events").await.contains("/api/v1/namespaces/default/secrets")
    })
    .await;
    let events = server.kubectl(&["get", "--raw", "/console/audit"]).await;
    assert!(events.contains("\"level\":\"RequestResponse\""), "{events}");
    assert!(
        !events.contains("unseen") && !events.contains("dW5zZWVu") && !events.contains("dryRun"),
        "{events}"
    );
    browser.click("#forget").await;
    sign_in(&browser, "tok-bob").await;
    shows(&browser, "#status", "Live").await;
    shows(&browser, "#events", "This user may not read audit events.").await;
    server.kubectl_fails(&["get", "--raw", "/console/audit", "--as=bob"]).await;
}

#[tokio::test]
async fn the_page_says_why_it_shows_nothing() {
    let (mut server, browser) = (start().await, Browser::start().await);
    browser.open(&format!("{}/console/", server.url())).await;
    shows(&browser, "#status", "Signed out").await;
    sign_in(&browser, "wrong").await;
    shows(&browser, "#gate-reason", "does not accept this token").await;
    sign_in(&browser, "tok-bob").await;
    shows(&browser, "#gate-reason", "\"bob\" cannot get path \"/console/stream\"").await;
    server.kubectl(&["create", "clusterrole", "viewer", "--verb=get", "--non-resource-url=/console/*"]).await;
    server.kubectl(&["create", "clusterrolebinding", "viewer", "--clusterrole=viewer", "--user=bob"]).await;
    eventually("bob has the right", async || {
        let question = ["auth", "can-i", "get", "/console/stream", "--as=bob"];
        server.kubectl_with(&question, "", &[]).await.status.success()
    })
    .await;
    sign_in(&browser, "tok-bob").await;
    shows(&browser, "#status", "Live").await;
    server.terminate().await;
    shows(&browser, "#status", "retrying").await;
}

#[tokio::test]
async fn a_server_without_the_console_serves_none_of_it() {
    let server = Server::start_with(&["--controllers=none", "--console=false"]).await;
    for path in ["/console", "/console/", "/console/main.js", "/console/stream"] {
        let error = server.kubectl_fails(&["get", "--raw", path]).await;
        assert!(error.contains("NotFound") || error.contains("not find"), "{path}: {error}");
    }
    assert!(!server.kubectl(&["get", "--raw", "/"]).await.contains("console"));
}
