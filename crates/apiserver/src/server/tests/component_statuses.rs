//! `componentstatuses`: objects that are computed when they are read.

use super::*;

const STATUSES: &str = "/api/v1/componentstatuses";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn component_statuses_are_computed() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(30)).await;
    let (code, list) = it.get(STATUSES, &[]).await;
    assert_eq!((code, &list["kind"], &list["metadata"]), (200, &json!("ComponentStatusList"), &json!({})));
    assert_eq!(names(&list), ["controller-manager", "etcd-0", "scheduler"]);
    // No scheduler has to run, so its health is not checked here.
    for name in ["controller-manager", "etcd-0"] {
        let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
        let item = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name);
        assert_eq!(item.unwrap(), &json!({"metadata": {"name": name}, "conditions": healthy}));
        let (code, object) = it.get(&format!("{STATUSES}/{name}"), &[]).await;
        let expected = json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": healthy});
        assert_eq!((code, object), (200, expected));
    }
    let (code, status) = it.get(&format!("{STATUSES}/none"), &[]).await;
    assert_eq!((code, &status["message"]), (404, &json!("componentstatus \"none\" not found")));
}

#[tokio::test]
async fn component_statuses_have_all_forms_and_selectors() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(30)).await;
    let (_, table) =
        it.get(&format!("{STATUSES}?fieldSelector=metadata.name%3Detcd-0"), &[("accept", TABLE)]).await;
    assert_eq!(table["rows"].as_array().unwrap().len(), 1);
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    let (_, list) = it.get(STATUSES, &[("accept", METADATA)]).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list).len(), 3);
    for (query, expected) in [
        ("labelSelector=a", Some(0)),
        ("labelSelector=!a", Some(3)),
        ("fieldSelector=metadata.name!%3Dscheduler", Some(2)),
        ("fieldSelector=spec.x%3Dy", None),
    ] {
        let (code, list) = it.get(&format!("{STATUSES}?{query}"), &[]).await;
        let found = list["items"].as_array().map(Vec::len);
        assert_eq!((code, found), (if expected.is_some() { 200 } else { 400 }, expected), "{query}");
    }
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let response = it.open(&Method::GET, STATUSES, &accept, Bytes::new()).await;
    assert!(bytes_of(response).await.starts_with(b"k8s\0"));
    assert_eq!(it.get(&format!("{STATUSES}?watch=true"), &[]).await.0, 405);
    assert_eq!(it.send(Method::POST, STATUSES, &json!({})).await.0, 405);
}
