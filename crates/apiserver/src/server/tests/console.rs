//! The console of a whole server.

use std::pin::pin;

use super::*;

/// Returns the next snapshot of a stream, while the sampler runs.
async fn next(response: &mut Response<ResponseBody>) -> Value {
    let mut data = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let event = data.copy_to_bytes(data.remaining());
    serde_json::from_slice(event.strip_prefix(b"event: snapshot\ndata: ").unwrap()).unwrap()
}

#[tokio::test]
async fn a_snapshot_has_the_numbers_of_the_server() {
    let fixture = Fixture::start(InflightLimits::default(), LONG).await;
    let mut background = pin!(fixture.server.run_background_tasks(|| false));
    let looks = async {
        let mut stream = fixture.open(&Method::GET, "/console/stream", &[], Bytes::new()).await;
        let first = next(&mut stream).await;
        assert_eq!(first["requests"]["perSecond"], Value::Null, "one sample has no rates");
        for number in 0..5 {
            assert_eq!(fixture.send(Method::POST, MAPS, &map(&format!("m{number}"), 100)).await.0, 201);
        }
        let snapshot = loop {
            let snapshot = next(&mut stream).await;
            if snapshot["clients"][0]["requests"] == 5 {
                break snapshot;
            }
        };
        let row = |list: &str, key: &str, name: &str| {
            let rows = if list == "caches" { &snapshot[list]["shown"] } else { &snapshot[list] };
            let row = rows.as_array().unwrap().iter().find(|row| row[key] == name);
            row.unwrap_or_else(|| panic!("no {name} in {rows}")).clone()
        };
        let posts = row("verbs", "verb", "POST");
        assert_eq!(posts["total"], 5);
        assert!(posts["p99"].as_f64().unwrap() > 0.0, "{posts}");
        assert!(row("caches", "resource", "configmaps")["objects"].as_u64().unwrap() >= 5);
        let client = row("clients", "user", "system:anonymous");
        assert_eq!((&client["requests"], &client["failures"]), (&json!(5), &json!(0)));
        assert!(snapshot["store"]["revision"].as_u64().unwrap() >= 5);
        assert!(snapshot["store"]["commits"].as_u64().unwrap() >= 1);
        assert_eq!(snapshot["webhooks"], Value::Null, "what is not there is absent");
        assert!(snapshot["requests"]["longRunning"].as_u64().unwrap() >= 1, "the stream itself");
    };
    tokio::select! {
        () = looks => {}
        never = &mut background => match never {},
    }
}

#[tokio::test]
async fn files_need_no_credentials_and_the_stream_does() {
    let fixture = Fixture::start(InflightLimits::default(), LONG).await;
    // Credentials are not even looked at.
    let headers = [("authorization", "Bearer wrong")];
    let page = fixture.open(&Method::GET, "/console/", &headers, Bytes::new()).await;
    assert_eq!(
        (page.status(), &page.headers()[header::CONTENT_TYPE]),
        (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
    );
    let posted = fixture.open(&Method::POST, "/console/stream", &[], Bytes::new()).await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    let unknown = fixture.open(&Method::GET, "/console/none", &[], Bytes::new()).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}
