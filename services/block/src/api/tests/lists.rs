//! Lists, metadata, types, and what the deployment says of itself.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1, P2};

fn ids(body: &Value, key: &str) -> Vec<String> {
    body[key].as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let cloud = Cloud::new().await;
    let a = cloud.volume(P1, json!({"size": 3, "name": "a", "metadata": {"Type": "work"}})).await;
    let b = cloud.volume(P1, json!({"size": 1, "name": "b"})).await;
    let c = cloud.volume(P1, json!({"size": 2, "name": "c"})).await;
    let other = cloud.volume(P2, json!({"size": 1})).await;
    for (query, want) in [
        ("", vec![&c, &b, &a]),
        ("sort_key=size&sort_dir=asc", vec![&b, &c, &a]),
        ("sort=name:desc", vec![&c, &b, &a]),
        ("name=b", vec![&b]),
        ("status=available&name=a", vec![&a]),
        ("status=null", vec![]),
        ("bootable=False&sort=name:asc&limit=2", vec![&a, &b]),
        ("metadata=%7B%27Type%27%3A+%27work%27%7D", vec![&a]),
        ("availability_zone=nova&limit=0", vec![]),
        ("sort=name:asc&offset=1&limit=1", vec![&b]),
        ("all_tenants=1&project_id=22222222222222222222222222222222", vec![&c, &b, &a]),
    ] {
        for list in ["volumes", "volumes/detail"] {
            let found = ids(&cloud.get(P1, &format!("/{list}?{query}")).await, "volumes");
            assert_eq!(found.iter().collect::<Vec<_>>(), want, "{list}?{query}");
        }
    }
    assert_eq!(ids(&cloud.get(ADMIN, "/volumes?all_tenants=1").await, "volumes").len(), 4);
    let of_other = cloud.get(ADMIN, &format!("/volumes?all_tenants=1&project_id={P2}")).await;
    assert_eq!(ids(&of_other, "volumes"), [other]);
    for (query, status) in [
        ("limit=x", 400),
        ("limit=-1", 400),
        ("sort=wat:asc", 400),
        ("sort_dir=up", 400),
        ("wat=1", 400),
        ("metadata=wat", 400),
        ("marker=absent", 404),
    ] {
        let (got, _) = cloud.call(P1, Method::GET, &format!("/volumes?{query}"), Value::Null).await;
        assert_eq!(got.as_u16(), status, "{query}");
    }
}

