//! What a data disk looks like: every path, and every byte of the files that are ours. `FORMAT.md` in this crate
//! says the same for a reader without the code; a change here is a change there, with a new format number.
//!
//! Pure: names, types and checks, no I/O. Nothing else in the crate may spell these names.

use serde::{Deserialize, Serialize};

use crate::seal;

/// The marker that makes a directory a data disk.
pub const MARKER: &str = "cairn-disk.json";
/// Which node the disk belongs to, beside the marker. The marker is locked by whoever uses the disk, so it stays the file it is.
pub const OWNER: &str = "cairn-owner.json";
/// The format of [`OWNER`] that this release reads and writes.
pub const OWNER_FORMAT: u32 = 1;
/// The format of disks that this release reads and writes.
pub const DISK_FORMAT: u32 = 1;
/// The format of volumes that this release makes: every block has a checksum.
pub const VOLUME_FORMAT: u32 = 2;
/// Other volumes may have some of the files too. A volume is of it from the first copy on that is made of it, so that no
/// release writes to such a file that does not know of them.
pub const VOLUME_FORMAT_SHARED: u32 = 3;
/// The format of a volume from the first mark on: marks have sums, in [`MARKS`]. Files may be shared too.
pub const VOLUME_FORMAT_GUARDED: u32 = 4;
/// The same of a volume of which segments may lack their sums. The newest format that this release reads.
pub const VOLUME_FORMAT_GUARDED_UNSUMMED: u32 = 5;
/// The oldest format of volumes that it reads: segments may lack their sums.
pub const VOLUME_FORMAT_UNSUMMED: u32 = 1;
/// Where volumes live, each in a directory named by its id.
pub const VOLUMES: &str = "volumes";
/// Where volumes are built before they are moved to [`VOLUMES`]. What is found here at start is unacknowledged.
pub const STAGING: &str = "staging";
/// Where destroyed volumes wait for their bytes to be freed. What is found here was reported gone.
pub const TRASH: &str = "trash";
/// Where backups lie, each in a directory named by its id.
pub const BACKUPS: &str = "backups";
/// The manifest of a volume, in its directory. One of this name says that a backup is whole, too.
pub const MANIFEST: &str = "manifest.json";
/// The upload an image was made from, in its directory, where it isn't the segments themselves.
pub const ORIGINAL: &str = "original";
/// What a replica has promised its writers, in the directory of a volume that has several replicas.
pub const REPLICA: &str = "replica.json";
/// Says that a replica is bound to this disk, by its place in the record of replicas; empty.
pub const PINNED: &str = "pinned";
/// What a replica keeps of others' absences, see [`crate::replication::absence`].
pub const ABSENCE: &str = "absence";
/// Which areas of a volume a crash may leave other than their sums say, and other than on other replicas.
pub const MARKS: &str = "marks";
/// The same as releases before [`VOLUME_FORMAT_GUARDED`] keep it: without sums.
pub const AREAS: &str = "areas";
/// How far the search for damage has come in a volume, in its directory.
pub const SCRUB: &str = "scrub.json";
/// What the name of a segment's file that is being replaced ends with: that of its successor, and one more of its own.
pub const NEW: &str = ".new";
/// See [`NEW`].
pub const OLD: &str = ".old";
/// The format of [`REPLICA`] that this release reads and writes.
pub const REPLICA_FORMAT: u32 = 1;
/// The file that the health probe writes, in the disk's directory.
pub const PROBE: &str = ".probe";
/// The size of a segment of a new volume, in bytes.
pub const SEGMENT_SIZE: u64 = 1 << 30;
/// The unit of checksums, in bytes.
pub const BLOCK: u64 = 4096;
/// The bytes of a checksum.
pub const SUM: u64 = 4;
/// The most bytes a volume may have: 64 TiB. More is taken for nonsense, before there is room made for it.
pub const SIZE_MAX: u64 = 1 << 46;
/// The most segments of one.
const SEGMENTS_MAX: u64 = 1 << 20;
/// The unit in which guests address volumes, in bytes.
pub const SECTOR: u64 = 512;

/// The marker file of a data disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// [`DISK_FORMAT`].
    pub format: u32,
    /// The disk's id.
    pub disk: String,
    /// The cloud it belongs to.
    pub cloud: String,
}

impl Marker {
    /// Reads a marker; an error says why the disk is not ours to touch.
    pub fn parse(bytes: &[u8]) -> Result<Marker, String> {
        let marker: Marker =
            serde_json::from_slice(bytes).map_err(|e| format!("its marker is not valid: {e}"))?;
        if marker.format != DISK_FORMAT {
            return Err(format!("it has disk format {}, this release knows {DISK_FORMAT}", marker.format));
        }
        if !is_id(&marker.disk) {
            return Err("its marker names no valid disk id".into());
        }
        Ok(marker)
    }
}

