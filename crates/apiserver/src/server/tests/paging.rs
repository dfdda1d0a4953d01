//! Pages of lists whose state is compacted.

use super::*;

#[tokio::test]
async fn tokens_expire_with_the_compaction_and_lists_continue_with_the_number_of_the_rest() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(30)).await;
    for i in 0..7 {
        assert_eq!(it.send(Method::POST, MAPS, &map(&format!("m{i}"), 1)).await.0, 201);
    }
    let uri = |token: &Value| format!("{MAPS}?limit=2&continue={}", token.as_str().unwrap_or_default());
    let (_, first) = it.get(&uri(&json!(null)), &[]).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 5);
    let token = &first["metadata"]["continue"];
    assert_eq!(it.send(Method::POST, MAPS, &map("m7", 1)).await.0, 201);
    // Nothing else changes, so that the state stays in the window of the watch cache.
    let catalog = it.server.catalogs().load();
    let storages = catalog.storages();
    storages.forget_compacted_states().await;
    assert_eq!(it.get(&uri(token), &[]).await.0, 200);
    let main = storages.stores().main();
    main.compact(main.status().await.unwrap().revision).await.unwrap();
    storages.forget_compacted_states().await;
    let (code, expired) = it.get(&uri(token), &[]).await;
    assert_eq!((code, &expired["reason"]), (410, &json!("Expired")));

    let (mut token, mut names) = (expired["metadata"]["continue"].clone(), Vec::new());
    for remaining in [Some(4), Some(2), None] {
        let (code, page) = it.get(&uri(&token), &[]).await;
        assert_eq!((code, page["metadata"]["remainingItemCount"].as_u64()), (200, remaining));
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        token = page["metadata"]["continue"].clone();
    }
    assert!(token.is_null());
    assert_eq!(names, ["m2", "m3", "m4", "m5", "m6", "m7"]);
}
