//! A machine of its own for the test: namespaces, and in them a copy of the image's root tree with its libvirtd and
//! QEMU, a data disk and nothing else. The test runs itself anew in there, and all that was started ends with it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Says how far in this process is; its value is the machine's folder.
const NAMESPACES: &str = "CAIRN_TEST_NAMESPACES";
const ROOT: &str = "CAIRN_TEST_ROOT";

/// Where the machine has its data disks.
pub const DISKS: &str = "/srv";
/// Where it has the roles' state and sockets.
pub const RUN: &str = "/run/cairn";
/// Where it has the guest's image.
pub const GUEST: &str = "/run/guest.qcow2";

/// The image that is built, and the guest to start if no other is named.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/image/root");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/image/guests/tiny.qcow2");
/// In place of the image's: guests run as root, and there are no cgroups.
const QEMU_CONF: &str = r#"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = [ ]
namespaces = [ ]
"#;
/// Bytes of the data disk.
const DISK_BYTES: u64 = 4 << 30;

/// Runs the test on a machine of its own, of which `body` sees nothing but what it is to have.
pub fn on_a_machine(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ROOT).is_some() {
        start_libvirtd();
        return body();
    }
    let mut next = match std::env::var_os(NAMESPACES) {
        None => {
            let folder = tempfile::tempdir().unwrap();
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
            // The first process there, which must bury those that lose their parent: libvirt waits for it.
            unshare.args(["sh", "-c", "\"$@\"; exit $?", "sh"]);
            unshare.arg(std::env::current_exe().unwrap()).env(NAMESPACES, folder.path());
            return again(&mut unshare, test);
        }
        Some(folder) => {
            let root = furnish(Path::new(&folder));
            let mut chroot = Command::new("chroot");
            chroot.args([&root, "/run/test"]).env(ROOT, "/").env("PATH", "/usr/sbin:/usr/bin");
            chroot
        }
    };
    again(&mut next, test);
}

/// Runs this test once more, further in.
fn again(command: &mut Command, test: &str) {
    let status = command.args(["--ignored", "--exact", test, "--nocapture"]).status().unwrap();
    assert!(status.success(), "it failed in its namespaces; it needs root for them");
}

/// Makes the machine's root, and answers where.
fn furnish(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    // An overlay's upper part cannot lie on another overlay, which this machine's root may be.
    std::fs::create_dir_all(at("layers")).unwrap();
    run("mount", &["-t", "tmpfs", "tmpfs", &at("layers")]);
    for name in ["layers/upper", "layers/work", "root"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    let layers = format!("lowerdir={TREE},upperdir={},workdir={}", at("layers/upper"), at("layers/work"));
    let root = at("root");
    run("mount", &["-t", "overlay", "overlay", "-o", &layers, &root]);
    run("mount", &["--rbind", "/dev", &format!("{root}/dev")]);
    run("mount", &["-t", "proc", "proc", &format!("{root}/proc")]);
    run("mount", &["-t", "sysfs", "sysfs", &format!("{root}/sys")]);
    run("mount", &["-t", "tmpfs", "tmpfs", &format!("{root}/run")]);
    data_disk(&at("disk"), &format!("{root}{DISKS}/d1"));
    std::fs::create_dir_all(format!("{root}{RUN}")).unwrap();
    std::fs::write(format!("{root}/etc/libvirt/qemu.conf"), QEMU_CONF).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), format!("{root}/run/test")).unwrap();
    let guest = std::env::var("CAIRN_TEST_GUEST").unwrap_or_else(|_| TINY.into());
    std::fs::copy(&guest, format!("{root}{GUEST}")).unwrap_or_else(|e| panic!("no guest, {guest}: {e}"));
    root
}

/// Clones need a file system with reflinks.
fn data_disk(image: &str, at: &str) {
    std::fs::File::create(image).unwrap().set_len(DISK_BYTES).unwrap();
    std::fs::create_dir_all(at).unwrap();
    run("mkfs.xfs", &["-q", "-m", "reflink=1", image]);
    run("mount", &["-o", "loop", image, at]);
    let marker = r#"{"format":1,"disk":"d1000000-0000-4000-8000-000000000001","cloud":"c"}"#;
    std::fs::write(format!("{at}/cairn-disk.json"), marker).unwrap();
}

#[expect(clippy::zombie_processes, reason = "it ends with its namespaces")]
fn start_libvirtd() {
    run("ip", &["link", "set", "lo", "up"]);
    let mut libvirtd = Command::new("libvirtd").spawn().unwrap();
    let began = Instant::now();
    while !Path::new("/run/libvirt/libvirt-sock").exists() {
        assert_eq!(libvirtd.try_wait().unwrap(), None, "libvirtd ended at once");
        assert!(began.elapsed() < Duration::from_secs(60), "libvirtd does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
