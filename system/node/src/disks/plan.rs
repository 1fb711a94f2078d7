//! What to do with each disk: a pure decision.

use super::DiskError;
use super::probe::{Content, Device, Partition};

/// The smallest disk that is adopted, in bytes.
pub const DISK_MIN: u64 = 4 << 30;

/// One thing to do, or to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Give an empty disk its partitions: a state partition of so many bytes if wanted, the rest for data.
    Partition {
        /// The disk.
        device: Device,
        /// The size of the state partition, if it is to have one.
        state: Option<u64>,
    },
    /// Finish, if need be, and mount a partition of ours.
    Mount {
        /// The disk it is on.
        device: Device,
        /// The partition.
        partition: Partition,
        /// Whether it is the state partition.
        state: bool,
    },
    /// Don't touch this disk.
    Leave {
        /// The disk.
        device: Device,
        /// Why.
        why: String,
    },
}

/// Decides for all disks together. The state partition goes on the first empty disk, when there is none yet.
pub fn plan(devices: &[Device]) -> Result<Vec<Step>, DiskError> {
    let partitions = |d: &Device| match &d.content {
        Content::Ours(partitions) => partitions.clone(),
        _ => Vec::new(),
    };
    let mut have_state = devices.iter().flat_map(partitions).any(|p| p.state);
    let mut mounted_state = false;
    let mut steps = Vec::new();
    for device in devices {
        match &device.content {
            Content::Foreign(what) => {
                steps.push(Step::Leave { device: device.clone(), why: format!("it holds {what}") });
            }
            Content::Blank if device.size < DISK_MIN => {
                steps.push(Step::Leave { device: device.clone(), why: "it is smaller than 4 GiB".into() });
            }
            Content::Blank => {
                let state = (!have_state).then(|| state_size(device.size));
                have_state = true;
                steps.push(Step::Partition { device: device.clone(), state });
            }
            Content::Ours(partitions) => {
                for partition in partitions {
                    if partition.state && mounted_state {
                        let why = "it carries the state of another node".into();
                        steps.push(Step::Leave { device: device.clone(), why });
                        continue;
                    }
                    mounted_state |= partition.state;
                    let (device, partition) = (device.clone(), partition.clone());
                    steps.push(Step::Mount { device, state: partition.state, partition });
                }
            }
        }
    }
    if have_state { Ok(steps) } else { Err(DiskError::NoDisk) }
}

/// A tenth of the disk, at least 1 GiB and at most 16 GiB, in bytes.
fn state_size(disk: u64) -> u64 {
    (disk / 10).clamp(1 << 30, 16 << 30) >> 20 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, content: Content) -> Device {
        Device { path: name.into(), size: 20 << 30, content }
    }

    fn part(state: bool) -> Partition {
        Partition { path: "/dev/p".into(), number: 1, id: "x".into(), state, finished: true }
    }

    #[test]
    fn first_boot_puts_state_on_the_first_empty_disk_only() {
        let devices = [
            disk("/dev/vda", Content::Foreign("ext4".into())),
            disk("/dev/vdb", Content::Blank),
            disk("/dev/vdc", Content::Blank),
        ];
        let steps = plan(&devices).unwrap();
        assert!(matches!(&steps[0], Step::Leave { device, .. } if device.path.ends_with("vda")));
        assert!(matches!(&steps[1], Step::Partition { state: Some(size), .. } if *size == 2 << 30));
        assert!(matches!(&steps[2], Step::Partition { state: None, .. }));
    }

    #[test]
    fn with_a_state_partition_a_new_disk_is_all_data() {
        let devices = [
            disk("/dev/vdb", Content::Blank),
            disk("/dev/vdc", Content::Ours(vec![part(true), part(false)])),
        ];
        let steps = plan(&devices).unwrap();
        assert!(matches!(&steps[0], Step::Partition { state: None, .. }));
        assert!(matches!(&steps[1], Step::Mount { state: true, .. }));
    }

    #[test]
    fn nothing_empty_means_nothing_is_touched() {
        let mut small = disk("/dev/vdb", Content::Blank);
        small.size = 1 << 30;
        assert!(matches!(plan(&[small]), Err(DiskError::NoDisk)));
        assert!(matches!(plan(&[disk("/dev/vda", Content::Foreign("ntfs".into()))]), Err(DiskError::NoDisk)));
    }

    #[test]
    fn a_second_state_partition_is_left_alone() {
        let devices = [
            disk("/dev/vdb", Content::Ours(vec![part(true)])),
            disk("/dev/vdc", Content::Ours(vec![part(true)])),
        ];
        let steps = plan(&devices).unwrap();
        assert!(matches!(&steps[1], Step::Leave { .. }));
    }
}
