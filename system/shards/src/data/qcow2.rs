//! A first look at a qcow2 header, before any program opens the file: what would make one open another file, or
//! ask for a key, is refused here. Pure.

/// Bytes of the header looked at.
pub const HEAD_BYTES: usize = 104;

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Incompatible feature bit: the data lies in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// Checks the first bytes of a file declared as qcow2; answers its virtual size in bytes.
pub fn inspect(head: &[u8], cap: u64) -> Result<u64, String> {
    if head.len() < 72 || head[..4] != MAGIC {
        return Err("it is not a qcow2 image".into());
    }
    let (version, backing) = (be32(head, 4), be64(head, 8));
    let (size, encryption) = (be64(head, 24), be32(head, 32));
    if !(2..=3).contains(&version) {
        return Err(format!("qcow2 version {version} is not supported"));
    }
    if backing != 0 {
        return Err("it has a backing file: flatten it first (qemu-img convert)".into());
    }
    if encryption != 0 {
        return Err("it is encrypted, which is not supported".into());
    }
    if version == 3 {
        if head.len() < HEAD_BYTES {
            return Err("it is cut off within its header".into());
        }
        if be64(head, 72) & EXTERNAL_DATA != 0 {
            return Err("its data lies in another file: convert it first (qemu-img convert)".into());
        }
    }
    if size > cap {
        return Err(format!("its virtual size of {size} bytes is over the limit of {cap}"));
    }
    Ok(size)
}

/// Whether the bytes begin like a disk image format that `raw` is not.
pub fn looks_formatted(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 5] = [
        (&MAGIC, "qcow2"),
        (b"KDMV", "vmdk"),
        (b"conectix", "vhd"),
        (b"vhdxfile", "vhdx"),
        (b"QED\0", "qed"),
    ];
    known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| name)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u32, backing: u64, size: u64, encryption: u32, incompatible: u64) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[8..16].copy_from_slice(&backing.to_be_bytes());
        head[24..32].copy_from_slice(&size.to_be_bytes());
        head[32..36].copy_from_slice(&encryption.to_be_bytes());
        head[72..80].copy_from_slice(&incompatible.to_be_bytes());
        head
    }

    #[test]
    fn only_a_plain_image_passes() {
        assert_eq!(inspect(&head(3, 0, 4096, 0, 0), 4096), Ok(4096));
        assert_eq!(inspect(&head(2, 0, 4096, 0, EXTERNAL_DATA), 4096), Ok(4096));
        for (bad, word) in [
            (head(3, 8, 4096, 0, 0), "backing"),
            (head(3, 0, 4097, 0, 0), "limit"),
            (head(3, 0, 4096, 2, 0), "encrypted"),
            (head(3, 0, 4096, 0, EXTERNAL_DATA), "another file"),
            (head(4, 0, 4096, 0, 0), "version"),
            (head(3, 0, 4096, 0, 0)[..80].to_vec(), "cut off"),
            (vec![], "not a qcow2"),
            (vec![0; 512], "not a qcow2"),
        ] {
            assert!(inspect(&bad, 4096).unwrap_err().contains(word), "{word}");
        }
    }
}
