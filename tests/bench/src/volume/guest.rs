//! A guest without a machine: a front-end of vhost-user-blk with one queue, as the driver in Linux uses one. It puts
//! requests on the ring, tells the back-end of those that it asked to be told of, and sleeps until it is told in turn.

use std::io::ErrorKind::Interrupted;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::load::{Disk, Op, Request};
use super::memory::{Memory, SLOTS};

/// Entries of the ring: three for each slot.
const QUEUE: u16 = 128;
/// After so long without a completion the back-end may have missed something.
const SILENCE_MS: i32 = 1000;
/// What is completed so soon after it was told again had been missed; else it only took long.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Where its parts are in the guest's memory.
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x6000;
const HEADS: u64 = 0x8000;
/// A request's head and, behind it, its status.
const HEAD_BYTES: u64 = 16;
const HEAD_STRIDE: u64 = 64;
/// A status that no device answers.
const UNANSWERED: u8 = 0xee;
/// `VHOST_USER_F_PROTOCOL_FEATURES`
const PROTOCOL_FEATURES: u32 = 30;

/// A disk behind a socket. Dropping it closes the connection.
pub struct Guest {
    memory: Memory,
    _front: Frontend,
    kick: EventFd,
    _call: EventFd,
    /// Wakes at each call. (Whether the descriptor itself blocks is the back-end's to say, which shares it.)
    called: Epoll,
    /// Requests put on the ring, and of those how many the back-end was told of.
    avail: u16,
    told: u16,
    told_again: Option<Instant>,
    stalls: u64,
    /// Completions taken off it.
    used: u16,
    /// Each side says of which entry it wants to be told.
    event_idx: bool,
    size: u64,
}

fn bit(number: u32) -> u64 {
    1 << number
}

