//! Entering the image's root tree: an overlay over it, the kernel's file systems, the node's own folders, and
//! what a development node must have otherwise than the appliance (no cgroups, guests run as root).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use super::init::Options;

/// Where programs are looked for.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What libvirt must be told, beside what the image tells it, where there is no systemd and no cgroup v2.
const QEMU_CONF: &str = "\ncgroup_controllers = [ ]\nnamespaces = [ ]\n";
const LIBVIRTD_CONF: &str = "\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n";

/// Makes the mounts and pivots into them. Needs a mount namespace of our own.
pub fn enter(options: &Options) -> Result<()> {
    remount(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let work = options.dir.join("root");
    fs::create_dir_all(&work)?;
    mount_new("tmpfs", &work, "tmpfs", "mode=755")?;
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(work.join(name))?;
    }
    let merged = work.join("merged");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        options.root.display(),
        work.join("upper").display(),
        work.join("work").display()
    );
    mount_new("overlay", &merged, "overlay", &layers)?;
    fill(options, &merged)?;
    let old = merged.join("mnt");
    pivot_root(&merged, &old).context("cannot pivot into the root tree")?;
    chdir("/")?;
    umount2("/mnt", MntFlags::MNT_DETACH).context("cannot leave the host's root")?;
    settings()
}

fn fill(options: &Options, at: &Path) -> Result<()> {
    bind(Path::new("/dev"), &at.join("dev"))?;
    mount_new("proc", &at.join("proc"), "proc", "")?;
    mount_new("sysfs", &at.join("sys"), "sysfs", "")?;
    mount_new("tmpfs", &at.join("run"), "tmpfs", "mode=755")?;
    mount_new("tmpfs", &at.join("tmp"), "tmpfs", "mode=1777")?;
    fs::create_dir_all(at.join("var/lib/cairn"))?;
    for (own, place) in [("log", "var/log"), ("cache", "var/cache/libvirt")] {
        let own = options.dir.join(own);
        fs::create_dir_all(&own)?;
        fs::create_dir_all(at.join(place))?;
        bind(&own, &at.join(place))?;
    }
    for dir in ["var/log/libvirt/qemu", "var/log/cairn/console", "run/netns", "run/libvirt", "run/lock"] {
        fs::create_dir_all(at.join(dir))?;
    }
    let program = at.join("usr/bin/cairn");
    fs::write(&program, "")?;
    bind(&options.cairn, &program)?;
    fs::write(at.join("var/log/screen"), "")?;
    append(&at.join("etc/libvirt/qemu.conf"), QEMU_CONF)?;
    append(&at.join("etc/libvirt/libvirtd.conf"), LIBVIRTD_CONF)?;
    // The host's device may be root's alone; on the appliance udev opens it to all.
    let tun = options.dir.join("tun");
    if !tun.exists() {
        mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))?;
        fs::set_permissions(&tun, fs::Permissions::from_mode(0o666))?;
    }
    bind(&tun, &at.join("dev/net/tun"))?;
    Ok(())
}

/// The kernel settings that the appliance has from its sysctl files, as far as they are the namespace's own.
fn settings() -> Result<()> {
    for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        fs::write(Path::new("/proc/sys").join(name), "1").with_context(|| format!("cannot set {name}"))?;
    }
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        // Absent where br_netfilter is not loaded; then there is nothing to switch off.
        let _ = fs::write(Path::new("/proc/sys/net/bridge").join(name), "0");
    }
    Ok(())
}

fn append(file: &Path, text: &str) -> Result<()> {
    let mut open =
        fs::OpenOptions::new().append(true).open(file).with_context(|| format!("no {}", file.display()))?;
    Ok(open.write_all(text.as_bytes())?)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot bind {} on {}", from.display(), to.display()))
}

fn mount_new(source: &str, at: &Path, kind: &str, options: &str) -> Result<()> {
    mount(Some(source), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} on {}", at.display()))
}

fn remount(at: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot change the mount {}", at.display()))
}
