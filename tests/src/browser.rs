//! A headless Chromium, driven through ChromeDriver (<https://www.w3.org/TR/webdriver2/>).

use std::process::Stdio;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{DEADLINE, needed, ok};

/// A browser with an empty profile and one window. It accepts every server certificate.
pub struct Browser {
    port: u16,
    session: String,
    /// Process ID of Chromium, which does not end with its driver.
    chromium: u64,
    _driver: Child,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = std::process::Command::new("kill").args(["-9", &self.chromium.to_string()]).status();
    }
}

impl Browser {
    /// Starts the driver and the browser.
    pub async fn start() -> Self {
        let profile = ok(tempfile::tempdir(), "a temporary folder");
        let mut command = Command::new(needed("NAVE_CHROMEDRIVER"));
        command.arg("--port=0").env("HOME", profile.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = ok(command.spawn(), "ChromeDriver");
        let Some(stdout) = driver.stdout.take() else { panic!("ChromeDriver's output is not read") };
        let mut lines = BufReader::new(stdout).lines();
        let port = loop {
            let line = ok(tokio::time::timeout(DEADLINE, lines.next_line()).await, "ChromeDriver's port");
            let Some(line) = ok(line, "ChromeDriver's port") else { panic!("ChromeDriver ended") };
            // An earlier line names port 0, as requested.
            let port = line.split_once("successfully on port ");
            if let Some(port) = port.and_then(|(_, rest)| rest.trim_end_matches('.').parse().ok()) {
                break port;
            }
        };
        // The driver must be able to write more lines.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut arguments: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().join("chromium").display()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = command_at(port, "/session", &capabilities).await;
        let chromium = session["capabilities"]["goog:processID"].as_u64();
        let (Some(id), Some(chromium)) = (session["sessionId"].as_str(), chromium) else {
            panic!("no session: {session}")
        };
        Self { port, session: id.to_owned(), chromium, _driver: driver, _profile: profile }
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.in_session("/url", &json!({"url": url})).await;
    }

    /// Runs the body of a function in the page and returns its result.
    pub async fn script(&self, body: &str) -> Value {
        self.in_session("/execute/sync", &json!({"script": body, "args": []})).await
    }

    /// Types text into the element that a CSS selector names.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.in_session(&format!("/element/{element}/value"), &json!({"text": text})).await;
    }

    /// Clicks on the element that a CSS selector names.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.in_session(&format!("/element/{element}/click"), &json!({})).await;
    }

    /// Returns the messages of the console since the last call, such as violations of the page's policy.
    pub async fn messages(&self) -> Vec<String> {
        let log = self.in_session("/se/log", &json!({"type": "browser"})).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }

    /// Returns the reference of an element.
    async fn element(&self, selector: &str) -> String {
        let query = json!({"using": "css selector", "value": selector});
        let element = self.in_session("/element", &query).await;
        let reference = element.as_object().and_then(|element| element.values().next()?.as_str());
        reference.unwrap_or_else(|| panic!("{selector} is not an element: {element}")).to_owned()
    }

    async fn in_session(&self, path: &str, body: &Value) -> Value {
        command_at(self.port, &format!("/session/{}{path}", self.session), body).await
    }
}

/// Sends a command to the driver and returns its result.
async fn command_at(port: u16, path: &str, body: &Value) -> Value {
    let response = ok(tokio::time::timeout(DEADLINE, exchange(port, path, body)).await, path);
    let mut response: Value = ok(serde_json::from_slice(&response), path);
    assert!(response["value"]["error"].is_null(), "{path}: {response}");
    response["value"].take()
}

async fn exchange(port: u16, path: &str, body: &Value) -> Bytes {
    let stream = ok(TcpStream::connect(("127.0.0.1", port)).await, "ChromeDriver");
    let (mut sender, connection) = ok(http1::handshake(TokioIo::new(stream)).await, "ChromeDriver");
    tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, format!("127.0.0.1:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())));
    let response = ok(sender.send_request(ok(request, path)).await, path);
    ok(response.into_body().collect().await, path).to_bytes()
}

/// Flags for a machine without a display, without connections to anything but the page, also as root.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
