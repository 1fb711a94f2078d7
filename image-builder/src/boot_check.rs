//! Starts the ISO as a CD and as a USB stick and says how long each took to reach the point where all of a node's
//! services are up; leaves nothing behind but the two serial logs.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::paths::Paths;
use crate::stage::{say, seconds};
use crate::vm::{Disk, Medium, Vm, VmOptions, kvm_works};

/// What systemd writes on the console when the boot is over, with `systemd.show_status=yes`.
pub const REACHED: &str = "Multi-User System";

/// Boots the ISO once for each medium.
pub fn run(paths: &Paths, media: &[Medium], limit: Duration, kernel_args: &str) -> Result<()> {
    say(if kvm_works() { "accelerator: KVM" } else { "accelerator: emulation" });
    for medium in media {
        let dir = paths.image().join("boot-check").join(format!("{medium:?}").to_lowercase());
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let options = VmOptions {
            dir: dir.clone(),
            iso: paths.iso(),
            medium: *medium,
            disks: vec![Disk { name: "data1".into(), gib: 20 }, Disk { name: "data2".into(), gib: 20 }],
            nics: Vec::new(),
            namespace: None,
            memory_mib: 3072,
            cpus: 2,
            kernel_args: format!("systemd.show_status=yes {kernel_args}"),
            clock: None,
        };
        let from = Instant::now();
        let mut vm = Vm::boot(paths, &options)?;
        let kernel = vm.wait_for("Welcome to ", limit).map(|_| from.elapsed());
        let reached = kernel.and_then(|kernel| Ok((kernel, vm.wait_for(REACHED, limit)?)));
        let whole = from.elapsed();
        vm.kill()?;
        let (kernel, _) = reached?;
        for disk in &options.disks {
            fs::remove_file(dir.join(format!("{}.raw", disk.name)))?;
        }
        let log = dir.join("serial.log");
        say(&format!(
            "{medium:?}: kernel and initrd after {}, all services after {} (console in {})",
            seconds(kernel),
            seconds(whole),
            log.display()
        ));
    }
    Ok(())
}