/// Whose a data disk is, as the disk says it; the store may know better, see [`crate::ownership`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// [`OWNER_FORMAT`].
    pub format: u32,
    /// The node by whose name its unbound replicas go.
    pub node: String,
    /// How often the disk had been adopted when this was written. From the first time on, all on it is bound to it.
    pub adoption: u64,
}

impl Owner {
    /// What a disk says of itself that is this node's since this adoption.
    pub fn new(node: &str, adoption: u64) -> Owner {
        Owner { format: OWNER_FORMAT, node: node.into(), adoption }
    }

    /// Reads the file; an error says why nobody can tell whose the disk is.
    pub fn parse(bytes: &[u8]) -> Result<Owner, String> {
        let owner: Owner =
            serde_json::from_slice(bytes).map_err(|e| format!("its {OWNER} is not valid: {e}"))?;
        match owner.format {
            OWNER_FORMAT => Ok(owner),
            other => Err(format!("its {OWNER} has format {other}, this release knows {OWNER_FORMAT}")),
        }
    }
}

/// The manifest of a volume: all that is known of it beside its segments. Replaced whole, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VOLUME_FORMAT`], or another one that this release reads.
    pub format: u32,
    /// The volume's id, equal to the name of its directory.
    pub id: String,
    /// Its size in bytes, a multiple of [`SECTOR`].
    pub size: u64,
    /// The bytes each segment covers, the last one perhaps fewer.
    pub segment_size: u64,
    /// The volume it was cloned from.
    pub source: Option<String>,
    /// Whether it may never be written.
    pub read_only: bool,
    /// Set if it is an image: what was uploaded.
    pub image: Option<ImageSource>,
}

/// What an image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// `raw`, `qcow2` or `iso`, as it was declared at the upload.
    pub disk_format: String,
    /// The bytes uploaded.
    pub size: u64,
    /// Their MD5, in hex.
    pub md5: String,
    /// Their SHA-512, in hex.
    pub sha512: String,
    /// Whether they are kept in the file [`ORIGINAL`]; else the first `size` bytes of the volume are they.
    pub original_kept: bool,
}

impl Manifest {
    /// The manifest of a new volume, its size rounded up to whole sectors.
    pub fn new(id: &str, size: u64, read_only: bool) -> Manifest {
        Manifest {
            format: VOLUME_FORMAT,
            id: id.into(),
            size: whole_sectors(size),
            segment_size: SEGMENT_SIZE,
            source: None,
            read_only,
            image: None,
        }
    }

    /// Reads the manifest found in the directory called `id`.
    pub fn parse(bytes: &[u8], id: &str) -> Result<Manifest, String> {
        seal::check(bytes)?;
        let m: Manifest = serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))?;
        if !(VOLUME_FORMAT_UNSUMMED..=VOLUME_FORMAT_GUARDED_UNSUMMED).contains(&m.format) {
            let newest = VOLUME_FORMAT_GUARDED_UNSUMMED;
            return Err(format!("volume format {}, this release knows {newest}", m.format));
        }
        if m.id != id {
            return Err(format!("the manifest of {} lies in the directory of {id}", m.id));
        }
        if m.segment_size == 0 || !m.segment_size.is_multiple_of(SECTOR) || !m.size.is_multiple_of(SECTOR) {
            return Err("sizes that are not whole sectors".into());
        }
        if m.size > SIZE_MAX || m.size.div_ceil(m.segment_size) > SEGMENTS_MAX {
            return Err(format!("{} bytes in segments of {}", m.size, m.segment_size));
        }
        if m.is_summed() && !m.segment_size.is_multiple_of(BLOCK) {
            return Err("segments that are not whole blocks".into());
        }
        Ok(m)
    }

    /// Whether all its segments have sums.
    pub fn is_summed(&self) -> bool {
        !matches!(self.format, VOLUME_FORMAT_UNSUMMED | VOLUME_FORMAT_GUARDED_UNSUMMED)
    }

    /// The format once all its segments have sums.
    pub fn format_summed(&self) -> u32 {
        match self.format {
            VOLUME_FORMAT_UNSUMMED => VOLUME_FORMAT,
            VOLUME_FORMAT_GUARDED_UNSUMMED => VOLUME_FORMAT_GUARDED,
            other => other,
        }
    }

    /// Whether its marks have sums.
    pub fn is_guarded(&self) -> bool {
        self.format >= VOLUME_FORMAT_GUARDED
    }

    /// The format once its marks have sums.
    pub fn format_guarded(&self) -> u32 {
        if self.is_summed() { VOLUME_FORMAT_GUARDED } else { VOLUME_FORMAT_GUARDED_UNSUMMED }
    }

    /// Whether other volumes may have some of its files too.
    pub fn may_share(&self) -> bool {
        self.format >= VOLUME_FORMAT_SHARED
    }

    /// How many segments the volume has.
    pub fn segments(&self) -> usize {
        self.size.div_ceil(self.segment_size) as usize
    }
}

