//! Bad input of every kind: each must be refused clearly and change nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use image_builder::{Paths, exec};

use crate::client::Client;
use crate::cloud::Access;
use crate::tour::{Inventory, step};

/// Options of the refusal tests.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The folder with the cloud's `openrc`.
    #[arg(long)]
    pub cloud: Option<PathBuf>,
}

/// Runs the tests.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let dir = options.cloud.clone().unwrap_or_else(|| paths.cloud());
    let client = Client::new(paths, Access::load(&dir)?)?;
    let work = paths.workspace().join("target/refusals");
    fs::create_dir_all(&work)?;
    let qemu_img = QemuImg { root: paths.root_tree(), work };
    let before = Inventory::before(&client)?;
    step("a wrong CA", || wrong_ca(paths, &client, &qemu_img.work))?;
    step("a token that is not one, and one that was revoked", || tokens(&client))?;
    step("a JSON bomb, a huge body", || bombs(&client, &qemu_img.work))?;
    step("a corrupt qcow2", || images(&client, &qemu_img))?;
    step("a subnet that overlaps", || overlap(&client))?;
    step("nothing has changed", || before.wait_same(&client))
}

/// The image's own qemu-img, for making bad images.
struct QemuImg {
    root: PathBuf,
    work: PathBuf,
}

impl QemuImg {
    fn run(&self, args: &[&str]) -> Result<()> {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let loader = self.root.join("usr/lib64/ld-linux-x86-64.so.2");
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(libraries).arg(self.root.join("usr/bin/qemu-img"));
        exec::run(command.args(args).current_dir(&self.work))
    }

    fn file(&self, name: &str) -> String {
        self.work.join(name).display().to_string()
    }
}

fn says(said: &str, any: &[&str]) -> Result<()> {
    let lower = said.to_lowercase();
    ensure!(any.iter().any(|word| lower.contains(word)), "the refusal does not say why: {said}");
    Ok(())
}

fn wrong_ca(paths: &Paths, client: &Client, work: &std::path::Path) -> Result<()> {
    let wrong = work.join("wrong.pem");
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]);
    openssl.args(["-subj", "/CN=not the cloud's", "-keyout", "/dev/null", "-out"]).arg(&wrong);
    exec::run(&mut openssl)?;
    let other = Client::new(paths, client.access().with("OS_CACERT", &wrong.display().to_string()))?;
    says(&other.refused(&["token", "issue"])?, &["certificate", "ssl"])
}

fn tokens(client: &Client) -> Result<()> {
    let (status, body) = client.http("GET", "/compute/v2.1/servers", Some("not-a-token"), None)?;
    ensure!(status == 401, "a made-up token gets {status}: {body}");
    let token = client.token()?;
    client.run(&["token", "revoke", &token])?;
    let (status, body) = client.http("GET", "/compute/v2.1/servers", Some(&token), None)?;
    ensure!(status == 401, "a revoked token gets {status}: {body}");
    Ok(())
}

fn bombs(client: &Client, work: &std::path::Path) -> Result<()> {
    let token = client.token()?;
    let deep = work.join("deep.json");
    fs::write(&deep, format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)))?;
    for path in
        ["/identity/v3/auth/tokens", "/compute/v2.1/servers", "/network/v2.0/networks", "/volume/v3/volumes"]
    {
        let (status, body) = client.http("POST", path, Some(&token), Some(&deep))?;
        ensure!(status == 400, "nested JSON on {path} gets {status}: {body}");
    }
    let huge = work.join("huge.json");
    fs::write(&huge, format!("{{\"network\": {{\"name\": \"{}\"}}}}", "x".repeat(8 << 20)))?;
    let (status, body) = client.http("POST", "/network/v2.0/networks", Some(&token), Some(&huge))?;
    ensure!(status == 413, "a body of 8 MiB gets {status}: {body}");
    Ok(())
}

fn images(client: &Client, qemu_img: &QemuImg) -> Result<()> {
    let (good, corrupt, backed, huge) = (
        qemu_img.file("good.raw"),
        qemu_img.file("corrupt.qcow2"),
        qemu_img.file("backed.qcow2"),
        qemu_img.file("huge.qcow2"),
    );
    qemu_img.run(&["create", "-q", "-f", "raw", &good, "1M"])?;
    qemu_img.run(&["create", "-q", "-f", "qcow2", "-b", &good, "-F", "raw", &backed])?;
    qemu_img.run(&["create", "-q", "-f", "qcow2", &huge, "10T"])?;
    qemu_img.run(&["create", "-q", "-f", "qcow2", &corrupt, "1G"])?;
    let mut bytes = fs::read(&corrupt)?;
    // The level-1 table's address, in the header: beyond the end of the file.
    bytes[40..48].copy_from_slice(&0x7fff_ffff_0000_u64.to_be_bytes());
    fs::write(&corrupt, bytes)?;
    for (file, words) in [
        (&corrupt, &["corrupt", "not a valid", "invalid", "damaged"][..]),
        (&backed, &["backing"][..]),
        (&huge, &["large", "virtual size", "exceed"][..]),
    ] {
        let create = ["image", "create", "--disk-format", "qcow2", "--file", file, "refused-image"];
        let said = client.refused(&create).with_context(|| file.clone())?;
        says(&said, words)?;
        let left = client.json(&["image", "list", "--name", "refused-image", "--long"])?;
        for image in left.as_array().into_iter().flatten() {
            ensure!(image["Status"] != "active", "{file} became active");
            client.run(&["image", "delete", image["ID"].as_str().unwrap_or_default()])?;
        }
    }
    Ok(())
}

fn overlap(client: &Client) -> Result<()> {
    client.run(&["network", "create", "refused-net"])?;
    let subnet = |range: &'static str, name: &'static str| {
        ["subnet", "create", "--network", "refused-net", "--subnet-range", range, name]
    };
    client.run(&subnet("10.99.0.0/24", "refused-a"))?;
    let said = client.refused(&subnet("10.99.0.128/25", "refused-b"));
    client.run(&["network", "delete", "refused-net"])?;
    says(&said?, &["overlaps with another subnet"])
}
