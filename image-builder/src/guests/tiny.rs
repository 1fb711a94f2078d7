//! `tiny.qcow2`: a guest for tests that boots in seconds under emulation, from a disk like any other image.
//!
//! Debian's cloud kernel, busybox, dropbear and mke2fs; DHCP, metadata, ssh, volumes. Put together from
//! packages with the programs of the tools tree; nothing is mounted. Its own files are in
//! `image-builder/guests/tiny`. Markers on its serial console: TINY-INIT, TINY-DHCP, TINY-META, TINY-SSH.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk;
use crate::apt::{AptRoot, RELEASE};
use crate::exec;
use crate::mkosi;
use crate::paths::{Paths, ensure_dir};
use crate::stage::{Inputs, Stages, Step};

const KERNEL: &str = "linux-image-cloud-amd64";
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dropbear-bin",
    "e2fsprogs",
    "libblkid1",
    "libc6",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2t64",
    "libgmp10",
    "libss2",
    "libtomcrypt1",
    "libtommath1",
    "libuuid1",
    "zlib1g",
];

/// Programs beside busybox, with the names they also go by.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("usr/sbin/dropbear", &[]),
    ("usr/bin/dropbearkey", &[]),
    ("usr/sbin/mke2fs", &["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"]),
    ("usr/sbin/resize2fs", &[]),
    ("usr/sbin/e2fsck", &["fsck.ext4"]),
];

/// Libraries of those programs, by the beginnings of their names.
const LIBRARIES: &[&str] = &[
    "ld-linux-x86-64.so",
    "libblkid.so",
    "libc.so",
    "libcom_err.so",
    "libcrypt.so",
    "libe2p.so",
    "libext2fs.so",
    "libm.so",
    "libnss_files.so",
    "libss.so",
    "libtomcrypt.so",
    "libtommath.so",
    "libuuid.so",
    "libz.so",
    "libgmp.so",
    "libpthread.so",
    "libdl.so",
    "libutil.so",
];

/// What finds the root disk.
const EARLY_MODULES: &[&str] = &["virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "nvme"];

/// What the running guest may load.
const LATE_MODULES: &[&str] = &[
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "button",
    "evdev",
    "ahci",
    "sr_mod",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "8021q",
    "af_packet",
    "virtio_scsi",
    "sd_mod",
    "nvme",
    "xfs",
    "loop",
];

/// Builds `target/image/guests/tiny.qcow2` if what it is made of changed; returns its path.
pub fn build(stages: &mut Stages) -> Result<PathBuf> {
    mkosi::obtain(stages)?;
    let paths = stages.paths().clone();
    let image = paths.guests().join("tiny.qcow2");
    let inputs = Inputs::new()
        .text(RELEASE)
        .text(include_str!("tiny.rs"))
        .tree(&paths.crate_dir().join("guests/tiny"))?;
    stages.run_if_changed("tiny guest", &inputs, &[&image], |step| make(&paths, step, &image))?;
    Ok(image)
}

fn make(paths: &Paths, step: &Step, image: &Path) -> Result<()> {
    let work = paths.cache().join("tiny");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let packages = ensure_dir(work.join("packages"))?;
    let apt = AptRoot::open(paths, step)?;
    let kernel = apt.first_dependency(KERNEL)?;
    apt.unpack(step, PACKAGES, &packages)?;
    apt.unpack(step, &[&kernel], &packages)?;
    let own = paths.crate_dir().join("guests/tiny");
    let version = kernel.trim_start_matches("linux-image-").to_owned();
    let modules = Modules { paths, step, packages: &packages, version: &version };

    step.note("root file system");
    let root = root_files(step, &packages, &own, &work)?;
    modules.install(LATE_MODULES, &root)?;
    let linux = work.join("root.ext4");
    fs::File::create(&linux)?.set_len(64 << 20)?;
    step.exec(
        mkosi::tool(paths, "mke2fs")?
            .args(["-q", "-t", "ext4", "-b", "4096", "-J", "size=4", "-L", "tiny-root", "-m", "0"])
            .arg("-d")
            .args([&root, &linux]),
    )?;

    step.note("boot partition");
    let initrd = initrd(&modules, &own, &work)?;
    let vmlinuz = packages.join(format!("boot/vmlinuz-{version}"));
    let fat = boot_partition(paths, step, &own, &work, &[(&vmlinuz, "vmlinuz"), (&initrd, "initrd.gz")])?;

    step.note("disk");
    let boot_code = tool_file(paths, "usr/lib/syslinux/mbr/mbr.bin");
    let raw = work.join("tiny.raw");
    disk::assemble(&fs::read(&boot_code).context("no boot code in the tools tree")?, &fat, &linux, &raw)?;
    let compressed = work.join("tiny.qcow2");
    step.exec(
        mkosi::tool(paths, "qemu-img")?.args(["convert", "-c", "-O", "qcow2"]).args([&raw, &compressed]),
    )?;
    ensure_dir(paths.guests())?;
    fs::rename(&compressed, image)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Picks the files of the root file system out of the packages, and adds our own.
fn root_files(step: &Step, packages: &Path, own: &Path, work: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "mnt",
        "root",
        "var/lib",
        "var/log",
    ] {
        ensure_dir(root.join(folder))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    busybox(packages, &root.join("usr/bin"), Path::new("/usr/bin/busybox"))?;
    for sbin in ["init", "poweroff", "reboot", "halt", "acpid", "getty", "modprobe"] {
        symlink("/usr/bin/busybox", root.join("usr/sbin").join(sbin))?;
    }
    for (program, aliases) in PROGRAMS {
        let to = root.join(program);
        fs::copy(find(packages, program)?, &to)?;
        for alias in *aliases {
            let name = to.file_name().context("a program has a name")?;
            symlink(name, to.with_file_name(alias))?;
        }
    }
    libraries(packages, &root)?;
    step.exec(exec::command("cp", ["-a"]).arg(own.join("rootfs/.")).arg(&root))?;
    step.exec(exec::command("chown", ["-R", "0:0"]).arg(&root))?;
    symlink("/run/resolv.conf", root.join("etc/resolv.conf"))?;
    symlink("/proc/mounts", root.join("etc/mtab"))?;
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o600))?;
    Ok(root)
}

