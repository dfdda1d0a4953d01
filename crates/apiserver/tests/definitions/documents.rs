//! Discovery and OpenAPI change with the definitions.

use nave_machinery::Value;

use crate::common::{Call, TestResponse};
use crate::family::{definition, objects};
use crate::{DEFINITIONS, Server};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn discovery(server: &Server) -> TestResponse {
    let answer = server.client.send(Call::new("GET", "/apis").header("accept", AGGREGATED)).await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    answer
}

/// Returns the URL of the OpenAPI document of a group, which contains its hash; `None` if there is no document.
async fn document(server: &Server, group: &str) -> Option<String> {
    let index = server.get("/openapi/v3").await.json();
    index["paths"][format!("apis/{group}/v1")]["serverRelativeURL"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_change_when_a_definition_is_established() {
    let server = Server::start().await;
    let (first, second) = (definition(10, 8_000), definition(20, 8_000));
    let [first_group, second_group] = ["family001.example.com", "family002.example.com"];
    assert_eq!(document(&server, first_group).await, None);
    server.define(&first).await;
    assert!(discovery(&server).await.text().contains("things00010"));
    let url = document(&server, first_group).await.unwrap();
    let described = server.get(&url).await;
    assert_eq!(described.code, 200);
    let described: Value = described.json();
    let kind = &described["components"]["schemas"]["com.example.family001.v1.Thing00010"];
    assert!(kind["properties"]["spec"]["properties"].as_object().unwrap().len() > 10, "{kind}");

    server.define(&second).await;
    let text = discovery(&server).await.text();
    assert!(text.contains("things00010") && text.contains("things00020"));
    assert_eq!(document(&server, first_group).await, Some(url), "other groups keep their documents");
    assert!(document(&server, second_group).await.is_some());
    assert!(server.get("/openapi/v2").await.text().contains("com.example.family002.v1.Thing00020"));

    for (definition, number) in [(&first, 10), (&second, 20)] {
        let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().unwrap());
        assert_eq!(server.client.call(&format!("DELETE {path}")).await.code, 200);
        server.gone(&path).await;
        server.gone(&objects(number)).await;
    }
    assert!(!discovery(&server).await.text().contains("things000"));
    assert_eq!(document(&server, first_group).await, None);
    assert!(!server.get("/openapi/v2").await.text().contains("com.example.family"));
}
