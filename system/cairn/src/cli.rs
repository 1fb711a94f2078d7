//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cairn_node::Paths;
use cairn_shards::disks::{DiskAction, DiskOrder};
use cairn_shards::external::model::Access;
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::roles::controller::{Add, Open, Order, Removal};
use crate::{lifecycle, logging, operator, roles};

/// Cairn: a cloud in a box.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Role: brings the node up and watches its links and certificates. (Run by systemd.)
    Node {
        /// The terminals to show the console on.
        #[arg(long, default_values = ["/dev/tty1", "/dev/console"])]
        screen: Vec<PathBuf>,
    },
    /// Role: the store and the APIs. (Run by systemd.)
    Controller,
    /// Role: runs guests through libvirt. (Run by systemd.)
    Compute,
    /// Role: networks, routers, DHCP, metadata. (Run by systemd.)
    Network,
    /// Role: serves volumes from the data disks. (Run by systemd.)
    Storage,
    /// Mounts this node's disks and adopts empty ones; a disk that holds anything foreign is never touched.
    Disks {
        /// Look at these devices and no other.
        #[arg(long)]
        only: Vec<PathBuf>,
        /// Give up when there is no disk for the node's state, instead of waiting for one.
        #[arg(long)]
        no_wait: bool,
    },
    /// Asks this node's data disks how they are (SMART), for the storage role to tell.
    DiskHealth {
        /// Ask these devices and no other.
        #[arg(long)]
        only: Vec<PathBuf>,
    },
    /// Lets a node in that asks to join the cloud, if its screen shows these words.
    Accept {
        /// Its name, as `cairn status` shows it.
        node: String,
        /// The four words that its screen shows.
        #[arg(required = true, num_args = 1..=4)]
        words: Vec<String>,
    },
    /// Refuses a node that asks to join the cloud.
    Refuse {
        /// Its name, as `cairn status` shows it.
        node: String,
    },
    /// Removes a node from the cloud, for ever. It may be dead. Its servers must have been moved or deleted.
    Remove {
        /// Its name, as `cairn status` shows it.
        node: String,
        /// Even if it has the only whole copy of volumes: they are lost.
        #[arg(long)]
        lose_volumes: bool,
    },
    /// Lets in whoever asks to join the cloud, for a time.
    Open {
        /// For how many minutes; 0 closes it.
        minutes: u32,
    },
    /// Gives the cloud one address on its LAN at which it answers, on whichever node: one that no machine has.
    Address {
        /// The address, or `none` to take it back.
        address: String,
    },
    /// Shows the data disks of all nodes, has one emptied, gives one up.
    #[command(subcommand)]
    Disk(Disk),
    /// Shows, adds and removes backends: Ceph clusters that volumes may be in, beside the nodes' own disks. A volume type
    /// chooses one by the extra spec volume_backend_name.
    #[command(subcommand)]
    Backend(Backend),
    /// Takes in or lets go a witness: a third machine that votes and is no node, so that a cloud of two nodes bears the
    /// loss of either. `cairn-witness` is to run there.
    #[command(subcommand)]
    Witness(Witness),
    /// Goes on without the cloud's majority, when most of the members that vote are lost for good. Shows what that
    /// means, refuses while it is not safe, and asks for confirmation. For the node that knows most.
    Recover {
        /// The cloud's id, instead of being asked for it.
        #[arg(long)]
        cloud: Option<String>,
    },
    /// Shows on one screen what this node believes: the cloud, roles, reconcilers, disks, links, guests.
    Status {
        /// As JSON, with every fact the roles report.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Disk {
    /// Shows the data disks of all nodes, and how they are doing.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Has what is on a disk moved to others, under the guests that use it, and nothing new put there.
    Drain {
        /// Its id, as `cairn disk list` shows it.
        disk: String,
    },
    /// Drains a disk, and forgets it once it is taken out. It may be gone already.
    Retire {
        /// Its id, as `cairn disk list` shows it.
        disk: String,
        /// Even if it is gone and has the only whole copy of volumes: they are lost.
        #[arg(long)]
        lose_volumes: bool,
    },
    /// Uses a disk again that was to be drained or retired.
    Keep {
        /// Its id, as `cairn disk list` shows it.
        disk: String,
    },
}