/// The initrd: busybox, the modules of the disk, and the script that mounts it.
fn initrd(modules: &Modules, own: &Path, work: &Path) -> Result<PathBuf> {
    let root = work.join("initrd");
    for folder in ["bin", "dev", "proc", "sys", "root"] {
        ensure_dir(root.join(folder))?;
    }
    busybox(modules.packages, &root.join("bin"), Path::new("/bin/busybox"))?;
    modules.install(EARLY_MODULES, &root)?;
    fs::copy(own.join("initrd/init"), root.join("init"))?;
    let archive = work.join("initrd.gz");
    let script =
        "cd \"$1\" && find . -print0 | sort -z | cpio --null --quiet -o -H newc -R 0:0 | gzip -9n > \"$2\"";
    modules.step.exec(exec::command("sh", ["-ec", script, "sh"]).arg(&root).arg(&archive))?;
    Ok(archive)
}

/// A FAT partition that syslinux boots.
fn boot_partition(
    paths: &Paths,
    step: &Step,
    own: &Path,
    work: &Path,
    files: &[(&Path, &str)],
) -> Result<PathBuf> {
    let fat = work.join("boot.fat");
    let mut bytes = 2 << 20;
    for (file, _) in files {
        bytes += fs::metadata(file)?.len();
    }
    fs::File::create(&fat)?.set_len(bytes.next_multiple_of(1 << 20))?;
    step.exec(mkosi::tool(paths, "mkfs.vfat")?.args(["-F", "16", "-n", "TINYBOOT"]).arg(&fat))?;
    let config = own.join("boot/syslinux.cfg");
    for (file, name) in files.iter().copied().chain([(config.as_path(), "syslinux.cfg")]) {
        step.exec(mkosi::tool(paths, "mcopy")?.arg("-i").arg(&fat).arg(file).arg(format!("::{name}")))?;
    }
    step.exec(mkosi::tool(paths, "syslinux")?.arg("--install").arg(&fat))?;
    Ok(fat)
}

