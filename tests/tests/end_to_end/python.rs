//! The Kubernetes Python client. The scripts contain the assertions and print a summary in their last line.

use nave_tests::Server;

#[tokio::test]
async fn objects_create_read_update_delete() {
    // Without controllers, only the script writes the objects whose versions it compares.
    let server = Server::start_without_controllers().await;
    assert_eq!(server.python(include_str!("python/objects.py")).await, "done\n");
}

#[tokio::test]
async fn lists_in_pages_and_resumes_watches() {
    let server = Server::start().await;
    assert_eq!(server.python(include_str!("python/lists.py")).await, "done\n");
}

#[tokio::test]
async fn dynamic_client_uses_discovery() {
    let server = Server::start().await;
    assert_eq!(server.python(include_str!("python/dynamic.py")).await, "done\n");
}

#[tokio::test]
async fn applies_share_conflict_and_give_up() {
    let server = Server::start_without_controllers().await;
    assert_eq!(server.python(include_str!("python/applies.py")).await, "done\n");
}