#[derive(Subcommand)]
enum Backend {
    /// Shows the backends, how much room they have and which nodes reach them.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a pool of a Ceph cluster known, once it was seen to be of use; or says where a known one is now, and by which
    /// key. Its user needs `profile rbd` for the monitors and the pool.
    Add {
        /// What volume types shall call it.
        name: String,
        /// The addresses of its monitors, with commas between.
        #[arg(long, value_delimiter = ' ', required = true)]
        monitors: Vec<String>,
        /// The pool for volumes.
        #[arg(long)]
        pool: String,
        /// The user, without `client.` before it.
        #[arg(long)]
        user: String,
        /// A file with the user's key: alone, or a keyring.
        #[arg(long)]
        key_file: PathBuf,
    },
    /// Forgets a backend that has no volumes. Its pool stays as it is.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand)]
enum Witness {
    /// Takes in the witness at this address; or says where the cloud's own is now.
    Add {
        /// Its IP address, with a port if that is not 4600.
        address: String,
        /// What `cairn-witness code` shows there.
        code: String,
    },
    /// Lets the witness go.
    Remove,
}

/// Runs what the command line says.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    let paths = Paths::default();
    match cli.command {
        Command::Node { screen } => role("node", 1, roles::node::run(paths, screen)),
        Command::Controller => role("controller", 2, roles::controller::run(paths)),
        Command::Compute => role("compute", 2, roles::agents::compute(paths)),
        Command::Network => role("network", 1, roles::agents::network(paths)),
        Command::Storage => role("storage", 2, roles::agents::storage(paths)),
        Command::Disks { only, no_wait } => operator::disks(&paths, &only, no_wait),
        Command::DiskHealth { only } => operator::disk_health(&paths, &only),
        Command::Accept { node, words } => {
            order(&paths, "/accept", &Order { node, words: Some(words.join(" ")), ..Order::default() })
        }
        Command::Refuse { node } => order(&paths, "/refuse", &Order { node, ..Order::default() }),
        Command::Remove { node, lose_volumes } => {
            order(&paths, "/remove", &Order { node, lose_volumes, ..Order::default() })
        }
        Command::Open { minutes } => order(&paths, "/open", &Open { minutes }),
        Command::Address { address } => order(&paths, "/address", &operator::address(&address)?),
        Command::Disk(Disk::List { json }) => {
            lifecycle::runtime(1)?.block_on(operator::disk_list(&paths, json))
        }
        Command::Disk(Disk::Drain { disk }) => {
            order(&paths, "/disks", &DiskOrder { disk, action: DiskAction::Drain, lose_volumes: false })
        }
        Command::Disk(Disk::Retire { disk, lose_volumes }) => {
            order(&paths, "/disks", &DiskOrder { disk, action: DiskAction::Retire, lose_volumes })
        }
        Command::Disk(Disk::Keep { disk }) => {
            order(&paths, "/disks", &DiskOrder { disk, action: DiskAction::Keep, lose_volumes: false })
        }
        Command::Backend(Backend::List { json }) => {
            lifecycle::runtime(1)?.block_on(operator::backend_list(&paths, json))
        }
        Command::Backend(Backend::Add { name, monitors, pool, user, key_file }) => {
            let access = Access { monitors, pool, user };
            order(&paths, "/backends", &operator::backend(name, access, &key_file)?)
        }
        Command::Backend(Backend::Remove { name }) => order(&paths, "/backends/remove", &Removal { name }),
        Command::Witness(Witness::Add { address, code }) => order(&paths, "/witness", &Add { address, code }),
        Command::Witness(Witness::Remove) => order(&paths, "/witness/remove", &()),
        Command::Recover { cloud } => lifecycle::runtime(1)?.block_on(operator::recover(&paths, cloud)),
        Command::Status { json } => lifecycle::runtime(1)?.block_on(operator::status(&paths, json)),
    }
}

fn order(paths: &Paths, path: &str, order: &impl Serialize) -> Result<()> {
    lifecycle::runtime(1)?.block_on(operator::order(paths, path, order))
}

fn role(name: &'static str, threads: usize, body: impl Future<Output = Result<()>>) -> Result<()> {
    logging::init();
    lifecycle::runtime(threads)?.block_on(body).with_context(|| format!("the role {name} ended"))
}
