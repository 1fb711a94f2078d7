//! A guest as libvirt is told it: the domain's XML, and that of each device that comes and goes.
//!
//! Pure: golden files hold what comes out. Every value that is not a number or one of our own names is escaped.

use std::fmt::Write as _;

use quick_xml::escape::escape;

/// How guests run on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Whether by hardware virtualisation; else by QEMU's own emulation.
    pub kvm: bool,
    /// The kind of machine, as `pc-q35-10.0`.
    pub machine: String,
    /// The architecture, as `x86_64`.
    pub arch: String,
}

/// A disk: a vhost-user-blk socket of this node's storage role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The socket.
    pub socket: String,
    /// The device name, as `vda`.
    pub device: String,
    /// Whether the guest boots from it.
    pub boot: bool,
    /// Its size in bytes.
    pub size: u64,
}

/// A network interface on a tap of this node's network role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The tap's name.
    pub tap: String,
    /// The MAC address.
    pub mac: String,
    /// The largest packet, in bytes.
    pub mtu: u32,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The server's id.
    pub id: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Whether it boots by UEFI; else by BIOS.
    pub uefi: bool,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its interfaces.
    pub nics: Vec<Nic>,
    /// Where its serial console is logged.
    pub console_log: String,
}

/// The name of the domain of a server. Domains named otherwise are not ours.
pub fn domain_name(server_id: &str) -> String {
    format!("instance-{server_id}")
}

/// The server whose domain this is, if it is one of ours.
pub fn server_of(domain_name: &str) -> Option<&str> {
    domain_name.strip_prefix("instance-")
}

/// How many devices can be added while the guest runs: each takes a root port of its own.
const HOTPLUG_PORTS: usize = 8;

/// How QEMU's translation cache is bounded when it emulates, in MiB: it would grow to a gigabyte.
fn translation_cache_mb(memory_mb: u64) -> u64 {
    (memory_mb / 4).clamp(32, 128)
}

/// The whole domain.
pub fn domain(guest: &Guest, platform: &Platform) -> String {
    let mut out = String::with_capacity(4096);
    let kind = if platform.kvm { "kvm" } else { "qemu" };
    let id = escape(&guest.id);
    let _ = writeln!(out, "<domain type='{kind}'>");
    let _ = writeln!(out, "  <name>{}</name>", escape(domain_name(&guest.id)));
    let _ = writeln!(out, "  <uuid>{id}</uuid>");
    let _ = writeln!(out, "  <memory unit='MiB'>{}</memory>", guest.memory_mb);
    // Shared, because storage reads and writes the guest's memory directly.
    out.push_str("  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\n");
    let _ = writeln!(out, "  <vcpu placement='static'>{}</vcpu>", guest.vcpus);
    out.push_str(&os(guest, platform));
    out.push_str(&sysinfo(&id));
    out.push_str(&features_and_cpu(guest, platform));
    out.push_str(CLOCK_AND_LIFECYCLE);
    out.push_str("  <devices>\n");
    out.push_str(&controllers(guest));
    guest.disks.iter().for_each(|d| out.push_str(&disk(d)));
    guest.nics.iter().for_each(|n| out.push_str(&nic(n)));
    out.push_str(&console(&guest.console_log));
    out.push_str("    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n");
    out.push_str("    <memballoon model='none'/>\n  </devices>\n</domain>\n");
    out
}

fn os(guest: &Guest, platform: &Platform) -> String {
    let (firmware, secure) = match guest.uefi {
        true => (" firmware='efi'", "    <firmware><feature enabled='no' name='secure-boot'/></firmware>\n"),
        false => ("", ""),
    };
    format!(
        "  <os{firmware}>\n    <type arch='{}' machine='{}'>hvm</type>\n{secure}    <smbios mode='sysinfo'/>\n  </os>\n",
        escape(&platform.arch),
        escape(&platform.machine),
    )
}

/// By the product's name cloud-init knows, before any network is up, that metadata of this form will be there.
fn sysinfo(id: &str) -> String {
    format!(
        "  <sysinfo type='smbios'>\n    <system>\n      <entry name='manufacturer'>Cairn</entry>\n      \
         <entry name='product'>OpenStack Nova</entry>\n      <entry name='serial'>{id}</entry>\n      \
         <entry name='uuid'>{id}</entry>\n      <entry name='family'>Virtual Machine</entry>\n    </system>\n    \
         <chassis><entry name='asset'>OpenStack Nova</entry></chassis>\n  </sysinfo>\n"
    )
}

fn features_and_cpu(guest: &Guest, platform: &Platform) -> String {
    if platform.kvm {
        return "  <features><acpi/><apic/></features>\n  <cpu mode='host-passthrough' check='none' migratable='on'/>\n"
            .into();
    }
    let cache = translation_cache_mb(guest.memory_mb);
    // Emulated, page tables of five levels and nested virtualisation only cost time.
    format!(
        "  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>{cache}</tb-cache></tcg></features>\n  \
         <cpu mode='maximum' check='none'>\n    <feature policy='disable' name='la57'/>\n    \
         <feature policy='disable' name='svm'/>\n  </cpu>\n"
    )
}

const CLOCK_AND_LIFECYCLE: &str = "  <clock offset='utc'>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>
";

fn controllers(guest: &Guest) -> String {
    let ports = guest.disks.len() + guest.nics.len() + 1 + HOTPLUG_PORTS;
    let mut out = String::from("    <controller type='pci' model='pcie-root'/>\n");
    for _ in 0..ports {
        out.push_str("    <controller type='pci' model='pcie-root-port'/>\n");
    }
    out.push_str("    <controller type='usb' model='none'/>\n");
    out
}