#[tokio::test]
async fn next_links_lead_through_all_pages() {
    let cloud = Cloud::new().await;
    for _ in 0..3 {
        cloud.volume(P1, json!({"size": 1})).await;
    }
    let mut path = "/volumes?limit=1".to_owned();
    let mut seen = Vec::new();
    // The last full page has a link too, to an empty one: Cinder's clients count on it.
    for page in 0..4 {
        let body = cloud.get(P1, &path).await;
        seen.extend(ids(&body, "volumes"));
        let Some(href) = body["volumes_links"][0]["href"].as_str() else {
            assert_eq!(page, 3);
            break;
        };
        path = href.strip_prefix(&format!("https://cloud/v3/{P1}")).unwrap().to_owned();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    let (_, counted) = cloud
        .call_at("3.45", P1, Method::GET, &format!("/v3/{P1}/volumes?limit=1&with_count=True"), Value::Null)
        .await;
    assert_eq!(counted["count"], 3);
    let (_, summary) = cloud.call_at("3.36", P1, Method::GET, "/v3/volumes/summary", Value::Null).await;
    assert_eq!(summary["volume-summary"], json!({"total_count": 3, "total_size": 3, "metadata": {}}));
}

#[tokio::test]
async fn paths_name_the_tokens_project_or_none() {
    let cloud = Cloud::new().await;
    for (path, status) in [
        (format!("/v3/{P1}/volumes"), 200),
        ("/v3/volumes".to_owned(), 200),
        (format!("/v3/{P2}/volumes"), 400),
        ("/v3/volumes/".to_owned(), 404),
        (format!("/v3/{P1}/volumes/"), 404),
        ("/v3/nonsense".to_owned(), 404),
        ("/v3/volumes/not-a-uuid".to_owned(), 404),
        ("/".to_owned(), 300),
        ("/v3/".to_owned(), 200),
    ] {
        let (got, _) = cloud.call_at("3.0", P1, Method::GET, &path, Value::Null).await;
        assert_eq!(got.as_u16(), status, "{path}");
    }
    let (status, _) = cloud.call_at("3.99", P1, Method::GET, "/v3/volumes", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn notes_are_kept_for_volumes_and_snapshots() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume}});
    let (_, made) = cloud.call(P1, Method::POST, "/snapshots", body).await;
    let snapshot = made["snapshot"]["id"].as_str().unwrap().to_owned();
    for base in [format!("/volumes/{volume}/metadata"), format!("/snapshots/{snapshot}/metadata")] {
        let put =
            |path: String, body: Value| cloud.call(P1, Method::PUT, Box::leak(path.into_boxed_str()), body);
        let (_, all) = cloud.call(P1, Method::POST, &base, json!({"metadata": {"a": "1", "b": "2"}})).await;
        assert_eq!(all["metadata"], json!({"a": "1", "b": "2"}));
        assert_eq!(put(format!("{base}/a"), json!({"meta": {"a": "3"}})).await.1["meta"], json!({"a": "3"}));
        assert_eq!(put(format!("{base}/a"), json!({"meta": {"b": "3"}})).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(cloud.get(P1, &format!("{base}/b")).await["meta"], json!({"b": "2"}));
        let (gone, _) = cloud.call(P1, Method::DELETE, &format!("{base}/b"), Value::Null).await;
        assert_eq!(gone, StatusCode::OK);
        assert_eq!(cloud.get(P1, &base).await["metadata"], json!({"a": "3"}));
        assert_eq!(put(base.clone(), json!({"metadata": {}})).await.1["metadata"], json!({}));
        let (missing, _) = cloud.call(P1, Method::GET, &format!("{base}/b"), Value::Null).await;
        assert_eq!(missing, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn types_are_for_administrators_to_make_and_for_those_allowed_to_use() {
    let cloud = Cloud::new().await;
    let new = json!({"volume_type": {"name": "fast", "os-volume-type-access:is_public": false}});
    assert_eq!(cloud.call(P1, Method::POST, "/types", new.clone()).await.0, StatusCode::FORBIDDEN);
    let (status, made) = cloud.call(ADMIN, Method::POST, "/types", new.clone()).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let id = made["volume_type"]["id"].as_str().unwrap();
    assert_eq!(cloud.call(ADMIN, Method::POST, "/types", new).await.0, StatusCode::CONFLICT);
    let empty = json!({"volume_type": {"name": ""}});
    assert_eq!(cloud.call(ADMIN, Method::POST, "/types", empty).await.0, StatusCode::BAD_REQUEST);
    let taken = json!({"volume_type": {"name": "cairn"}});
    assert_eq!(cloud.call(ADMIN, Method::POST, "/types", taken).await.0, StatusCode::CONFLICT);

    let volume = json!({"volume": {"size": 1, "volume_type": "fast"}});
    assert_eq!(cloud.call(P1, Method::POST, "/volumes", volume.clone()).await.0, StatusCode::NOT_FOUND);
    let action = format!("/types/{id}/action");
    let open = json!({"addProjectAccess": {"project": P1}});
    assert_eq!(cloud.call(ADMIN, Method::POST, &action, open).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.call(P1, Method::POST, "/volumes", volume.clone()).await.0, StatusCode::ACCEPTED);
    assert_eq!(ids(&cloud.get(P1, "/types").await, "volume_types").len(), 2);
    assert_eq!(ids(&cloud.get(P2, "/types").await, "volume_types").len(), 1);
    let (in_use, _) = cloud.call(ADMIN, Method::DELETE, &format!("/types/{id}"), Value::Null).await;
    assert_eq!(in_use, StatusCode::BAD_REQUEST);

    let specs = json!({"extra_specs": {"vendor_name": "Other"}});
    let path = format!("/types/{id}/extra_specs");
    assert_eq!(cloud.call(ADMIN, Method::POST, &path, specs).await.0, StatusCode::OK);
    let why = cloud.placeless(volume).await;
    assert!(why.contains("vendor_name"), "{why}");
    let item = format!("{path}/vendor_name");
    assert_eq!(cloud.get(ADMIN, &item).await, json!({"vendor_name": "Other"}));
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &item, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.call(ADMIN, Method::GET, &item, Value::Null).await.0, StatusCode::NOT_FOUND);
    let default = format!("/types/{}", crate::types::DEFAULT_ID);
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &default, Value::Null).await.0, StatusCode::BAD_REQUEST);
    let renamed = json!({"volume_type": {"name": "plain"}});
    assert_eq!(cloud.call(ADMIN, Method::PUT, &default, renamed).await.0, StatusCode::OK);
    assert_eq!(cloud.get(P1, "/types/default").await["volume_type"]["name"], "plain");
}

