//! Two nodes and a witness: each single loss is survived; only who has the code is served; it is let go again, but not
//! while it is needed.

use cairn_witness::house::House;
use tokio::task::JoinHandle;

use super::super::overview;
use super::super::witness::Add;
use super::*;

/// A third machine, on the same wire.
struct Witness {
    folder: tempfile::TempDir,
    at: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Witness {
    fn on(wire: &Wire) -> Witness {
        let at = SocketAddr::from(([127, 0, 7, 9], wire.port));
        let mut witness = Witness { folder: tempfile::tempdir().unwrap(), at, serving: None };
        witness.start();
        witness
    }

    fn start(&mut self) {
        let (folder, at) = (self.folder.path().to_owned(), self.at);
        self.serving = Some(tokio::spawn(async move {
            // The last one's socket is open until its task is gone.
            while cairn_witness::serve(&folder, at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
    }

    async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        drop(serving.await);
    }

    fn order(&self) -> Add {
        let code = House::open(self.folder.path()).unwrap().code(false).unwrap();
        Add { address: self.at.to_string(), code: code.reveal() }
    }
}

async fn two(wire: &Wire) -> [Node; 2] {
    let nodes = [wire.node(1), wire.node(2)];
    nodes[0].start().await;
    nodes[1].start().await;
    until("two members", || nodes.iter().all(|n| n.store().status().unwrap().members.len() == 2)).await;
    nodes
}

async fn outlook(node: &Node) -> String {
    within(overview::overview(&node.cluster())).await.unwrap().outlook
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_and_a_witness_survive_each_single_loss() {
    let wire = Wire::new();
    let nodes = two(&wire).await;
    let mut witness = Witness::on(&wire);
    assert!(outlook(&nodes[0]).await.contains("or a witness"));

    let mut code = witness.order().code;
    let last = code.pop();
    code.push(if last == Some('a') { 'b' } else { 'a' });
    let wrong = Add { code, ..witness.order() };
    let refused = ordered(&nodes[0], "/witness", &wrong).await.unwrap_err();
    assert!(refused.contains("cairn-witness code"), "{refused}");
    let other = Add { address: SocketAddr::new(nodes[1].ip, wire.port).to_string(), ..witness.order() };
    let refused = ordered(&nodes[0], "/witness", &other).await.unwrap_err();
    assert!(refused.contains("not the machine whose code"), "{refused}");
    ordered(&nodes[1], "/witness", &witness.order()).await.unwrap();
    until("three voters", || nodes.iter().all(|n| n.voters() == 3)).await;
    assert!(outlook(&nodes[0]).await.starts_with("One more"));

    for lost in [0, 1, 0] {
        let other = &nodes[1 - lost];
        nodes[lost].stop().await;
        other.put(&format!("test/without-{lost}")).await;
        let refused = ordered(other, "/witness/remove", &()).await.unwrap_err();
        assert!(refused.contains("does not answer"), "{refused}");
        nodes[lost].start().await;
        assert!(nodes[lost].has(&format!("test/without-{lost}")).await);
    }
    witness.stop().await;
    nodes[0].put("test/without-witness").await;
    witness.start();
    // It goes on where it was.
    nodes[0].stop().await;
    nodes[1].put("test/with-the-same-witness").await;
    nodes[0].start().await;

    until("all vote and are in touch", || nodes.iter().all(|n| n.voters() == 3)).await;
    let in_touch = || async { outlook(&nodes[0]).await.starts_with("One more") };
    within(async {
        while !in_touch().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    ordered(&nodes[0], "/witness/remove", &()).await.unwrap();
    until("one votes again", || nodes.iter().all(|n| n.voters() == 1)).await;
    assert_eq!(
        House::open(witness.folder.path()).unwrap().clouds().unwrap().len(),
        0,
        "it has forgotten the cloud"
    );
    nodes[1].put("test/without-any").await;
}
