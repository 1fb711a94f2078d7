//! Attributes, lists, sharing, and who may do what.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::Cloud;

#[tokio::test]
async fn versions_are_a_300_with_links_below_the_prefix() {
    let cloud = Cloud::new();
    for path in ["/", "/versions", "/v2/"] {
        let answer = cloud.get("p1", path).await;
        assert_eq!(answer.status, StatusCode::MULTIPLE_CHOICES);
        assert_eq!(answer.json()["versions"][0]["links"][0]["href"], "https://cloud/image/v2/");
    }
}

#[tokio::test]
async fn an_image_shows_its_properties_at_the_top() {
    let cloud = Cloud::new();
    let wanted =
        json!({"name": "i", "owner_specified.openstack.md5": "", "ramdisk_id": "r", "tags": ["a", "a"]});
    let id = cloud.image("p1", wanted).await;
    let shown = cloud.get("p1", &format!("/v2/images/{id}")).await.json();
    assert_eq!(shown["owner_specified.openstack.md5"], "");
    assert_eq!(shown["tags"], json!(["a"]));
    assert_eq!((&shown["status"], &shown["visibility"]), (&json!("queued"), &json!("shared")));
    assert_eq!((&shown["size"], &shown["checksum"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn bad_images_are_refused() {
    let cloud = Cloud::new();
    for (body, status) in [
        (json!({"disk_format": "wrong"}), 400),
        (json!({"container_format": "wrong"}), 400),
        (json!({"id": "not-a-uuid"}), 400),
        (json!({"id": "../../../etc/passwd"}), 400),
        (json!({"min_disk": -1}), 400),
        (json!({"protected": "yes"}), 400),
        (json!({"name": "n".repeat(256)}), 400),
        (json!({"p".repeat(256): "v"}), 400),
        (json!({"property": 1}), 400),
        (json!({"visibility": "public"}), 403),
        (json!({"owner": "p2"}), 403),
        (json!({"status": "active"}), 403),
        (json!({"os_glance_foo": "x"}), 403),
    ] {
        let answer = cloud.call("p1", Method::POST, "/v2/images", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
    }
    let many: serde_json::Map<_, _> = (0..129).map(|n| (format!("p{n}"), json!("v"))).collect();
    let answer = cloud.call("p1", Method::POST, "/v2/images", Value::Object(many)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(cloud.list("admin", "visibility=all").await.is_empty());

    let id = "0a1b2c3d-0000-4000-8000-000000000000";
    assert_eq!(cloud.image("p1", json!({"id": id})).await, id);
    let again = cloud.call("p1", Method::POST, "/v2/images", json!({"id": id})).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_patch_is_done_whole_or_not_at_all() {
    let cloud = Cloud::new();
    let id = cloud.image("p1", json!({"name": "i", "p": "1"})).await;
    for (patch, status) in [
        (json!([{"op": "replace", "path": "/status", "value": "active"}]), 403),
        (json!([{"op": "replace", "path": "/id", "value": "x"}]), 403),
        (json!([{"op": "remove", "path": "/name"}]), 403),
        (json!([{"op": "add", "path": "/os_glance_foo", "value": "x"}]), 403),
        (json!([{"op": "replace", "path": "/visibility", "value": "public"}]), 403),
        (json!([{"op": "replace", "path": "/absent", "value": "x"}]), 409),
        (json!([{"op": "remove", "path": "/absent"}]), 409),
        (
            json!([{"op": "replace", "path": "/name", "value": "new"}, {"op": "remove", "path": "/absent"}]),
            409,
        ),
        (json!({"op": "remove", "path": "/p"}), 400),
    ] {
        assert_eq!(cloud.patch("p1", &id, patch.clone()).await.status.as_u16(), status, "{patch}");
    }
    let done = cloud
        .patch(
            "p1",
            &id,
            json!([
                {"op": "replace", "path": "/name", "value": "new"},
                {"op": "replace", "path": "/p", "value": "2"},
                {"op": "add", "path": "/a.b~1c", "value": "3"},
                {"op": "replace", "path": "/tags", "value": ["t"]},
            ]),
        )
        .await
        .json();
    assert_eq!((&done["name"], &done["p"], &done["a.b/c"]), (&json!("new"), &json!("2"), &json!("3")));
    assert_eq!(
        cloud.patch("p1", &id, json!([{"op": "remove", "path": "/p"}])).await.json()["p"],
        Value::Null
    );

    let old = Request::patch(format!("/v2/images/{id}"))
        .header("content-type", "application/openstack-images-v2.0-json-patch");
    let old = cloud.send("p1", old, json!([{"replace": "/name", "value": "old"}]).to_string()).await;
    assert_eq!(old.json()["name"], "old");
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let cloud = Cloud::new();
    let mut ids = Vec::new();
    for (name, content) in [("b", "22"), ("a", "4444"), ("c", "1")] {
        let body = json!({"name": name, "disk_format": "raw", "container_format": "bare", "tags": [name], "k": name});
        let id = cloud.image("p1", body).await;
        cloud.upload("p1", &id, content).await;
        ids.push(id);
    }
    let hidden = cloud.image("p1", json!({"os_hidden": true})).await;
    let [b, a, c] = [ids[0].clone(), ids[1].clone(), ids[2].clone()];
    for (query, want) in [
        ("", vec![&c, &a, &b]),
        ("sort=name:asc", vec![&a, &b, &c]),
        ("sort_key=size&sort_dir=desc", vec![&a, &b, &c]),
        ("sort=size:asc", vec![&c, &b, &a]),
        ("name=a", vec![&a]),
        ("name=in:a,c&sort=name", vec![&c, &a]),
        ("tag=b", vec![&b]),
        ("k=c", vec![&c]),
        ("size_min=2&size_max=3", vec![&b]),
        ("status=queued", vec![]),
        ("owner=p1&limit=1&sort=name:asc", vec![&a]),
        ("os_hidden=true", vec![&hidden]),
        ("created_at=gt:2020-01-01T00:00:00Z&name=a", vec![&a]),
        ("created_at=lt:2020-01-01T00:00:00", vec![]),
        ("visibility=private", vec![]),
    ] {
        assert_eq!(cloud.list("p1", query).await.iter().collect::<Vec<_>>(), want, "{query}");
    }
    let escaped = cloud.list("p1", &format!("id=in%3A{a},{b}&sort=name:asc")).await;
    assert_eq!(escaped, [a.clone(), b.clone()]);
    for bad in [
        "sort=wrong",
        "sort=name:up",
        "sort=name&sort_key=id",
        "limit=-1",
        "marker=x",
        "visibility=x",
        "size_min=x",
        "created_at=gt:now",
    ] {
        assert_eq!(
            cloud.get("p1", &format!("/v2/images?{bad}")).await.status,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    let first = cloud.get("p1", "/v2/images?limit=2&sort=name:asc").await.json();
    let next = first["next"].as_str().unwrap();
    assert!(next.starts_with("/v2/images?") && next.contains(&b), "{next}");
    let second = cloud.get("p1", next).await.json();
    assert_eq!((&second["images"][0]["id"], &second["next"]), (&json!(c), &Value::Null));
}

#[tokio::test]
async fn images_are_seen_by_who_may() {
    let cloud = Cloud::new();
    let private = cloud.image("p1", json!({"visibility": "private"})).await;
    let shared = cloud.image("p1", json!({})).await;
    let community = cloud.image("p1", json!({"visibility": "community"})).await;
    let public = cloud.image("admin", json!({"visibility": "public"})).await;

    assert_eq!(cloud.list("p2", "").await, std::slice::from_ref(&public));
    assert_eq!(cloud.list("p2", "visibility=community").await, std::slice::from_ref(&community));
    assert_eq!(cloud.list("admin", "").await.len(), 4);
    for (id, status) in [(&private, 404), (&shared, 404), (&community, 200), (&public, 200)] {
        assert_eq!(cloud.get("p2", &format!("/v2/images/{id}")).await.status.as_u16(), status);
    }
    for (id, status) in [(&private, 404), (&community, 403), (&public, 403)] {
        let answer = cloud.call("p2", Method::DELETE, &format!("/v2/images/{id}"), Value::Null).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    assert_eq!(cloud.get("p1", "/v2/images/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sharing_takes_both_sides() {
    let cloud = Cloud::new();
    let id = cloud.image("p1", json!({})).await;
    let members = format!("/v2/images/{id}/members");
    let p2 = format!("{members}/p2");
    let made = cloud.call("p1", Method::POST, &members, json!({"member": "p2"})).await;
    assert_eq!((made.status, &made.json()["status"]), (StatusCode::OK, &json!("pending")));
    let again = cloud.call("p1", Method::POST, &members, json!({"member": "p2"})).await;
    assert_eq!(again.status, StatusCode::CONFLICT);

    assert!(cloud.list("p2", "").await.is_empty());
    assert_eq!(cloud.list("p2", "member_status=pending&visibility=shared").await, std::slice::from_ref(&id));
    assert_eq!(cloud.get("p3", &members).await.status, StatusCode::NOT_FOUND);
    for (who, status, want) in [("p2", "maybe", 400), ("p1", "accepted", 403), ("p2", "accepted", 200)] {
        let answer = cloud.call(who, Method::PUT, &p2, json!({"status": status})).await;
        assert_eq!(answer.status.as_u16(), want, "{who} {status}");
    }
    assert_eq!(cloud.list("p2", "").await, std::slice::from_ref(&id));
    assert_eq!(cloud.call("p2", Method::DELETE, &p2, Value::Null).await.status, StatusCode::FORBIDDEN);
    assert_eq!(cloud.call("p1", Method::DELETE, &p2, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert!(cloud.list("p2", "").await.is_empty());

    cloud.patch("p1", &id, json!([{"op": "replace", "path": "/visibility", "value": "private"}])).await;
    let not_shared = cloud.call("p1", Method::POST, &members, json!({"member": "p2"})).await;
    assert_eq!(not_shared.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn tags_protection_and_schemas() {
    let cloud = Cloud::new();
    let id = cloud.image("p1", json!({"protected": true})).await;
    let tag = format!("/v2/images/{id}/tags/blue");
    assert_eq!(cloud.call("p1", Method::PUT, &tag, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cloud.call("p1", Method::DELETE, &tag, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cloud.call("p1", Method::DELETE, &tag, Value::Null).await.status, StatusCode::NOT_FOUND);
    let path = format!("/v2/images/{id}");
    assert_eq!(cloud.call("p1", Method::DELETE, &path, Value::Null).await.status, StatusCode::FORBIDDEN);
    for name in ["image", "images", "member", "members"] {
        assert_eq!(cloud.get("p1", &format!("/v2/schemas/{name}")).await.json()["name"], name);
    }
    assert_eq!(cloud.get("p1", "/v2/schemas/metadefs").await.status, StatusCode::NOT_FOUND);
    assert_eq!(cloud.get("p1", "/v2/info/import").await.json()["import-methods"]["value"], json!([]));
}
