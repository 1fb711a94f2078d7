//! Says on every link what cloud this node is of, so that others find it, and whether it holds anything of a user's. The
//! node that leads answers for the cloud's name, too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::discovery::{Announcement, Phase};
use cairn_cluster::membership::{Cloud, CloudState, Member, change};
use cairn_wire::remote::Versions;

use super::cluster::Cluster;
use super::in_use::in_use;

/// How often it looks whether there is something else to say.
const LOOK: Duration = Duration::from_secs(2);
/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let (mut said, mut answers) = (None, false);
    loop {
        let leads = cluster.leads();
        if leads != answers {
            match cluster.sight().answer_for_cloud(leads) {
                Ok(()) => answers = leads,
                Err(error) => tracing::warn!(%error, "the cloud's name is not answered for as it should be"),
            }
        }
        match announcement(&cluster) {
            Ok(now) if said.as_ref() != Some(&now) => match cluster.sight().announce(&now) {
                Ok(()) => said = Some(now),
                Err(error) => tracing::warn!(%error, "this node cannot announce itself"),
            },
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "what this node would announce cannot be read"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn announcement(cluster: &Cluster) -> Result<Announcement> {
    let (cloud, members) = cluster.store.read(|tx| {
        let members = tx.list_unfenced::<Member>()?.iter().filter(|m| m.is_trusted()).count();
        Ok::<_, change::Error>((tx.get::<Cloud>(Cloud::ID)?, members))
    })?;
    let id = cluster.kept().belonging.cloud;
    Ok(Announcement {
        node: cluster.id,
        name: cluster.name.clone(),
        // A replica that has no state yet cannot let anybody in, nor can a cloud that was given up.
        phase: if cloud.as_ref().is_some_and(|c| c.state == CloudState::Active) {
            Phase::Member
        } else {
            Phase::Asking
        },
        cloud: id,
        founded_s: cloud.map_or(0, |cloud| cloud.founded.as_second()),
        members: u32::try_from(members).unwrap_or(u32::MAX),
        in_use: in_use(&cluster.store)?,
        versions: Versions::OURS,
    })
}