/// Puts busybox into `folder` and a link for each of its programs, pointing to `target`.
fn busybox(packages: &Path, folder: &Path, target: &Path) -> Result<()> {
    let program = folder.join("busybox");
    fs::copy(find(packages, "usr/bin/busybox")?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let listed = exec::output(&mut exec::command(&program.to_string_lossy(), ["--list"]))?;
    for name in listed.lines().filter(|name| *name != "busybox") {
        symlink(target, folder.join(name))?;
    }
    Ok(())
}

fn libraries(packages: &Path, root: &Path) -> Result<()> {
    let folder = "usr/lib/x86_64-linux-gnu";
    let to = ensure_dir(root.join(folder))?;
    for entry in fs::read_dir(packages.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if LIBRARIES.iter().any(|wanted| name.starts_with(wanted)) && entry.path().is_file() {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    symlink("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root.join("usr/lib64/ld-linux-x86-64.so.2"))?;
    Ok(())
}

/// A packaged file: packages of one release may name it under `/usr` or not.
fn find(packages: &Path, name: &str) -> Result<PathBuf> {
    let short = name.trim_start_matches("usr/");
    let candidates = [packages.join(name), packages.join(short)];
    candidates.into_iter().find(|path| path.is_file()).with_context(|| format!("no package has {name}"))
}

fn tool_file(paths: &Paths, name: &str) -> PathBuf {
    mkosi::out_dir(paths).join("tools").join(name)
}

/// The kernel's modules, unpacked from their package.
struct Modules<'a> {
    paths: &'a Paths,
    step: &'a Step,
    packages: &'a Path,
    version: &'a str,
}

impl Modules<'_> {
    /// Copies modules and all they depend on into `root`, uncompressed, with an index for modprobe.
    fn install(&self, names: &[&str], root: &Path) -> Result<()> {
        let from = find_modules(self.packages, self.version)?;
        let base = from.ancestors().nth(3).context("modules lie in lib/modules/<version>")?;
        if !from.join("modules.dep").exists() {
            self.depmod(base)?;
        }
        let index = fs::read_to_string(from.join("modules.dep"))?;
        let to = root.join("lib/modules").join(self.version);
        for module in closure(&index, names) {
            let place = to.join(module.trim_end_matches(".xz"));
            ensure_dir(place.parent().context("a module lies in a folder")?.to_owned())?;
            fs::copy(from.join(&module), to.join(&module))?;
            if module.ends_with(".xz") {
                self.step.exec(exec::command("xz", ["-d", "-f"]).arg(to.join(&module)))?;
            }
        }
        for list in ["modules.builtin", "modules.order"] {
            fs::copy(from.join(list), to.join(list))?;
        }
        self.depmod(root)
    }

    fn depmod(&self, base: &Path) -> Result<()> {
        self.step.exec(mkosi::tool(self.paths, "depmod")?.arg("-b").arg(base).arg(self.version))
    }
}

fn find_modules(packages: &Path, version: &str) -> Result<PathBuf> {
    let places = ["usr/lib/modules", "lib/modules"].map(|place| packages.join(place).join(version));
    places.into_iter().find(|path| path.is_dir()).context("the kernel's package has no modules")
}

/// The files of the named modules and of all they depend on, from the text of `modules.dep`.
/// Names that are not there are left out: they are built in, or not built at all.
fn closure(index: &str, names: &[&str]) -> Vec<String> {
    let plain = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split(".ko").next().unwrap_or(file).replace('-', "_")
    };
    let wanted: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    let mut files: Vec<String> = Vec::new();
    for (module, needs) in index.lines().filter_map(|line| line.split_once(':')) {
        if wanted.contains(&plain(module)) {
            files.push(module.to_owned());
            files.extend(needs.split_whitespace().map(str::to_owned));
        }
    }
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_bring_what_they_depend_on() {
        let index = "kernel/a/virtio-rng.ko.xz: kernel/b/rng-core.ko.xz\nkernel/b/rng-core.ko.xz:\n\
            kernel/c/other.ko.xz: kernel/b/rng-core.ko.xz\n";
        let files = closure(index, &["virtio_rng", "built_in"]);
        assert_eq!(files, ["kernel/a/virtio-rng.ko.xz", "kernel/b/rng-core.ko.xz"]);
    }
}
