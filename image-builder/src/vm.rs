//! An emulated machine that the ISO is started in: QEMU out of the root tree, OVMF, disks that stay from run to
//! run, the serial console in a file.
//!
//! Its files are in the folder it is given: disks, firmware variables, `serial.log`, the QMP socket, and `vm.json`
//! by which a later process finds it again. Ends only the process that it started, by its id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::chroot;
use crate::exec;
use crate::paths::{Paths, ensure_dir};
use crate::process::Known;
use crate::qmp::Qmp;

/// How the machine sees the ISO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A disc in an AHCI drive.
    Cd,
    /// A USB stick that the ISO was copied to.
    Stick,
    /// A virtio disk that the ISO was copied to: the quickest under emulation.
    Disk,
}

/// A disk of the machine: a sparse file in its folder, made when it is not there.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file's name and the serial number that the machine sees (up to 20 bytes).
    pub name: String,
    /// Its size if it has to be made.
    pub gib: u64,
}

/// A network card on a tap that exists already.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The tap's name, in the machine's network namespace.
    pub tap: String,
    /// The card's address.
    pub mac: String,
}

/// What machine to start.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// The machine's folder: one machine each.
    pub dir: PathBuf,
    /// The image to start from.
    pub iso: PathBuf,
    /// As what it sees the image.
    pub medium: Medium,
    /// Its other disks.
    pub disks: Vec<Disk>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// The network namespace that it runs in.
    pub namespace: Option<String>,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// What its clock says when it is switched on (see [`clock`]); the host's time if nothing is given.
    pub clock: Option<String>,
}

/// A time as a machine's clock is set to: `when` is anything that `date` reads, as `+1 day` or `2030-01-01 12:00`.
pub fn clock(when: &str) -> Result<String> {
    let date = exec::output(&mut exec::command("date", ["--utc", "+%Y-%m-%dT%H:%M:%S", "--date", when]))
        .with_context(|| format!("{when:?} is no time"))?;
    Ok(date.trim().to_owned())
}

/// A running machine.
pub struct Vm {
    dir: PathBuf,
    process: Known,
    child: Option<Child>,
}

impl Vm {
    /// Starts a machine. It outlives this process unless it is stopped.
    pub fn boot(paths: &Paths, options: &VmOptions) -> Result<Self> {
        ensure!(Self::attach(&options.dir).is_none(), "a machine runs already in {}", options.dir.display());
        let dir = ensure_dir(options.dir.clone())?;
        for disk in &options.disks {
            make_disk(&dir, disk)?;
        }
        let variables = dir.join("firmware-variables.fd");
        if !variables.exists() {
            fs::copy(paths.root_tree().join("usr/share/OVMF/OVMF_VARS_4M.fd"), &variables)
                .context("no UEFI firmware in the root tree")?;
        }
        let serial = dir.join("serial.log");
        if serial.exists() {
            fs::rename(&serial, dir.join("serial.previous.log"))?;
        }
        File::create(&serial)?;
        let mut command = within_namespace(options, chroot::command(paths, &paths.root_tree(), QEMU)?);
        command.args(arguments(options, kvm_works()));
        let log = File::create(dir.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start the emulator")?;
        let process = Known::started(child.id()).context("no emulator")?;
        process.save(&dir.join("vm.json"))?;
        let mut vm = Self { dir, process, child: Some(child) };
        vm.wait_until_it_answers()?;
        Ok(vm)
    }

    /// Finds the machine that an earlier process started in this folder, if it still runs.
    pub fn attach(dir: &Path) -> Option<Self> {
        Known::load(&dir.join("vm.json")).map(|process| Self { dir: dir.to_owned(), process, child: None })
    }

    /// The emulator's process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// All that the machine has written to its serial console since it was started.
    pub fn serial_log(&self) -> Result<String> {
        let bytes = fs::read(self.dir.join("serial.log")).context("no serial log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until the serial console shows this text; returns how long that took.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Duration> {
        let from = Instant::now();
        while !self.serial_log()?.contains(text) {
            ensure!(self.running(), "the machine ended: {}", self.last_words());
            ensure!(from.elapsed() < limit, "no «{text}» within {limit:?}; last: {}", self.last_words());
            sleep(Duration::from_millis(100));
        }
        Ok(from.elapsed())
    }

    /// Whether the machine is on.
    pub fn running(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        self.process.runs()
    }

    /// Cuts the power.
    pub fn kill(&mut self) -> Result<()> {
        if self.running() {
            kill(Pid::from_raw(self.process.pid()), Signal::SIGKILL).context("cannot end the emulator")?;
        }
        self.wait_until_off(Duration::from_secs(30))
    }

    /// Presses the power button, waits, and cuts the power after `limit`. Returns whether it went off by itself.
    pub fn powerdown(&mut self, limit: Duration) -> Result<bool> {
        if !self.running() {
            return Ok(true);
        }
        self.qmp()?.execute("system_powerdown", json!({}))?;
        if self.wait_until_off(limit).is_ok() {
            return Ok(true);
        }
        self.kill()?;
        Ok(false)
    }

    /// Presses the reset button.
    pub fn reset(&self) -> Result<()> {
        self.qmp()?.execute("system_reset", json!({})).map(drop)
    }

    /// Saves what the machine's screen shows, as a PNG.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        self.qmp()?.execute("screendump", json!({ "filename": file, "format": "png" })).map(drop)
    }

    /// Cuts (or mends) the cable of its first network card, as the machine sees it too.
    pub fn set_cable(&self, up: bool) -> Result<()> {
        self.qmp()?.execute("set_link", json!({ "name": "net0", "up": up })).map(drop)
    }

    /// The emulator's control socket.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.dir.join("qmp"))
    }