impl Guest {
    /// Connects to a device, and starts its queue.
    pub fn connect(socket: &Path, memory: &Memory) -> Result<Guest> {
        let mut front = Frontend::connect(socket, 1).with_context(|| format!("no {}", socket.display()))?;
        front.set_owner()?;
        let wanted = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
            PROTOCOL_FEATURES,
        ];
        let features = front.get_features()? & wanted.into_iter().map(bit).sum::<u64>();
        ensure!(features & bit(VIRTIO_BLK_F_FLUSH) != 0, "the device cannot flush");
        use VhostUserProtocolFeatures as P;
        let protocol =
            front.get_protocol_features()? & (P::CONFIG | P::REPLY_ACK | P::MQ | P::INFLIGHT_SHMFD);
        front.set_protocol_features(protocol)?;
        if protocol.contains(P::REPLY_ACK) {
            front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        front.set_features(features)?;
        let (_, capacity) = front.get_config(0, 8, VhostUserConfigFlags::WRITABLE, &[0; 8])?;
        let size = u64::from_le_bytes(capacity.as_slice().try_into().context("no capacity")?) * 512;
        let (kick, call) = (EventFd::new(0)?, EventFd::new(0)?);
        memory.map.write_slice(&[0; (HEADS - DESCRIPTORS) as usize], GuestAddress(DESCRIPTORS))?;
        start(&mut front, memory, &kick, &call, protocol.contains(P::INFLIGHT_SHMFD))?;
        let called = Epoll::new()?;
        let each = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        called.ctl(ControlOperation::Add, call.as_raw_fd(), each)?;
        let event_idx = features & bit(VIRTIO_RING_F_EVENT_IDX) != 0;
        let guest = Guest {
            memory: memory.clone(),
            _front: front,
            kick,
            _call: call,
            called,
            avail: 0,
            told: 0,
            told_again: None,
            stalls: 0,
            used: 0,
            event_idx,
            size,
        };
        (0..SLOTS).try_for_each(|slot| guest.lay(slot))?;
        Ok(guest)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes what is the same for all requests of a slot.
    fn lay(&self, slot: usize) -> Result<()> {
        let (first, head) = (3 * slot as u16, head(slot));
        self.descriptor(first, head, HEAD_BYTES as u32, VRING_DESC_F_NEXT, first + 1)?;
        self.descriptor(first + 2, head + HEAD_BYTES, 1, VRING_DESC_F_WRITE, 0)
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u32, next: u16) -> Result<()> {
        let words = [address, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48];
        Ok(self.memory.map.write_obj(words, GuestAddress(DESCRIPTORS + 16 * u64::from(index)))?)
    }

    fn load(&self, at: u64) -> Result<u16> {
        Ok(self.memory.map.load(GuestAddress(at), Ordering::Acquire)?)
    }

    fn store(&self, value: u16, at: u64) -> Result<()> {
        Ok(self.memory.map.store(value, GuestAddress(at), Ordering::Release)?)
    }

    /// Tells the back-end of what was put on the ring, if it asked to be told.
    fn tell(&mut self) -> Result<()> {
        if self.told == self.avail {
            return Ok(());
        }
        fence(Ordering::SeqCst);
        let asked = if self.event_idx {
            is_passed(self.load(USED + 4 + 8 * u64::from(QUEUE))?, self.told, self.avail)
        } else {
            u32::from(self.load(USED)?) & VRING_USED_F_NO_NOTIFY == 0
        };
        self.told = self.avail;
        if asked {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// Tells the back-end once more of what it seems not to know, after a long silence: one that asks to be told and
    /// looks at the ring in the wrong order never comes back by itself (libvhost-user, of QEMU, has no barrier there).
    fn tell_again(&mut self) -> Result<()> {
        if self.event_idx && self.load(USED + 4 + 8 * u64::from(QUEUE))? != self.avail {
            self.told_again = Some(Instant::now());
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// Something was completed: whether that is because it was told again.
    fn note_stall(&mut self) {
        if self.told_again.take().is_some_and(|at| at.elapsed() < AT_ONCE) {
            self.stalls += 1;
        }
    }

    /// Takes completions off the ring.
    fn take(&mut self, done: &mut Vec<usize>) -> Result<()> {
        let end = self.load(USED + 2)?;
        while self.used != end {
            let entry = USED + 4 + 8 * u64::from(self.used % QUEUE);
            let first: u32 = self.memory.map.read_obj(GuestAddress(entry))?;
            let slot = first as usize / 3;
            ensure!(slot < SLOTS && first.is_multiple_of(3), "a completion of {first}, which is no request");
            let status: u8 = self.memory.map.read_obj(GuestAddress(head(slot) + HEAD_BYTES))?;
            ensure!(status == 0, "a request ended with status {status}");
            done.push(slot);
            self.used = self.used.wrapping_add(1);
        }
        Ok(())
    }
}

/// Where the head of a slot's request is.
fn head(slot: usize) -> u64 {
    HEADS + HEAD_STRIDE * slot as u64
}

/// Whether `event` is among the entries from `old` to before `new`.
fn is_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn start(front: &mut Frontend, memory: &Memory, kick: &EventFd, call: &EventFd, keeps: bool) -> Result<()> {
    let regions: Vec<_> =
        memory.map.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect::<Result<_, _>>()?;
    let base = regions.first().context("no memory")?.userspace_addr;
    front.set_mem_table(&regions)?;
    if keeps {
        // As QEMU does: what is under way is noted where a killed back-end does not take it along.
        let (kept, file) = front.get_inflight_fd(&VhostUserInflight::new(0, 0, 1, QUEUE))?;
        front.set_inflight_fd(&kept, file.as_raw_fd())?;
    }
    front.set_vring_num(0, QUEUE)?;
    front.set_vring_base(0, 0)?;
    let ring = VringConfigData {
        queue_max_size: QUEUE,
        queue_size: QUEUE,
        flags: 0,
        desc_table_addr: base + DESCRIPTORS,
        used_ring_addr: base + USED,
        avail_ring_addr: base + AVAIL,
        log_addr: None,
    };
    front.set_vring_addr(0, &ring)?;
    front.set_vring_call(0, call)?;
    front.set_vring_kick(0, kick)?;
    Ok(front.set_vring_enable(0, true)?)
}

impl Disk for Guest {
    fn submit(&mut self, slot: usize, request: Request) -> Result<()> {
        let (first, GuestAddress(data)) = (3 * slot as u16, Memory::buffer(slot));
        let (kind, flags) = match request.op {
            Op::Read => (VIRTIO_BLK_T_IN, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE),
            Op::Write => (VIRTIO_BLK_T_OUT, VRING_DESC_F_NEXT),
            Op::Flush => (VIRTIO_BLK_T_FLUSH, 0),
        };
        self.memory.map.write_obj([u64::from(kind), request.offset / 512], GuestAddress(head(slot)))?;
        self.memory.map.write_obj(UNANSWERED, GuestAddress(head(slot) + HEAD_BYTES))?;
        let data_or_end = match request.op {
            Op::Flush => first + 2,
            Op::Read | Op::Write => first + 1,
        };
        self.descriptor(first, head(slot), HEAD_BYTES as u32, VRING_DESC_F_NEXT, data_or_end)?;
        self.descriptor(first + 1, data, request.len as u32, flags, first + 2)?;
        let entry = AVAIL + 4 + 2 * u64::from(self.avail % QUEUE);
        self.memory.map.write_obj(first, GuestAddress(entry))?;
        self.avail = self.avail.wrapping_add(1);
        self.store(self.avail, AVAIL + 2)
    }

    fn stalls(&self) -> u64 {
        self.stalls
    }

    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()> {
        self.tell()?;
        loop {
            self.take(done)?;
            if !done.is_empty() {
                self.note_stall();
                return Ok(());
            }
            // From now on it wants to be told, of the next completion; one may have come meanwhile.
            self.store(self.used, AVAIL + 4 + 2 * u64::from(QUEUE))?;
            fence(Ordering::SeqCst);
            self.take(done)?;
            if !done.is_empty() {
                self.note_stall();
                return Ok(());
            }
            match self.called.wait(SILENCE_MS, &mut [EpollEvent::default()]) {
                Ok(0) => self.tell_again()?,
                Err(e) if e.kind() != Interrupted => bail!("a guest cannot sleep: {e}"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_the_entry_that_was_asked_for_and_of_no_other() {
        assert!(is_passed(5, 5, 6) && is_passed(5, 3, 9));
        assert!(!is_passed(5, 6, 9) && !is_passed(5, 3, 5));
        assert!(is_passed(65535, 65534, 2) && !is_passed(2, 65534, 2));
    }
}