#[tokio::test]
async fn a_disabled_node_takes_no_more_volumes_and_keeps_those_it_has() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let ask = async |what: &str, fields: Value| {
        cloud.call(ADMIN, Method::PUT, &format!("/os-services/{what}"), fields).await
    };
    let service = json!({"host": "node-1", "binary": "cinder-volume"});
    let (status, shown) = ask("disable", service.clone()).await;
    assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!("disabled")), "{shown}");
    let why = cloud.placeless(json!({"volume": {"size": 1}})).await;
    assert!(why.contains("it is disabled"), "{why}");
    let snapshot = json!({"snapshot": {"volume_id": id}});
    assert_eq!(cloud.call(P1, Method::POST, "/snapshots", snapshot).await.0, StatusCode::ACCEPTED);
    assert_eq!(ask("enable", service).await.1["disabled"], false);
    cloud.volume(P1, json!({"size": 1})).await;

    assert_eq!(ask("freeze", json!({"host": "node-1"})).await.0, StatusCode::OK);
    let shown = cloud.get(ADMIN, "/os-services?binary=cinder-volume").await;
    assert_eq!(shown["services"][0]["disabled_reason"], "frozen");
    assert_eq!(ask("thaw", json!({"host": "node-1"})).await.0, StatusCode::OK);
    for (what, fields, status) in [
        ("freeze", json!({"host": "nowhere"}), StatusCode::BAD_REQUEST),
        ("enable", json!({"host": "nowhere", "binary": "cinder-volume"}), StatusCode::NOT_FOUND),
        ("disable", json!({"host": "node-1", "binary": "other"}), StatusCode::NOT_FOUND),
        ("disable-log-reason", json!({"host": "node-1", "binary": "cinder-volume"}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(what, fields.clone()).await.0, status, "{what} {fields}");
    }
}

#[tokio::test]
async fn the_deployment_describes_itself() {
    let cloud = Cloud::new().await;
    assert_eq!(cloud.get(P1, "/os-availability-zone").await["availabilityZoneInfo"][0]["zoneName"], "nova");
    assert!(!cloud.get(P1, "/extensions").await["extensions"].as_array().unwrap().is_empty());
    for path in ["/os-services", "/os-hosts", "/scheduler-stats/get_pools"] {
        assert_eq!(cloud.call(P1, Method::GET, path, Value::Null).await.0, StatusCode::FORBIDDEN);
    }
    let services = cloud.get(ADMIN, "/os-services?binary=cinder-volume&host=node-1").await;
    assert_eq!(services["services"][0]["host"], "node-1@cairn");
    let pools = cloud.get(ADMIN, "/scheduler-stats/get_pools?detail=True").await;
    assert_eq!(pools["pools"][0]["capabilities"]["total_capacity_gb"], 100.0);
    let host = cloud.get(ADMIN, "/os-hosts/node-1@cairn").await;
    assert_eq!(host["host"][0]["resource"]["volume_count"], "0");
    assert_eq!(
        cloud.call(ADMIN, Method::GET, "/os-hosts/absent", Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
    for path in ["/snapshots?sort_key=wat", "/snapshots?wat=1"] {
        assert_eq!(cloud.call(P1, Method::GET, path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    }
    assert_eq!(cloud.get(ADMIN, "/capabilities/node-1@cairn").await["vendor_name"], "Cairn");
}
