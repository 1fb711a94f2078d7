//! What the device offers: feature bits, limits, and its configuration space. Pure.

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_GEOMETRY, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::format::SECTOR;

/// Queues offered; QEMU takes one per virtual CPU, and refuses to start if it wants more than there are.
pub const QUEUES: usize = 64;
/// Entries per queue. QEMU 10's machines ask for up to 1024.
pub const QUEUE_SIZE_MAX: usize = 1024;
/// The most sectors of one discard or write-zeroes range: 1 GiB.
pub const RANGE_SECTORS_MAX: u32 = 1 << 21;
/// The most ranges of one discard or write-zeroes request.
pub const RANGES_MAX: u32 = 64;
/// Bytes of an answer to "get id".
pub const ID_BYTES: usize = 20;
/// Where the write-cache byte lies in the configuration space.
pub const WRITEBACK_OFFSET: u32 = 32;

/// `VHOST_F_LOG_ALL`: the front-end wants to know which pages change.
pub const LOG_ALL: u64 = 1 << 26;

/// Data pieces per request. With header and status they fit QEMU's smallest queue (128).
const SEGMENTS_MAX: u32 = 126;
/// The geometry shown to BIOS boot code.
const HEADS: u8 = 16;
const TRACK_SECTORS: u8 = 63;
/// The configuration space, with room for fields of later versions, which read as zeroes.
const CONFIG_BYTES: usize = 96;

/// The features offered for a volume.
pub fn features(read_only: bool) -> u64 {
    let common = [
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_GEOMETRY,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_CONFIG_WCE,
        VIRTIO_BLK_F_MQ,
    ];
    let access: &[u32] = match read_only {
        true => &[VIRTIO_BLK_F_RO],
        false => &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES],
    };
    let bits = common.iter().chain(access).fold(0, |bits, f| bits | 1 << f);
    bits | LOG_ALL | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
}

/// The vhost-user protocol features offered.
pub fn protocol_features() -> VhostUserProtocolFeatures {
    use VhostUserProtocolFeatures as P;
    P::MQ
        | P::CONFIG
        | P::REPLY_ACK
        | P::LOG_SHMFD
        | P::CONFIGURE_MEM_SLOTS
        | P::INFLIGHT_SHMFD
        | P::BACKEND_REQ
}

/// Whether a guest that took these features names how far it wants to be told of completions.
pub fn has_event_idx(acked: u64) -> bool {
    acked & (1 << VIRTIO_RING_F_EVENT_IDX) != 0
}

/// Whether a guest that took these features, and set the write-cache byte so, has a write-back cache; without
/// one each write must be on stable media before it completes.
pub fn is_writeback(acked: u64, byte: bool) -> bool {
    match acked & (1 << VIRTIO_BLK_F_CONFIG_WCE) {
        0 => acked & (1 << VIRTIO_BLK_F_FLUSH) != 0,
        _ => byte,
    }
}

/// A part of the configuration space of a volume with `size` bytes.
pub fn read(size: u64, writeback: bool, offset: u32, len: u32) -> Vec<u8> {
    let space = space(size, writeback);
    let at = |i: usize| space.get(i).copied().unwrap_or(0);
    // The front-end's own limit on `len` is 256 bytes; more than that is never asked for in earnest.
    (offset as usize..).take(len.min(4096) as usize).map(at).collect()
}

fn space(size: u64, writeback: bool) -> [u8; CONFIG_BYTES] {
    let mut space = [0; CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(size / SECTOR).to_le_bytes()); // capacity
    put(12, &SEGMENTS_MAX.to_le_bytes()); // seg_max
    // Geometry as ATA disks have it: boot code of the BIOS's days reads by cylinder, head and sector.
    let cylinders = (size / SECTOR / u64::from(HEADS) / u64::from(TRACK_SECTORS)).clamp(2, 16383) as u16;
    put(16, &cylinders.to_le_bytes());
    put(18, &[HEADS, TRACK_SECTORS]);
    put(20, &(SECTOR as u32).to_le_bytes()); // blk_size
    put(24, &[3]); // physical_block_exp: the disk's blocks have 8 sectors
    put(26, &8u16.to_le_bytes()); // min_io_size, in sectors
    put(WRITEBACK_OFFSET as usize, &[u8::from(writeback)]);
    put(34, &(QUEUES as u16).to_le_bytes()); // num_queues
    put(36, &RANGE_SECTORS_MAX.to_le_bytes()); // max_discard_sectors
    put(40, &RANGES_MAX.to_le_bytes()); // max_discard_seg
    put(44, &8u32.to_le_bytes()); // discard_sector_alignment
    put(48, &RANGE_SECTORS_MAX.to_le_bytes()); // max_write_zeroes_sectors
    put(52, &RANGES_MAX.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_is_that_of_the_specification() {
        let all = read(1 << 30, true, 0, 60);
        assert_eq!(all[0..8], (2u64 << 20).to_le_bytes());
        assert_eq!(
            (all[12], all[20..24].to_vec(), all[24], all[32], all[34]),
            (126, vec![0, 2, 0, 0], 3, 1, 64)
        );
        assert_eq!(all[16..20], [2080u16.to_le_bytes()[0], 2080u16.to_le_bytes()[1], 16, 63]);
        assert_eq!(read(1 << 30, true, 0, 60)[34..], read(1 << 30, true, 34, 26));
        assert_eq!(read(512, true, u32::MAX, 4), [0; 4]);
        assert_eq!(read(512, false, 90, 10), [0; 10]);
    }

    #[test]
    fn a_cache_is_only_trusted_where_the_guest_can_flush() {
        let (flush, wce) = (1 << VIRTIO_BLK_F_FLUSH, 1 << VIRTIO_BLK_F_CONFIG_WCE);
        assert!(!is_writeback(0, true));
        assert!(is_writeback(flush, false));
        assert!(is_writeback(flush | wce, true));
        assert!(!is_writeback(flush | wce, false));
    }

    #[test]
    fn a_read_only_volume_offers_no_changes() {
        let changes = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        assert_eq!(features(true) & changes, 0);
        assert_eq!(features(false) & (changes | 1 << VIRTIO_BLK_F_RO), changes);
    }
}
