//! Bad certificates, bodies, images, addresses.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image_builder::{Paths, exec};

use super::{Bench, says};
use crate::client::Client;

/// The name of images that are to be refused.
pub const REFUSED_IMAGE: &str = "refused-image";

/// The client refuses a cloud whose certificate another CA would have to have signed.
pub fn wrong_ca(paths: &Paths, client: &Client, bench: &Bench) -> Result<()> {
    let wrong = bench.path("wrong.pem");
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

/// Deeply nested JSON, and a body that is too large, to every service.
pub fn bombs(client: &Client, bench: &Bench) -> Result<()> {
    let token = client.token()?;
    let deep = bench.path("deep.json");
    fs::write(&deep, format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)))?;
    for path in
        ["/identity/v3/auth/tokens", "/compute/v2.1/servers", "/network/v2.0/networks", "/volume/v3/volumes"]
    {
        let (status, body) = client.http("POST", path, Some(&token), Some(&deep))?;
        ensure!(status == 400, "nested JSON on {path} gets {status}: {body}");
    }
    let huge = bench.path("huge.json");
    fs::write(&huge, format!("{{\"network\": {{\"name\": \"{}\"}}}}", "x".repeat(8 << 20)))?;
    let (status, body) = client.http("POST", "/network/v2.0/networks", Some(&token), Some(&huge))?;
    ensure!(status == 413, "a body of 8 MiB gets {status}: {body}");
    Ok(())
}

/// Images that are not what they should be: none becomes active.
pub fn images(client: &Client, bench: &Bench) -> Result<()> {
    let (good, corrupt, backed, huge) = (
        bench.file("good.raw"),
        bench.file("corrupt.qcow2"),
        bench.file("backed.qcow2"),
        bench.file("huge.qcow2"),
    );
    bench.qemu_img(&["create", "-q", "-f", "raw", &good, "1M"])?;
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "-b", &good, "-F", "raw", &backed])?;
    bench.qemu_img(&["create", "-q", "-f", "qcow2", &huge, "10T"])?;
    bench.qemu_img(&["create", "-q", "-f", "qcow2", &corrupt, "1G"])?;
    let mut bytes = fs::read(&corrupt)?;
    // The level-1 table's address, in the header: beyond the end of the file.
    bytes[40..48].copy_from_slice(&0x7fff_ffff_0000_u64.to_be_bytes());
    fs::write(&corrupt, bytes)?;
    for (file, words) in [
        (&corrupt, &["corrupt", "not a valid", "invalid", "damaged"][..]),
        (&backed, &["backing"][..]),
        (&huge, &["large", "virtual size", "exceed"][..]),
    ] {
        let create = ["image", "create", "--disk-format", "qcow2", "--file", file, REFUSED_IMAGE];
        let said = client.refused(&create).with_context(|| file.clone())?;
        says(&said, words)?;
        remove_refused(client).with_context(|| file.clone())?;
    }
    Ok(())
}

/// Removes the image that was refused; it must not have become active.
pub fn remove_refused(client: &Client) -> Result<()> {
    let left = client.json(&["image", "list", "--name", REFUSED_IMAGE, "--long"])?;
    for image in left.as_array().into_iter().flatten() {
        ensure!(image["Status"] != "active", "the image became active: {image}");
        client.run(&["image", "delete", image["ID"].as_str().unwrap_or_default()])?;
    }
    Ok(())
}

/// A subnet within another of its network.
pub fn overlap(client: &Client) -> Result<()> {
    client.run(&["network", "create", "refused-net"])?;
    let subnet = |range: &'static str, name: &'static str| {
        ["subnet", "create", "--network", "refused-net", "--subnet-range", range, name]
    };
    client.run(&subnet("10.99.0.0/24", "refused-a"))?;
    let said = client.refused(&subnet("10.99.0.128/25", "refused-b"));
    client.run(&["network", "delete", "refused-net"])?;
    says(&said?, &["overlaps with another subnet"])
}
