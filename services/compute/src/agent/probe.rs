//! Whether this node can run guests by hardware virtualisation: not by what it claims, but by trying.
//!
//! It opens `/dev/kvm`, makes a machine with one CPU and lets go of it again. It changes nothing on the node.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use jiff::Timestamp;

/// Which accelerator an operator wants, or leaves to the probe.
pub fn use_kvm() -> bool {
    match std::env::var("CAIRN_ACCELERATOR").as_deref() {
        Ok("kvm") => true,
        Ok("tcg") => false,
        _ => kvm_works(),
    }
}

/// Whether a virtual machine with a CPU can really be made.
fn kvm_works() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !flags.split_ascii_whitespace().any(|f| f == "vmx" || f == "svm") {
        return false;
    }
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => make_machine(&kvm).is_some(),
        Err(_) => false,
    }
}

const KVM_GET_API_VERSION: u64 = 0xAE00;
const KVM_CREATE_VM: u64 = 0xAE01;
const KVM_CREATE_VCPU: u64 = 0xAE41;
const API_VERSION: i32 = 12;

fn make_machine(kvm: &File) -> Option<()> {
    if ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION)? != API_VERSION {
        return None;
    }
    let machine = owned(ioctl(kvm.as_raw_fd(), KVM_CREATE_VM)?);
    owned(ioctl(machine.as_raw_fd(), KVM_CREATE_VCPU)?);
    Some(())
}

/// An ioctl without an argument; none if it failed.
#[expect(unsafe_code, reason = "no safe wrapper of these requests is among the dependencies")]
fn ioctl(fd: RawFd, request: u64) -> Option<i32> {
    // SAFETY: each of the three requests takes an integer, here 0, and no pointer.
    let result = unsafe { libc::ioctl(fd, request as _, 0) };
    (result >= 0).then_some(result)
}

#[expect(unsafe_code, reason = "a descriptor that the kernel has made is ours by its word alone")]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The model of the first CPU, as the kernel names it.
pub fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name"));
    line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}

/// When the node booted, to the second.
pub fn booted_at() -> Timestamp {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("btime "));
    line.and_then(|s| s.trim().parse().ok())
        .and_then(|s| Timestamp::from_second(s).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_answers_and_leaves_nothing_behind() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let _ = kvm_works();
        assert!(open() <= before + 1);
        assert!(booted_at() > Timestamp::UNIX_EPOCH);
    }
}
