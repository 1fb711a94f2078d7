//! The host's packages: what must be there to build, to make images and to run the emulated LAN.
//!
//! Installs what is missing by apt-get, and nothing else. It must never change the host's apt sources,
//! remove a package, or start a service.

use anyhow::{Result, bail};

use crate::exec;
use crate::stage::Stages;

/// Needed to compile the workspace.
const BUILD: &[&str] = &["build-essential", "libsystemd-dev", "libvirt-dev", "pkg-config"];

/// Needed to build images: mkosi brings its own tools, these start it.
const IMAGE: &[&str] = &[
    "apt",
    "ca-certificates",
    "cpio",
    "curl",
    "debian-archive-keyring",
    "dpkg",
    "python3",
    "util-linux",
    "xz-utils",
];

/// Needed to run the image, a development node and the tests.
const RUN: &[&str] = &[
    "busybox-static",
    "dnsmasq-base",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "iputils-ping",
    "mount",
    "nftables",
    "openssh-client",
    "openssl",
    "procps",
    "python3-venv",
    "qemu-utils",
    "xfsprogs",
];

/// Installs the packages that are missing. Needs root only if there are any.
pub fn setup(stages: &mut Stages) -> Result<()> {
    let wanted: Vec<&str> = [BUILD, IMAGE, RUN].concat();
    let missing = missing(&wanted)?;
    let lists =
        exec::succeeds(&mut exec::command("sh", ["-c", "apt-get indextargets | grep -q '^Origin: Debian$'"]));
    if missing.is_empty() && lists {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "these packages are missing: {}; run this again as root, or as root: apt-get install {}",
            missing.join(" "),
            missing.join(" ")
        );
    }
    stages.run("host packages", |step| {
        step.exec(apt_get().args(["update", "-q"]))?;
        if !missing.is_empty() {
            step.exec(apt_get().args(["install", "-q", "-y", "--no-install-recommends"]).args(&missing))?;
        }
        Ok(())
    })
}

fn apt_get() -> std::process::Command {
    let mut command = exec::command("apt-get", ["-o", "DPkg::Lock::Timeout=300"]);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// Those of the packages that dpkg does not have installed.
fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = exec::command("dpkg-query", ["-W", "-f", "${db:Status-Abbrev}${Package}\n"]);
    let listed = exec::output(&mut query)?;
    Ok(absent(wanted, &listed))
}

fn absent<'a>(wanted: &[&'a str], listed: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("ii ")).collect();
    wanted.iter().copied().filter(|name| !installed.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_count_as_missing() {
        let listed = "ii kmod\nrc curl\nii curl-extra\n";
        assert_eq!(absent(&["curl"], listed), ["curl"]);
    }
}
