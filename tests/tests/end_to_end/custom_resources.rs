//! Custom resources with kubectl.

use nave_tests::{Server, cells, eventually};

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              cronSpec: {type: string, description: The times at which it runs.}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 2}
          status: {type: object, properties: {replicas: {type: integer}}}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
";

const OBJECT: &str = "
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: one}
spec: {cronSpec: '* * * * */5'}
";

const NAME: &str = "crontabs.stable.example.com";

async fn with_definition() -> Server {
    let server = Server::start().await;
    server.apply(DEFINITION).await;
    server.established(NAME).await;
    server.apply(OBJECT).await;
    server
}

async fn rows(server: &Server) -> Vec<Vec<String>> {
    let table = server.kubectl(&["get", "ct", "--no-headers"]).await;
    cells(&table).into_iter().map(|row| row.into_iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn kubectl_works_with_an_established_resource() {
    let server = with_definition().await;
    assert_eq!(rows(&server).await[0].last().map(String::as_str), Some("2"));
    let explained = server.kubectl(&["explain", "crontab.spec.cronSpec"]).await;
    assert!(explained.contains("The times at which it runs."), "{explained}");
    server.kubectl(&["scale", "--replicas=4", "crontab/one"]).await;
    assert_eq!(rows(&server).await[0].last().map(String::as_str), Some("4"));
    let merge = ["patch", "ct", "one", "--type", "merge", "-p"];
    let refused = server.kubectl_fails(&[&merge[..], &[r#"{"spec":{"replicas":11}}"#]].concat()).await;
    assert!(refused.contains("should be less than or equal to 10"), "{refused}");
    let json = r#"[{"op":"replace","path":"/spec/replicas","value":5}]"#;
    server.kubectl(&["patch", "ct", "one", "--type", "json", "-p", json]).await;
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = server.kubectl_with(&apply, OBJECT, &[]).await;
    assert!(applied.stdout.contains("serverside-applied"), "{}", applied.stdout);
    assert_eq!(rows(&server).await[0].last().map(String::as_str), Some("5"));
    let resources = server.kubectl(&["api-resources", "--api-group", "stable.example.com"]).await;
    assert!(resources.contains("CronTab"), "{resources}");
}

#[tokio::test]
async fn objects_survive_a_restart_and_go_with_their_definition() {
    let mut server = with_definition().await;
    server.kill9();
    server.restart().await;
    assert_eq!(rows(&server).await.len(), 1);
    server.kubectl(&["delete", "crd", NAME, "--timeout=20s"]).await;
    let list = server.kubectl_fails(&["get", "--raw", "/apis/stable.example.com/v1/crontabs"]).await;
    assert!(list.contains("could not find") || list.contains("not found"), "{list}");
    server.apply(DEFINITION).await;
    server.established(NAME).await;
    assert_eq!(server.kubectl(&["get", "ct", "--no-headers"]).await.trim(), "");
}

#[tokio::test]
async fn a_namespace_takes_custom_objects_along_and_quotas_count_them() {
    let server = with_definition().await;
    server.kubectl(&["create", "namespace", "x"]).await;
    server.kubectl(&["create", "quota", "q", "--hard=count/crontabs.stable.example.com=1", "-n", "x"]).await;
    eventually("the quota has a status", async || {
        let used = server.kubectl(&["get", "quota", "q", "-n", "x", "-o", "jsonpath={.status.used}"]).await;
        used.contains("crontabs")
    })
    .await;
    let named = |name: &str| OBJECT.replace("name: one", &format!("name: {name}, namespace: x"));
    server.apply(&named("two")).await;
    let third = server.kubectl_with(&["create", "-f", "-"], &named("three"), &[]).await;
    assert!(third.stderr.contains("exceeded quota"), "{}", third.stderr);
    server.kubectl(&["delete", "namespace", "x", "--timeout=60s"]).await;
    assert_eq!(rows(&server).await.len(), 1);
}
