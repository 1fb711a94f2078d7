//! The API against a store in memory: shapes, refusals, and that a race has one winner.

use std::sync::Arc;

use axum::body::Body;
use cairn_gateway::{ApiError, Caller};
use cairn_state::LocalStore;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::claims::{self, Inventory, Ratios, Resources};
use crate::{Service, mount};

const NODE: &str = "6f8f1a3e-0000-4000-8000-000000000001";

fn caller(roles: &[&str]) -> Arc<Caller> {
    Arc::new(Caller {
        user_id: "u".into(),
        project_id: "p1".into(),
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        ..Caller::default()
    })
}

async fn service(vcpus: u64) -> Arc<Service> {
    let svc = Service::new(LocalStore::in_memory().unwrap());
    let inventory = Inventory {
        provider: NODE.into(),
        name: "node-1".into(),
        vcpus,
        memory_mb: 4096,
        disk_gb: 100,
        reserved: Resources { memory_mb: 1024, ..Resources::default() },
        ratios: Ratios { vcpus: 1.0, ..Ratios::default() },
        traits: ["COMPUTE_NODE".to_owned()].into(),
    };
    svc.store.transact(|tx| claims::upsert_provider(tx, &inventory)).await.unwrap();
    svc
}

async fn call(svc: &Arc<Service>, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("openstack-api-version", "placement 1.29")
        .extension(caller(&["admin"]))
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = mount(svc).router.oneshot(request).await.unwrap();
    let status = response.status();
    if let Some(e) = response.extensions().get::<ApiError>() {
        return (status, json!(e.message));
    }
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(svc: &Arc<Service>, path: &str) -> Value {
    let (status, body) = call(svc, Method::GET, path, Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

#[tokio::test]
async fn a_claim_shows_up_in_usages_and_goes_with_its_release() {
    let svc = service(4).await;
    let want = Resources { vcpus: 2, memory_mb: 512, disk_gb: 10 };
    svc.store.transact(|tx| claims::claim(tx, "s1", "node-1", &want, "p1", "u1")).await.unwrap();
    let used = get(&svc, &format!("/resource_providers/{NODE}/usages")).await;
    assert_eq!(used["usages"], json!({"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 10}));
    let mine = get(&svc, "/usages?project_id=p1").await;
    assert_eq!(mine["usages"]["VCPU"], 2);
    let held = get(&svc, "/allocations/s1").await;
    assert_eq!(held["allocations"][NODE]["resources"]["DISK_GB"], 10);

    svc.store.transact(|tx| claims::release(tx, "s1")).await.unwrap();
    svc.store.transact(|tx| claims::release(tx, "s1")).await.unwrap();
    let used = get(&svc, &format!("/resource_providers/{NODE}/usages")).await;
    assert_eq!(used["usages"], json!({"VCPU": 0, "MEMORY_MB": 0, "DISK_GB": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_racing_for_the_last_cpu_exactly_one_wins() {
    let svc = service(1).await;
    let want = Resources { vcpus: 1, memory_mb: 1, disk_gb: 0 };
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let svc = svc.clone();
            tokio::spawn(async move {
                let consumer = format!("s{n}");
                svc.store.transact(|tx| claims::claim(tx, &consumer, NODE, &want, "p1", "u1")).await
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(e) => assert_eq!(e.status, StatusCode::CONFLICT, "{e}"),
        }
    }
    assert_eq!(won, 1);
    let used = get(&svc, &format!("/resource_providers/{NODE}/usages")).await;
    assert_eq!(used["usages"]["VCPU"], 1);
}

#[tokio::test]
async fn a_second_claim_of_a_consumer_replaces_the_first() {
    let svc = service(4).await;
    for vcpus in [4, 3] {
        let want = Resources { vcpus, memory_mb: 1, disk_gb: 1 };
        svc.store.transact(|tx| claims::claim(tx, "s1", NODE, &want, "p1", "u1")).await.unwrap();
    }
    let one = Resources { vcpus: 1, ..Resources::default() };
    let two = Resources { vcpus: 2, ..Resources::default() };
    let free = svc.store.read(|tx| claims::candidates(tx, &one)).unwrap();
    assert_eq!(free[0].free.vcpus, 1);
    assert!(svc.store.read(|tx| claims::candidates(tx, &two)).unwrap().is_empty());
}

#[tokio::test]
async fn candidates_respect_reservation_traits_and_groups() {
    let svc = service(4).await;
    let body = get(&svc, "/allocation_candidates?resources=VCPU:1,MEMORY_MB:3072").await;
    assert_eq!(body["allocation_requests"][0]["allocations"][NODE]["resources"]["VCPU"], 1);
    assert_eq!(body["provider_summaries"][NODE]["resources"]["MEMORY_MB"]["capacity"], 3072);
    for none in [
        "resources=MEMORY_MB:3073",
        "resources=VCPU:1&required=!COMPUTE_NODE",
        "resources1=VCPU:1&resources2=VCPU:1&group_policy=isolate",
        "resources1=VCPU:3&resources2=VCPU:2&group_policy=none",
    ] {
        let body = get(&svc, &format!("/allocation_candidates?{none}")).await;
        assert_eq!(body["allocation_requests"], json!([]), "{none}");
    }
    let (status, _) = call(&svc, Method::GET, "/allocation_candidates?resources=WAT:1", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn allocations_are_set_with_their_generation_and_all_or_none() {
    let svc = service(4).await;
    let share = |n: u64, generation: Value| {
        json!({"allocations": {NODE: {"resources": {"VCPU": n}}}, "project_id": "p1", "user_id": "u1",
               "consumer_generation": generation})
    };
    let put = |body| call(&svc, Method::PUT, "/allocations/c1", body);
    assert_eq!(put(share(2, Value::Null)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(put(share(3, Value::Null)).await.0, StatusCode::CONFLICT, "a stale generation");
    assert_eq!(put(share(5, json!(1))).await.0, StatusCode::CONFLICT, "too much");
    let both = json!({"c1": share(1, json!(1)), "c2": share(4, Value::Null)});
    assert_eq!(call(&svc, Method::POST, "/allocations", both).await.0, StatusCode::CONFLICT);
    assert_eq!(get(&svc, "/allocations/c1").await["allocations"][NODE]["resources"]["VCPU"], 2);
    let both = json!({"c1": share(1, json!(1)), "c2": share(3, Value::Null)});
    assert_eq!(call(&svc, Method::POST, "/allocations", both).await.0, StatusCode::NO_CONTENT);
    let (status, _) = call(&svc, Method::DELETE, "/allocations/c1", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = call(&svc, Method::DELETE, "/allocations/c1", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn members_may_read_only_their_own_usage() {
    let svc = service(4).await;
    for (path, want) in [
        ("/resource_providers", StatusCode::FORBIDDEN),
        ("/usages?project_id=p1", StatusCode::OK),
        ("/usages?project_id=p2", StatusCode::FORBIDDEN),
    ] {
        let request = Request::get(path)
            .header("openstack-api-version", "placement 1.29")
            .extension(caller(&["member"]))
            .body(Body::empty())
            .unwrap();
        assert_eq!(mount(&svc).router.oneshot(request).await.unwrap().status(), want, "{path}");
    }
}
