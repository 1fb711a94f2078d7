//! Orders by the appliance's API, given to the node that another one asks.

use axum::Json;
use axum::extract::State;
use cairn_cluster::membership::Otherwise;
use cairn_gateway::{Body, Caller};
use cairn_node::told;
use http::StatusCode;

use super::super::members_api::{self, Policy};
use super::super::operator::{Open, Order};
use super::super::overview::Overview;
use super::*;

fn admin() -> Caller {
    Caller { roles: ["admin".to_owned()].into(), ..Caller::default() }
}

async fn overview(node: &Node) -> Overview {
    let Json(overview) = within(members_api::show(State(node.cluster()), admin())).await.unwrap();
    overview
}

fn order(node: &Node, words: Option<&str>) -> Body<Order> {
    let order = serde_json::json!({"node": node.name(), "words": words});
    Body(serde_json::from_value(order).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_accepts_a_node_without_a_shell() {
    let wire = Wire::new();
    let (first, second) = (wire.node(31), wire.node(32));
    first.start().await;
    let member = Caller { roles: ["member".to_owned()].into(), ..Caller::default() };
    let refused = members_api::show(State(first.cluster()), member.clone()).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(overview(&first).await.open_until.is_some(), "a new cloud is open for a while");
    let refused = members_api::open(State(first.cluster()), member.clone(), Body(Open { minutes: 5 })).await;
    assert_eq!(refused.unwrap_err().status, StatusCode::FORBIDDEN);

    let ask = || Body(Policy { otherwise: Otherwise::Ask });
    let closed = within(members_api::policy(State(first.cluster()), admin(), ask())).await;
    assert_eq!(closed.unwrap(), StatusCode::NO_CONTENT);
    assert_eq!(overview(&first).await.open_until, None);

    let accepted = async {
        let words = || told::joining(&second.paths).and_then(|joining| joining.words);
        until("it shows its words", || words().is_some()).await;
        let shown = words().unwrap();
        let waiting = overview(&first).await.requests;
        assert_eq!((waiting[0].name.as_str(), waiting[0].words.as_str()), (&*second.name(), &*shown));

        let accept = |caller, words: &str| {
            within(members_api::accept(State(first.cluster()), caller, order(&second, Some(words))))
        };
        assert_eq!(accept(member, &shown).await.unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(accept(admin(), "no words").await.unwrap_err().status, StatusCode::BAD_REQUEST);
        assert_eq!(accept(admin(), "zoo zoo zoo zoo").await.unwrap_err().status, StatusCode::CONFLICT);
        let nobody = members_api::refuse(State(first.cluster()), admin(), order(&first, None)).await;
        assert_eq!(nobody.unwrap_err().status, StatusCode::NOT_FOUND, "a member does not ask");
        assert_eq!(accept(admin(), &shown).await.unwrap(), StatusCode::NO_CONTENT);
    };
    tokio::join!(second.start(), accepted);
    assert_eq!(overview(&first).await.members.len(), 2);
}
