//! Definitions that change while clients use them.

use serde_json::json;

use crate::family::{definition, objects};
use crate::{DEFINITIONS, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_survives_a_deletion_while_clients_write() {
    let server = Server::start().await;
    let definition = definition(1, 4_000);
    let name = definition["metadata"]["name"].as_str().unwrap();
    let path = format!("{DEFINITIONS}/{name}");
    let things = "/apis/family000.example.com/v1/namespaces/default/things00001";
    let thing = |number: usize| {
        json!({"apiVersion": "family000.example.com/v1", "kind": "Thing00001",
        "metadata": {"name": format!("thing-{number}")}})
    };
    for round in 0..3 {
        server.define(&definition).await;
        assert!(server.get(things).await.names().is_empty(), "round {round}");
        let writes = async {
            for number in 0.. {
                let answer = server.post(things, &thing(number)).await;
                match answer.code {
                    201 => {}
                    // The definition is being deleted, or is gone.
                    403 | 404 => return,
                    _ => panic!("{}", answer.text()),
                }
            }
        };
        let deletes = async {
            while server.get(things).await.names().len() < 5 {
                tokio::task::yield_now().await;
            }
            assert_eq!(server.client.call(&format!("DELETE {path}")).await.code, 200);
            server.gone(&path).await;
        };
        tokio::join!(writes, deletes);
        server.gone(&objects(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_a_definition_lose_no_change() {
    let server = Server::start().await;
    let definition = definition(1, 4_000);
    server.define(&definition).await;
    let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().unwrap());
    let write = async |writer: &str| {
        for number in 0..20 {
            let patch = json!({"metadata": {"annotations": {format!("{writer}-{number}"): "x"}},
                "spec": {"names": {"categories": [format!("{writer}{number}")]}}});
            let answer = server.client.call_with(&format!("PATCH {path}"), &patch).await;
            assert_eq!(answer.code, 200, "{}", answer.text());
            assert_eq!(server.get(&objects(1)).await.code, 200, "the resource is always served");
        }
    };
    tokio::join!(write("a"), write("b"));
    let stored = server.get(&path).await.json();
    let annotations = stored["metadata"]["annotations"].as_object().unwrap();
    let own = annotations.keys().filter(|key| key.starts_with("a-") || key.starts_with("b-"));
    assert_eq!(own.count(), 40);
    let wanted = stored["spec"]["names"]["categories"].clone();
    loop {
        let accepted = server.get(&path).await.value_at("/status/acceptedNames/categories");
        if accepted == wanted {
            break;
        }
        tokio::task::yield_now().await;
    }
}