    fn wait_until_off(&mut self, limit: Duration) -> Result<()> {
        let from = Instant::now();
        while self.running() {
            ensure!(from.elapsed() < limit, "the machine is still on after {limit:?}");
            sleep(Duration::from_millis(50));
        }
        let record = self.dir.join("vm.json");
        if record.exists() {
            fs::remove_file(record)?;
        }
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let from = Instant::now();
        while self.qmp().is_err() {
            if !self.running() || from.elapsed() > Duration::from_secs(30) {
                let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
                bail!("the emulator did not start: {}", said.trim());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The end of what the machine has written to its console, for an error.
    pub fn last_words(&self) -> String {
        last_words(&self.dir)
    }
}

/// The end of what the machine of this folder has written to its console, on or off.
pub fn last_words(dir: &Path) -> String {
    let log = fs::read(dir.join("serial.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

const QEMU: &str = "qemu-system-x86_64";

/// A session of its own, so that a Ctrl-C or a closed terminal does not reach it, and its network namespace.
fn within_namespace(options: &VmOptions, inner: Command) -> Command {
    let mut outer = exec::command("setsid", [""; 0]);
    if let Some(namespace) = &options.namespace {
        outer.args(["ip", "netns", "exec", namespace]);
    }
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(dir) = inner.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}

/// Whether the processor's own virtualisation can be used. A kernel that offers /dev/kvm without the
/// processor's flags, or by page tables alone, does not run an ordinary Debian kernel.
pub fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let paravirtual = Path::new("/sys/module/kvm_pvm").exists();
    hardware && !paravirtual && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

fn arguments(options: &VmOptions, kvm: bool) -> Vec<String> {
    let file = |name: &str| options.dir.join(name).display().to_string();
    let (accelerator, cpu) = if kvm { ("kvm", "host") } else { ("tcg,thread=multi", "max") };
    let mut list = vec![
        "-nodefaults".to_owned(),
        format!(
            "-machine q35 -accel {accelerator} -cpu {cpu} -smp {} -m {}",
            options.cpus, options.memory_mib
        ),
        format!("-uuid {} -display none -device VGA -device virtio-rng-pci", uuid(&options.dir)),
        "-drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".to_owned(),
    ];
    // Each piece so far has no spaces but those between arguments; from here on file names may.
    let mut args: Vec<String> =
        list.drain(..).flat_map(|l| l.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let mut pair = |option: &str, value: String| args.extend([option.to_owned(), value]);
    pair("-drive", format!("if=pflash,unit=1,format=raw,file={}", escape(&file("firmware-variables.fd"))));
    pair("-chardev", format!("file,id=serial,path={}", escape(&file("serial.log"))));
    pair("-serial", "chardev:serial".to_owned());
    pair("-qmp", format!("unix:{},server=on,wait=off", escape(&file("qmp"))));
    if !options.kernel_args.is_empty() {
        let extra = format!("io.systemd.stub.kernel-cmdline-extra={}", options.kernel_args);
        pair("-smbios", format!("type=11,value={}", escape(&extra)));
    }
    if let Some(clock) = &options.clock {
        pair("-rtc", format!("base={}", escape(clock)));
    }
    let iso = escape(&options.iso.display().to_string());
    pair("-drive", format!("if=none,id=medium,format=raw,readonly=on,file={iso}"));
    match options.medium {
        Medium::Cd => pair("-device", "ide-cd,drive=medium,bus=ide.0,bootindex=1".to_owned()),
        Medium::Stick => {
            pair("-device", "qemu-xhci,id=usb".to_owned());
            pair("-device", "usb-storage,drive=medium,removable=on,bootindex=1".to_owned());
        }
        Medium::Disk => pair("-device", "virtio-blk-pci,drive=medium,bootindex=1".to_owned()),
    }
    for (index, nic) in options.nics.iter().enumerate() {
        pair("-netdev", format!("tap,id=net{index},ifname={},script=no,downscript=no", nic.tap));
        pair("-device", format!("virtio-net-pci,netdev=net{index},mac={},romfile=", nic.mac));
    }
    for (index, disk) in options.disks.iter().enumerate() {
        let path = escape(&file(&format!("{}.raw", disk.name)));
        pair("-drive", format!("if=none,id=disk{index},format=raw,discard=unmap,file={path}"));
        // The first as clouds have them, the others as machines have them: those can be asked how they are.
        let model = if index == 0 { "virtio-blk-pci" } else { "nvme" };
        pair("-device", format!("{model},id=device{index},drive=disk{index},serial={}", disk.name));
    }
    args
}

/// QEMU separates by commas; a comma in a value is written twice.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// The machine's own id, the same whenever it is started from the same folder.
fn uuid(dir: &Path) -> String {
    let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn make_disk(dir: &Path, disk: &Disk) -> Result<()> {
    let path = dir.join(format!("{}.raw", disk.name));
    if !path.exists() {
        File::create(&path)?
            .set_len(disk.gib << 30)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> VmOptions {
        VmOptions {
            dir: "/tmp/a,b".into(),
            iso: "/tmp/x.iso".into(),
            medium: Medium::Cd,
            disks: vec![Disk { name: "data1".into(), gib: 1 }],
            nics: vec![Nic { tap: "tap0".into(), mac: "52:54:00:00:00:01".into() }],
            namespace: None,
            memory_mib: 1024,
            cpus: 2,
            kernel_args: "a=1,2".into(),
            clock: None,
        }
    }

    #[test]
    fn a_clock_is_set_in_the_form_that_the_emulator_reads() {
        let clock = clock("2030-01-02 03:04:05 UTC").unwrap();
        let args = arguments(&VmOptions { clock: Some(clock), ..options() }, false).join(" ");
        assert!(args.contains("-rtc base=2030-01-02T03:04:05"), "{args}");
        assert!(super::clock("not a time").is_err());
        assert!(!arguments(&options(), false).join(" ").contains("-rtc"));
    }

    #[test]
    fn commas_in_names_do_not_become_options() {
        let args = arguments(&options(), false).join(" ");
        assert!(args.contains("path=/tmp/a,,b/serial.log"));
        assert!(args.contains("kernel-cmdline-extra=a=1,,2"));
        assert!(args.contains("tcg,thread=multi") && args.contains("serial=data1"));
    }

    #[test]
    fn each_medium_is_the_first_to_boot() {
        for medium in [Medium::Cd, Medium::Stick, Medium::Disk] {
            let args = arguments(&VmOptions { medium, ..options() }, true);
            assert_eq!(args.iter().filter(|a| a.contains("bootindex=1")).count(), 1, "{medium:?}");
        }
    }

    #[test]
    fn a_process_is_told_from_another_of_the_same_id() {
        let own = i32::try_from(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vm.json"), format!("{{\"pid\":{own},\"began\":1}}")).unwrap();
        assert!(Vm::attach(folder.path()).is_none());
    }

    #[test]
    fn the_id_is_a_uuid_and_stays() {
        assert_eq!(uuid(Path::new("/a")), uuid(Path::new("/a")));
        assert_ne!(uuid(Path::new("/a")), uuid(Path::new("/b")));
        assert_eq!(uuid(Path::new("/a")).as_bytes()[14], b'4');
    }
}