/// A disk, as it stands in the domain and as it is attached and detached. A socket that ends in `.nbd` speaks NBD,
/// any other vhost-user. Either way QEMU connects again, for as long as it takes, when the storage role is restarted.
pub fn disk(disk: &Disk) -> String {
    let boot = if disk.boot { "<boot order='1'/>" } else { "" };
    let (socket, device) = (escape(&disk.socket), escape(&disk.device));
    let target = format!("<target dev='{device}' bus='virtio'/>{boot}\n    </disk>\n");
    if disk.socket.ends_with(".nbd") {
        let geometry = geometry(disk.size);
        return format!(
            "    <disk type='network' device='disk'>\n      <driver name='qemu' type='raw' cache='none' discard='unmap'/>\n      \
             <source protocol='nbd'><host transport='unix' socket='{socket}'/>\
             <reconnect delay='{NBD_RECONNECT_S}'/></source>\n      {geometry}      {target}"
        );
    }
    format!(
        "    <disk type='vhostuser' device='disk'>\n      <driver name='qemu' type='raw' queues='1'/>\n      \
         <source type='unix' path='{socket}'><reconnect enabled='yes' timeout='1'/></source>\n      {target}"
    )
}

/// Cylinders, heads and sectors as QEMU guesses them by the size alone. Untold, it reads the disk's first sector when the
/// device is made, which waits for ever in an emulator that a running guest moves to: the volume is not there yet.
fn geometry(size: u64) -> String {
    let cylinders = (size / 512 / (HEADS * SECTORS)).clamp(2, 16_383);
    format!("<geometry cyls='{cylinders}' heads='{HEADS}' secs='{SECTORS}'/>\n")
}

const HEADS: u64 = 16;
const SECTORS: u64 = 63;

/// How long requests wait for the storage role to come back before the guest sees an error, in seconds.
const NBD_RECONNECT_S: u32 = 86_400;

/// An interface, as it stands in the domain and as it is plugged and unplugged.
pub fn nic(nic: &Nic) -> String {
    format!(
        "    <interface type='ethernet'>\n      <mac address='{}'/>\n      <target dev='{}' managed='no'/>\n      \
         <model type='virtio'/>\n      <mtu size='{}'/>\n      <rom enabled='no'/>\n    </interface>\n",
        escape(&nic.mac),
        escape(&nic.tap),
        nic.mtu,
    )
}

fn console(log: &str) -> String {
    format!(
        "    <serial type='pty'>\n      <log file='{}' append='on'/>\n      <target type='isa-serial' port='0'/>\n    \
         </serial>\n    <console type='pty'><target type='serial' port='0'/></console>\n",
        escape(log)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest {
            id: "6a1c5e0e-0000-4000-8000-000000000001".into(),
            vcpus: 2,
            memory_mb: 512,
            uefi: false,
            disks: vec![
                Disk {
                    socket: "/run/cairn/storage/v1.sock".into(),
                    device: "vda".into(),
                    boot: true,
                    size: 1 << 30,
                },
                Disk {
                    socket: "/run/cairn/storage/v2.sock".into(),
                    device: "vdb".into(),
                    boot: false,
                    size: 20 << 30,
                },
            ],
            nics: vec![Nic { tap: "tap0123456789a".into(), mac: "fa:16:3e:00:00:01".into(), mtu: 1450 }],
            console_log: "/var/log/cairn/console/6a1c5e0e-0000-4000-8000-000000000001.log".into(),
        }
    }

    fn platform(kvm: bool) -> Platform {
        Platform { kvm, machine: "pc-q35-10.0".into(), arch: "x86_64".into() }
    }

    /// Compares with the golden file; `UPDATE_GOLDEN=1` writes it instead.
    fn golden(name: &str, text: &str) {
        let path = format!("{}/tests/golden/{name}.xml", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{path} differs");
    }

    #[test]
    fn a_guest_under_kvm() {
        golden("kvm-bios", &domain(&guest(), &platform(true)));
    }

    #[test]
    fn an_emulated_guest_with_uefi() {
        golden("tcg-uefi", &domain(&Guest { uefi: true, ..guest() }, &platform(false)));
    }

    #[test]
    fn text_cannot_break_out_of_an_attribute() {
        let evil = Disk { socket: "/x'/><evil a='".into(), device: "vda".into(), boot: false, size: 0 };
        assert!(disk(&evil).contains("path='/x&apos;/&gt;&lt;evil a=&apos;'"));
    }

    #[test]
    fn the_emulators_cache_follows_the_guests_memory_within_bounds() {
        assert_eq!([64, 128, 512, 4096].map(translation_cache_mb), [32, 32, 128, 128]);
    }

    #[test]
    fn an_emulated_guest_has_its_disks_by_nbd() {
        let xml =
            disk(&Disk { socket: "/s/v.nbd".into(), device: "vdb".into(), boot: false, size: 20 << 30 });
        assert!(
            xml.contains("protocol='nbd'") && xml.contains("socket='/s/v.nbd'") && xml.contains("dev='vdb'")
        );
    }

    #[test]
    fn a_disks_geometry_is_told_within_what_it_can_be() {
        let cylinders = |size| geometry(size).split('\'').nth(1).map(str::to_owned);
        assert_eq!(cylinders(0).as_deref(), Some("2"));
        assert_eq!(cylinders(1 << 30).as_deref(), Some("2080"));
        assert_eq!(cylinders(1 << 40).as_deref(), Some("16383"));
    }

    #[test]
    fn only_our_own_domains_name_a_server() {
        assert_eq!(server_of(&domain_name("abc")), Some("abc"));
        assert_eq!(server_of("somebody-elses"), None);
    }
}
