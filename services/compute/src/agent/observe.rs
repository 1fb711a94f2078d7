//! What libvirt says of a domain, in our own words. Pure: reads XML and numbers, touches nothing.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Why a guest is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    /// It turned itself off.
    ByGuest,
    /// It went to another node.
    Migrated,
    /// Anything else: destroyed, crashed, or off since the node booted.
    Otherwise,
}

/// How a domain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// There is none.
    Absent,
    /// It is defined and not active.
    Off(Off),
    /// It runs.
    Running,
    /// Its CPUs stand still.
    Paused,
    /// Its CPUs stand still because a disk failed.
    PausedOnError,
    /// It is turning off.
    ShuttingDown,
}

impl DomainState {
    /// Whether there is a process behind it.
    pub fn active(self) -> bool {
        !matches!(self, DomainState::Absent | DomainState::Off(_))
    }

    /// From libvirt's `virDomainState` and reason.
    pub fn from_libvirt(state: u32, reason: i32) -> DomainState {
        const PAUSED_IOERROR: i32 = 5;
        const SHUTOFF_SHUTDOWN: i32 = 1;
        const SHUTOFF_MIGRATED: i32 = 4;
        match (state, reason) {
            (3, PAUSED_IOERROR) => DomainState::PausedOnError,
            (3 | 7, _) => DomainState::Paused,
            (4, _) => DomainState::ShuttingDown,
            (5, SHUTOFF_SHUTDOWN) => DomainState::Off(Off::ByGuest),
            (5, SHUTOFF_MIGRATED) => DomainState::Off(Off::Migrated),
            (5, _) => DomainState::Off(Off::Otherwise),
            // Crashed (6) keeps its process when a dump is wanted; we never want one, so it is off as well.
            (6, _) => DomainState::Off(Off::Otherwise),
            _ => DomainState::Running,
        }
    }
}

/// The devices of an active domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// The device names (`vda`) of its disks.
    pub disks: Vec<Attached>,
    /// The taps of its interfaces.
    pub taps: Vec<String>,
}

/// A disk of an active domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// The socket it comes from.
    pub socket: String,
    /// Its device name.
    pub device: String,
}

/// Reads the devices out of a domain's XML. What is not understood is left out.
pub fn devices(xml: &str) -> Devices {
    let mut found = Devices::default();
    let mut reader = Reader::from_str(xml);
    let mut disk: Option<Attached> = None;
    let mut in_interface = false;
    loop {
        match reader.read_event() {
            Err(_) | Ok(Event::Eof) => return found,
            Ok(Event::Start(e) | Event::Empty(e)) => match e.name().as_ref() {
                b"disk" => disk = Some(Attached::default()),
                b"interface" => in_interface = true,
                b"source" => {
                    if let (Some(disk), Some(path)) = (&mut disk, attribute(&e, "path")) {
                        disk.socket = path;
                    }
                }
                b"host" => {
                    if let (Some(disk), Some(path)) = (&mut disk, attribute(&e, "socket")) {
                        disk.socket = path;
                    }
                }
                b"target" => match (&mut disk, attribute(&e, "dev")) {
                    (Some(disk), Some(dev)) => disk.device = dev,
                    (None, Some(dev)) if in_interface => found.taps.push(dev),
                    _ => {}
                },
                _ => {}
            },
            Ok(Event::End(e)) => match e.name().as_ref() {
                b"disk" => found.disks.extend(disk.take()),
                b"interface" => in_interface = false,
                _ => {}
            },
            Ok(_) => {}
        }
    }
}

/// The newest machine type behind the name `q35` for `x86_64`, from libvirt's capabilities.
pub fn q35_machine(capabilities: &str) -> Option<String> {
    let mut reader = Reader::from_str(capabilities);
    let mut canonical = None;
    let mut in_arch = false;
    loop {
        match reader.read_event() {
            Err(_) | Ok(Event::Eof) => return None,
            Ok(Event::Start(e)) => match e.name().as_ref() {
                b"arch" => in_arch = attribute(&e, "name").as_deref() == Some("x86_64"),
                b"machine" if in_arch => canonical = Some(attribute(&e, "canonical")),
                _ => {}
            },
            Ok(Event::Text(text)) if canonical.is_some() => {
                let name = canonical.take().flatten();
                if text.as_ref() == b"q35" {
                    return Some(name.unwrap_or_else(|| "q35".into()));
                }
            }
            Ok(_) => {}
        }
    }
}

fn attribute(e: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = e.try_get_attribute(name).ok().flatten()?;
    Some(String::from_utf8_lossy(&attribute.value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_in_a_live_domain() {
        let xml = "<domain id='3'><devices><emulator>/usr/bin/q</emulator>
          <disk type='vhostuser' device='disk'><driver name='qemu'/>
            <source type='unix' path='/run/cairn/storage/v1.sock'><reconnect enabled='yes' timeout='1'/></source>
            <target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
          <disk type='network' device='disk'><source protocol='nbd'>
            <host transport='unix' socket='/run/cairn/storage/v2.nbd'/><reconnect delay='9'/></source>
            <target dev='vdb' bus='virtio'/></disk>
          <interface type='ethernet'><mac address='fa:16:3e:00:00:01'/><target dev='tapa' managed='no'/></interface>
          <serial type='pty'><source path='/dev/pts/1'/><target type='isa-serial' port='0'/></serial>
        </devices></domain>";
        let found = devices(xml);
        let disk = Attached { socket: "/run/cairn/storage/v1.sock".into(), device: "vda".into() };
        let by_nbd = Attached { socket: "/run/cairn/storage/v2.nbd".into(), device: "vdb".into() };
        assert_eq!(found, Devices { disks: vec![disk, by_nbd], taps: vec!["tapa".into()] });
    }

    #[test]
    fn states_and_reasons() {
        assert_eq!(DomainState::from_libvirt(1, 1), DomainState::Running);
        assert_eq!(DomainState::from_libvirt(3, 1), DomainState::Paused);
        assert_eq!(DomainState::from_libvirt(3, 5), DomainState::PausedOnError);
        assert_eq!(DomainState::from_libvirt(5, 1), DomainState::Off(Off::ByGuest));
        assert_eq!(DomainState::from_libvirt(5, 0), DomainState::Off(Off::Otherwise));
        assert_eq!(DomainState::from_libvirt(5, 4), DomainState::Off(Off::Migrated));
        assert!(!DomainState::from_libvirt(5, 2).active());
        assert!(DomainState::from_libvirt(4, 0).active());
    }

    #[test]
    fn the_machine_type_is_the_canonical_one_of_the_right_architecture() {
        let xml = "<capabilities><guest><arch name='i686'><machine canonical='pc-q35-1'>q35</machine></arch></guest>
          <guest><arch name='x86_64'><machine canonical='pc-i440fx-7.2'>pc</machine>
          <machine maxCpus='288'>pc-q35-7.1</machine><machine canonical='pc-q35-7.2'>q35</machine></arch></guest></capabilities>";
        assert_eq!(q35_machine(xml).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(q35_machine("<capabilities/>"), None);
        assert_eq!(q35_machine("not xml <"), None);
    }
}