/// Rounds up to whole sectors (and down where that would overflow).
pub fn whole_sectors(size: u64) -> u64 {
    size.checked_next_multiple_of(SECTOR).unwrap_or(size - size % SECTOR)
}

/// The name of a segment's file.
pub fn segment_name(index: usize) -> String {
    format!("seg-{index:08}")
}

/// The name of the file with a segment's sums.
pub fn sums_name(index: usize) -> String {
    format!("sum-{index:08}")
}

/// The number of the segment that a file of this name holds, or the sums of.
pub fn segment_of(name: &str) -> Option<usize> {
    let index = name.strip_prefix("seg-").or_else(|| name.strip_prefix("sum-"))?.parse().ok()?;
    (name == segment_name(index) || name == sums_name(index)).then_some(index)
}

/// Whether a text may name a volume or disk: it becomes a file name, so only what UUIDs are made of.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_or_newer_disk_is_refused() {
        let ours = br#"{"format":1,"disk":"d1","cloud":"c1"}"#;
        assert_eq!(Marker::parse(ours).unwrap().cloud, "c1");
        assert!(Marker::parse(br#"{"format":2,"disk":"d1","cloud":"c1"}"#).is_err());
        assert!(Marker::parse(br#"{"format":1,"disk":"../x","cloud":"c1"}"#).is_err());
        assert!(Marker::parse(b"").is_err());
    }

    #[test]
    fn what_an_owner_is_reads_back_and_another_format_is_refused() {
        let owner = Owner::new("n", 2);
        assert_eq!(Owner::parse(&serde_json::to_vec(&owner).unwrap()), Ok(owner));
        assert_eq!(
            Owner::parse(include_bytes!("../tests/fixtures/owner-1.json")),
            Ok(Owner::new("cairn-0a1b2c", 3))
        );
        assert!(Owner::parse(br#"{"format":2,"node":"n","adoption":0}"#).is_err());
        assert!(Owner::parse(b"").is_err());
    }

    #[test]
    fn the_first_release_stays_readable() {
        let text = include_bytes!("../tests/fixtures/manifest-1.json");
        let m = Manifest::parse(text, "6f9c0f2e-6c55-4f0e-9d0b-0e8f4c3b2a10").unwrap();
        assert_eq!((m.size, m.segments(), m.read_only), (3 << 30, 3, true));
        assert!(!m.is_summed() && Manifest::new("a", 1, false).is_summed());
        assert!(Manifest::parse(text, "another").is_err());
    }

    #[test]
    fn every_format_since_stays_readable_and_a_newer_one_is_refused() {
        let id = "6f9c0f2e-6c55-4f0e-9d0b-0e8f4c3b2a10";
        for (text, format) in [
            (&include_bytes!("../tests/fixtures/manifest-2.json")[..], VOLUME_FORMAT),
            (&include_bytes!("../tests/fixtures/manifest-3.json")[..], VOLUME_FORMAT_SHARED),
            (&include_bytes!("../tests/fixtures/manifest-4.json")[..], VOLUME_FORMAT_GUARDED),
            (&include_bytes!("../tests/fixtures/manifest-5.json")[..], VOLUME_FORMAT_GUARDED_UNSUMMED),
        ] {
            let m = Manifest::parse(text, id).unwrap();
            assert_eq!((m.format, m.size, m.may_share()), (format, 3 << 30, format >= 3));
            assert_eq!((m.is_summed(), m.is_guarded()), (format < 5, format >= 4));
            let guarded = Manifest { format: m.format_guarded(), ..m.clone() };
            assert!(guarded.is_guarded() && guarded.is_summed() == m.is_summed());
            let summed = Manifest { format: m.format_summed(), ..m.clone() };
            assert!(summed.is_summed() && summed.is_guarded() == m.is_guarded());
            let newer = Manifest { format: VOLUME_FORMAT_GUARDED_UNSUMMED + 1, ..m };
            assert!(Manifest::parse(&serde_json::to_vec(&newer).unwrap(), id).is_err());
        }
    }

    #[test]
    fn sizes_are_whole_sectors() {
        assert_eq!(Manifest::new("a", 1, false).size, 512);
        assert_eq!(Manifest::new("a", 1024, false).size, 1024);
        assert_eq!(Manifest::new("a", (1 << 30) + 1, false).segments(), 2);
        assert_eq!(Manifest::new("a", 0, false).segments(), 0);
    }

    #[test]
    fn files_of_segments_are_known_by_their_names() {
        assert_eq!(
            (segment_of(&segment_name(7)), segment_of(&sums_name(123_456_789))),
            (Some(7), Some(123_456_789))
        );
        for other in ["seg-7", "seg-+0000007", "seg-00000007.new", "areas", "sum-", "seg-0000000x"] {
            assert_eq!(segment_of(other), None, "{other}");
        }
    }

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "a\0", "x y", "ü"] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
