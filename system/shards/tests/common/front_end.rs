//! A front-end of vhost-user-blk with a guest's memory of its own: what QEMU and a driver are to the backend.
//! Like QEMU it resumes after a reconnect from the used index, and like a hostile guest it may put anything on
//! the ring.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const QUEUE_SIZE: u16 = 256;
pub const MEMORY: u64 = 32 << 20;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x6000;
const HEADS: u64 = 0x10000;
const DATA: u64 = 0x100000;
/// Room for data per slot.
pub const SLOT: u64 = 256 << 10;
/// Slots a test may use: each takes three descriptors.
pub const SLOTS: u16 = 64;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

pub struct Guest {
    pub memory: GuestMemoryMmap<()>,
    front: Option<Frontend>,
    kick: EventFd,
    call: EventFd,
    avail: u16,
    used: u16,
    features: u64,
    /// Whether it keeps what is under way, and what that is.
    keeps: bool,
    kept: Option<(VhostUserInflight, File)>,
}

/// Where the data of a request comes from or goes.
pub enum Data<'a> {
    Out(&'a [u8]),
    In(u32),
    None,
}

impl Guest {
    pub fn new() -> Guest {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY).unwrap();
        let range = (GuestAddress(0), MEMORY as usize, Some(FileOffset::new(file, 0)));
        Guest {
            memory: GuestMemoryMmap::from_ranges_with_files([range]).unwrap(),
            front: None,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            avail: 0,
            used: 0,
            // VERSION_1, FLUSH, CONFIG_WCE, DISCARD, WRITE_ZEROES, protocol features.
            features: 1 << 32 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 30,
            keeps: false,
            kept: None,
        }
    }

    /// Keeps for the backend what is under way, as QEMU does.
    pub fn keeping(mut self) -> Guest {
        self.keeps = true;
        self
    }

    pub fn connected(socket: &Path) -> Guest {
        let mut guest = Guest::new();
        guest.connect(socket).unwrap();
        guest
    }

    /// Takes fewer features from now on.
    pub fn without(mut self, bits: u64) -> Guest {
        self.features &= !bits;
        self
    }

    pub fn connect(&mut self, socket: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let mut front = Frontend::connect(socket, 1)?;
        front.set_owner()?;
        let offered = front.get_features()?;
        let _ = front.get_protocol_features()?;
        use VhostUserProtocolFeatures as P;
        let tracking = if self.keeps { P::INFLIGHT_SHMFD } else { P::empty() };
        front.set_protocol_features(P::CONFIG | P::REPLY_ACK | P::MQ | P::BACKEND_REQ | tracking)?;
        front.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        front.set_features(offered & self.features)?;
        let regions: Vec<_> =
            self.memory.iter().map(|r| VhostUserMemoryRegionInfo::from_guest_region(r).unwrap()).collect();
        let base = regions[0].userspace_addr;
        front.set_mem_table(&regions)?;
        if self.keeps {
            if self.kept.is_none() {
                self.kept = Some(front.get_inflight_fd(&VhostUserInflight::new(0, 0, 1, QUEUE_SIZE))?);
            }
            let (kept, file) = self.kept.as_ref().unwrap();
            front.set_inflight_fd(kept, file.as_raw_fd())?;
        }
        front.set_vring_num(0, QUEUE_SIZE)?;
        front.set_vring_base(0, self.used_index())?;
        front.set_vring_addr(
            0,
            &VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: base + DESC,
                used_ring_addr: base + USED,
                avail_ring_addr: base + AVAIL,
                log_addr: None,
            },
        )?;
        front.set_vring_call(0, &self.call)?;
        front.set_vring_kick(0, &self.kick)?;
        front.set_vring_enable(0, true)?;
        self.front = Some(front);
        self.kick();
        Ok(())
    }

    pub fn disconnect(&mut self) {
        self.front = None;
    }

    /// Whether the backend has closed the connection, or there is none.
    pub fn is_cut(&self) -> bool {
        let Some(front) = &self.front else { return true };
        let (epoll, hang_up) = (Epoll::new().unwrap(), EventSet::READ_HANG_UP | EventSet::HANG_UP);
        let event = EpollEvent::new(hang_up, 0);
        epoll.ctl(ControlOperation::Add, front.as_raw_fd(), event).unwrap();
        epoll.wait(0, &mut [event]).unwrap() > 0
    }

    pub fn config(&mut self, offset: u32, len: usize) -> Vec<u8> {
        let front = self.front.as_mut().unwrap();
        front.get_config(offset, len as u32, VhostUserConfigFlags::WRITABLE, &vec![0; len]).unwrap().1
    }

    pub fn set_writeback(&mut self, on: bool) {
        let front = self.front.as_mut().unwrap();
        front.set_config(32, VhostUserConfigFlags::WRITABLE, &[u8::from(on)]).unwrap();
    }

    /// Gives the back-end a way to tell of changes; its other end.
    pub fn listens(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.front.as_mut().unwrap().set_backend_request_fd(&theirs).unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        ours
    }

    /// Stops the ring as a driver's reset does; answers where it stopped.
    pub fn stop_ring(&mut self) -> u32 {
        self.front.as_ref().unwrap().get_vring_base(0).unwrap()
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    pub fn descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(DESC + 16 * u64::from(index));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Puts a head on the ring, without a kick.
    pub fn offer(&mut self, head: u16) {
        let entry = GuestAddress(AVAIL + 4 + 2 * u64::from(self.avail % QUEUE_SIZE));
        self.memory.write_obj(head, entry).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail(self.avail);
    }

    pub fn set_avail(&self, index: u16) {
        self.memory.store(index, GuestAddress(AVAIL + 2), std::sync::atomic::Ordering::Release).unwrap();
    }

    pub fn header(&self, slot: u16, kind: u32, sector: u64) -> u64 {
        let at = HEADS + 64 * u64::from(slot);
        let mut head = [0; 17];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[8..16].copy_from_slice(&sector.to_le_bytes());
        head[16] = 0xee;
        self.memory.write_slice(&head, GuestAddress(at)).unwrap();
        at
    }

    pub fn data_at(slot: u16) -> u64 {
        DATA + SLOT * u64::from(slot)
    }

    /// Puts a request on the ring, without a kick.
    pub fn submit(&mut self, slot: u16, kind: u32, sector: u64, data: &Data<'_>) {
        let head = self.header(slot, kind, sector);
        let (first, at) = (3 * slot, Guest::data_at(slot));
        let (len, flags) = match data {
            Data::Out(bytes) => {
                self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
                (bytes.len() as u32, NEXT)
            }
            Data::In(len) => (*len, NEXT | WRITE),
            Data::None => (0, 0),
        };
        let after_head = if len > 0 { first + 1 } else { first + 2 };
        self.descriptor(first, head, 16, NEXT, after_head);
        self.descriptor(first + 1, at, len, flags, first + 2);
        self.descriptor(first + 2, head + 16, 1, WRITE, 0);
        self.offer(first);
    }

    /// The heads completed since last asked, in order, with their lengths.
    pub fn completed(&mut self) -> Vec<(u16, u32)> {
        let now = self.used_index();
        let mut done = Vec::new();
        while self.used != now {
            let at = USED + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
            let id: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
            let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
            done.push((id as u16, len));
            self.used = self.used.wrapping_add(1);
        }
        done
    }

    /// Waits for so many completions.
    pub fn wait(&mut self, count: usize) -> Vec<(u16, u32)> {
        let until = Instant::now() + Duration::from_secs(60);
        let mut done = Vec::new();
        while done.len() < count {
            done.extend(self.completed());
            assert!(Instant::now() < until, "{} of {count} requests completed", done.len());
            std::thread::sleep(Duration::from_micros(200));
        }
        done
    }

    /// The used ring's index as it stands.
    pub fn used_index(&self) -> u16 {
        self.memory.load(GuestAddress(USED + 2), std::sync::atomic::Ordering::Acquire).unwrap()
    }

    pub fn status(&self, slot: u16) -> u8 {
        self.memory.read_obj(GuestAddress(HEADS + 64 * u64::from(slot) + 16)).unwrap()
    }

    pub fn data(&self, slot: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(Guest::data_at(slot))).unwrap();
        bytes
    }

    /// Does one request and answers its status.
    pub fn request(&mut self, kind: u32, sector: u64, data: &Data<'_>) -> u8 {
        self.submit(0, kind, sector, data);
        self.kick();
        self.wait(1);
        self.status(0)
    }

    pub fn read(&mut self, sector: u64, len: u32) -> Vec<u8> {
        assert_eq!(self.request(IN, sector, &Data::In(len)), 0);
        self.data(0, len as usize)
    }
}
