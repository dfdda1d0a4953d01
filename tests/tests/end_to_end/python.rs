//! Kubernetes' Python client. The scripts assert for themselves and print what they did last.

use nave_tests::Server;

#[tokio::test]
async fn objects_live_and_die() {
    // Nobody else writes the objects whose versions the script knows.
    let server = Server::start_without_controllers().await;
    assert_eq!(server.python(include_str!("python/objects.py")).await, "done\n");
}

#[tokio::test]
async fn lists_are_paged_and_watches_resumed() {
    let server = Server::start().await;
    assert_eq!(server.python(include_str!("python/lists.py")).await, "done\n");
}

#[tokio::test]
async fn the_dynamic_client_finds_its_way_by_discovery() {
    let server = Server::start().await;
    assert_eq!(server.python(include_str!("python/dynamic.py")).await, "done\n");
}
