//! A node asks a cloud that it sees to let it in: the handshake with one of the cloud's nodes, then looking again
//! until a person has answered, with the words on the screen meanwhile.

use std::time::Duration;

use cairn_cluster::Belonging;
use cairn_cluster::discovery::Sighting;
use cairn_cluster::join::applicant::Offered;
use cairn_cluster::join::client;
use cairn_cluster::join::messages::{Answer, Application};
use cairn_node::told::{self, Joining};
use cairn_wire::remote::{Endpoint, Expect};

use super::given::Given;
use super::surroundings::Surroundings;

/// How often it looks whether a person has answered.
const LOOK: Duration = Duration::from_secs(2);
/// How long it waits after a refusal before it asks again.
const REFUSED: Duration = Duration::from_secs(60);
/// How often a node that was asked may fail to answer in a row before another is asked.
const SILENT_MAX: u32 = 5;

/// Asks for one node.
pub struct Asker<'a> {
    around: &'a Surroundings,
    given: &'a Given,
    endpoint: &'a Endpoint,
}

impl<'a> Asker<'a> {
    /// For this node.
    pub fn new(around: &'a Surroundings, given: &'a Given, endpoint: &'a Endpoint) -> Asker<'a> {
        Asker { around, given, endpoint }
    }

    /// Asks the nodes of a cloud in turn until one has let this node in; `None` if it came to nothing this time.
    pub async fn ask(&self, cloud: &str, nodes: &[Sighting]) -> Option<Belonging> {
        for node in nodes {
            let (at, name) = (&node.addresses, &node.announcement.name);
            let application = Application {
                release: env!("CARGO_PKG_VERSION").into(),
                addresses: self.around.reachable_at(),
            };
            let expect = Expect::Stranger(node.announcement.node);
            let token = self.given.token.as_ref();
            match client::apply(self.endpoint, at, expect, &application, token).await {
                // Who announces one cloud and offers another is not whom it was decided to ask.
                Ok(applied) if applied.offered.cloud() != cloud => {
                    tracing::warn!(node = name, "a node offers another cloud than it announces");
                }
                Ok(applied) => match applied.answer {
                    Answer::Admitted { belonging, .. } => return Some(*belonging),
                    Answer::Waiting => return self.wait(&applied.offered, node).await,
                    Answer::Refused(why) => return self.refused(cloud, &why).await,
                },
                Err(e) => {
                    tracing::info!(node = name, error = %e, "a node did not answer to a request to join");
                }
            }
        }
        self.show(format!("Cloud {cloud} is seen, and none of its nodes answers."), None);
        None
    }

    /// Waits for a person's answer.
    async fn wait(&self, offered: &Offered, node: &Sighting) -> Option<Belonging> {
        let (cloud, name) = (offered.cloud(), &node.announcement.name);
        let words = offered.words().to_string();
        tracing::info!(cloud, node = name, words, "waiting to be let in");
        self.show(
            format!(
                "Waiting to be let in to cloud {cloud}: accept this node there if it shows the same words."
            ),
            Some(words),
        );
        let mut silent = 0;
        while silent < SILENT_MAX {
            tokio::time::sleep(LOOK).await;
            match client::status(self.endpoint, &node.addresses, offered).await {
                Ok(Answer::Admitted { belonging, .. }) => return Some(*belonging),
                Ok(Answer::Refused(why)) => return self.refused(cloud, &why).await,
                Ok(Answer::Waiting) => silent = 0,
                Err(e) => {
                    tracing::debug!(node = name, error = %e, "the node that was asked does not answer");
                    silent += 1;
                }
            }
        }
        None
    }

    async fn refused(&self, cloud: &str, why: &str) -> Option<Belonging> {
        tracing::warn!(cloud, why, "this node was not let in");
        self.show(format!("Not let in to cloud {cloud}: {why}. It asks again in a minute."), None);
        tokio::time::sleep(REFUSED).await;
        None
    }

    fn show(&self, state: String, words: Option<String>) {
        let joining = Joining { state, words, waiting: Vec::new() };
        if let Err(e) = told::tell_joining(&self.around.paths, &joining) {
            tracing::warn!(error = %e, "the screen cannot be told how joining stands");
        }
    }
}
