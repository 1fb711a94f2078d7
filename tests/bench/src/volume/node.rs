//! One of Cairn's storage processes, as far as one volume with one replica goes: a disk, the volume, and its export.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cairn_shards::blk::{Export, ServeOptions};
use cairn_shards::format::MARKER;
use cairn_shards::pool::{NewVolume, Pool};
use clap::Args;

/// The volume's id.
const ID: &str = "bench";

/// A server of `bench volume`; started by it.
#[derive(Args)]
pub struct NodeOptions {
    /// Where its files are
    directory: PathBuf,
    /// Bytes of the volume
    size: u64,
}

/// Serves until its standard input ends. Says where, once it does.
pub fn run(options: &NodeOptions) -> Result<()> {
    let disks = options.directory.join("disks");
    mark(&disks.join("disk"), "disk")?;
    let pool = Pool::new(&disks, None);
    pool.scan()?;
    ensure!(pool.disks().len() == 1, "the disk is not taken: {:?}", pool.refused());
    if pool.find(ID).is_none() {
        pool.create(&NewVolume { id: ID.into(), size: options.size, read_only: false, source: None })?;
    }
    let serve = ServeOptions { dir: options.directory.join("run"), gid: None };
    serve.prepare()?;
    let mut export = Export::start(ID, 1, pool.open(ID)?, &serve)?;
    image_builder::stage::say(&export.socket().display().to_string());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    ensure!(export.stop(Duration::from_secs(10)), "the export does not end");
    Ok(())
}

/// Makes a directory a data disk, if it is none.
pub fn mark(disk: &Path, id: &str) -> Result<()> {
    std::fs::create_dir_all(disk)?;
    let marker = format!(r#"{{"format":1,"disk":"{id}","cloud":"bench"}}"#);
    match std::fs::File::create_new(disk.join(MARKER)) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => std::io::Write::write_all(&mut made?, marker.as_bytes()).context("cannot mark a disk"),
    }
}
