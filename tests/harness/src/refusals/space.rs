//! Data disks that are full: uploads are refused and leave nothing.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image_builder::exec;
use serde_json::json;

use super::input::{REFUSED_IMAGE, remove_refused};
use super::{Bench, says};
use crate::client::Client;
use crate::dev::Node;
use crate::tour::{Inventory, step};

/// What is left of each data disk, in bytes.
const LEFT: u64 = 32 << 20;
/// What is uploaded, in bytes.
const UPLOAD: usize = 96 << 20;
/// The file on each data disk that takes the room.
const FILLER: &str = "/var/lib/cairn/disks/*/refusals-filler";

/// The room on a node's data disks, taken. Given back when it is dropped.
pub struct Filler<'a> {
    node: &'a Node,
}

impl<'a> Filler<'a> {
    /// Takes all but so many bytes on each data disk.
    pub fn new(node: &'a Node, left: u64) -> Result<Filler<'a>> {
        let filler = Filler { node };
        let script = format!(
            "set -e; for disk in /var/lib/cairn/disks/*; do \
             set -- $(stat --file-system --format '%a %S' $disk); \
             fallocate --length $(($1 * $2 - {left})) $disk/refusals-filler; done"
        );
        exec::run(node.command("sh")?.args(["-c", &script])).context("filling the data disks")?;
        Ok(filler)
    }

    /// Gives the room back.
    pub fn remove(self) -> Result<()> {
        self.empty()
    }

    fn empty(&self) -> Result<()> {
        exec::run(self.node.command("sh")?.args(["-c", &format!("rm -f {FILLER}")]))
    }
}

impl Drop for Filler<'_> {
    fn drop(&mut self) {
        let _ = self.empty();
    }
}

/// Uploads that do not fit are refused, and pass when there is room.
pub fn uploads(client: &Client, bench: &Bench, node: &Node) -> Result<()> {
    let (raw, dense) = make(bench)?;
    let filler = Filler::new(node, LEFT)?;
    step("uploads to full data disks", || {
        let before = Inventory::before(client)?;
        for (format, file) in [("raw", &raw), ("qcow2", &dense)] {
            refused(client, format, file).with_context(|| format!("a {format} image"))?;
        }
        announced(client, Path::new(&raw))?;
        before.wait_same(client)
    })?;
    filler.remove()?;
    step("the same uploads when there is room", || {
        for (format, file) in [("raw", &raw), ("qcow2", &dense)] {
            let create = ["image", "create", "--disk-format", format, "--file", file, REFUSED_IMAGE];
            client.run(&create)?;
            let show = ["image", "show", REFUSED_IMAGE];
            let active = client.wait_field(&show, "status", "active", Duration::from_secs(30));
            client.run(&["image", "delete", REFUSED_IMAGE])?;
            active?;
        }
        Ok(())
    })
}

/// A raw image that does not fit, and a qcow2 one that does, but not what it describes.
fn make(bench: &Bench) -> Result<(String, String)> {
    let (raw, dense) = (bench.file("large.raw"), bench.file("dense.qcow2"));
    let mut bytes = Vec::new();
    File::open("/dev/urandom")?.take(UPLOAD as u64).read_to_end(&mut bytes)?;
    fs::write(&raw, &bytes)?;
    let even = bench.path("even.raw");
    fs::write(&even, vec![0x5a; UPLOAD])?;
    let even = even.display().to_string();
    bench.qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", &even, &dense])?;
    ensure!(fs::metadata(&dense)?.len() < LEFT / 4, "the compressed image is too large for the test");
    Ok((raw, dense))
}

/// The client says that the disks are full; the image is not active.
pub fn refused(client: &Client, format: &str, file: &str) -> Result<()> {
    let create = ["image", "create", "--disk-format", format, "--file", file, REFUSED_IMAGE];
    let said = client.refused(&create);
    remove_refused(client)?;
    says(&said?, &["data disks of this node are full"])
}

/// An upload that tells its length is refused for it, and its image waits for another.
fn announced(client: &Client, file: &Path) -> Result<()> {
    let token = client.token()?;
    let image = json!({"name": REFUSED_IMAGE, "disk_format": "raw", "container_format": "bare"});
    let made = client.request("POST", "/image/v2/images").token(&token).json(&image).answered(201)?.json()?;
    let one = format!("/image/v2/images/{}", made["id"].as_str().unwrap_or_default());
    let put = client.request("PUT", &format!("{one}/file")).token(&token);
    let reply = put.file("application/octet-stream", file).answered(413);
    let now = client.request("GET", &one).token(&token).answered(200)?.json()?;
    client.request("DELETE", &one).token(&token).answered(204)?;
    says(&reply?.body, &["data disks of this node are full"])?;
    ensure!(now["status"] == "queued", "the image is {}", now["status"]);
    Ok(())
}
