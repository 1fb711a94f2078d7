//! A node asks a cloud that is not open, and a person answers.

use cairn_cluster::membership::{JoinPolicy, change};
use cairn_node::told;

use super::*;

async fn closed(node: &Node) {
    node.start().await;
    let closed = node.store();
    within(closed.transact(|tx| Ok::<_, change::Error>(tx.put(&JoinPolicy::default())?))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_with_its_words_until_it_is_accepted() {
    let wire = Wire::new();
    let (first, second) = (wire.node(11), wire.node(12));
    closed(&first).await;
    let asked = |n: &Node| told::joining(&n.paths).unwrap_or_default();
    let accepted = async {
        until("it waits on both screens", || {
            asked(&second).words.is_some() && !asked(&first).waiting.is_empty()
        })
        .await;
        let shown = asked(&second).words.unwrap();
        assert_eq!(asked(&first).waiting, [told::Waiting { name: second.name(), words: shown.clone() }]);
        let order = |words: &str| operator::Order {
            node: second.name(),
            words: Some(words.into()),
            ..operator::Order::default()
        };
        let refused = ordered(&first, "/accept", &order("zoo zoo zoo zoo")).await.unwrap_err();
        assert!(refused.contains("compare them again"), "{refused}");
        assert!(ordered(&first, "/accept", &order("not words")).await.is_err());
        ordered(&first, "/accept", &order(&shown)).await.unwrap();
    };
    tokio::join!(second.start(), accepted);
    first.put("test/x").await;
    until("it is in the group", || second.store().status().unwrap().members.len() == 2).await;
    assert!(second.has("test/x").await);
    until("nobody waits", || asked(&first) == told::Joining::default()).await;
    assert_eq!((first.voters(), second.voters()), (1, 1), "a second voter would only be one more to lose");

    // What an operator sees, on the node that joined.
    let router = operator::router(second.cluster());
    let socket = second.paths.operator_socket();
    let served = tokio::spawn(async move { local_http::serve(&socket, 0o600, router).await });
    let client = local_http::Client::new(second.paths.operator_socket());
    until("the socket is there", || second.paths.operator_socket().exists()).await;
    let seen: super::super::Overview = within(client.get_json("/cluster")).await.unwrap();
    assert_eq!((seen.members.len(), seen.requests.len(), seen.leader), (2, 0, Some(first.name())));
    served.abort();
}
