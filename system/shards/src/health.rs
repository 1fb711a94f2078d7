//! What a disk says of its own health (SMART): read from smartctl's words, kept where the storage agent finds it, and news
//! or not.
//!
//! Asking a disk takes rights that the storage process has not: `cairn disk-health` does it, now and then, and leaves a file
//! for each data disk. What it left long ago is not believed any more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where it is left, in the run directory.
pub const FOLDER: &str = "disk-health";
/// What was said longer ago says nothing.
const BELIEVED: Duration = Duration::from_secs(3 * 3600);
/// Bits of NVMe's critical warning by which a disk is failing: spare blocks are used up, it is not reliable, it may only be
/// read, its cache is not kept over a power cut. A temperature (bit 1) passes.
const NVME_FAILING: [(u64, &str); 4] = [
    (0, "its spare blocks are used up"),
    (2, "it is not reliable any more"),
    (3, "it may only be read from now on"),
    (4, "its cache does not outlive a power cut any more"),
];
/// Attributes of ATA disks that count blocks which were lost, or could not be read: reallocated, pending, uncorrectable.
const ATA_LOST: [u64; 3] = [5, 197, 198];
/// Smaller changes of the temperature, in °C, are no news.
const WARMER: u64 = 10;
/// Nor are so many hours more.
const LATER: u64 = 24;

/// What a disk says of itself. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its make.
    pub model: Option<String>,
    /// Its maker's number, as it stands on it: by this a person finds it.
    pub serial: Option<String>,
    /// Why it says that it is failing, if it does.
    pub failing: Option<String>,
    /// How much of its life as its maker sees it is over, in percent. May exceed 100.
    pub worn: Option<u64>,
    /// How many blocks could not be read, or were replaced.
    pub media_errors: Option<u64>,
    /// In °C.
    pub temperature: Option<u64>,
    /// How many hours it has been on.
    pub hours: Option<u64>,
}

impl Health {
    /// What smartctl's JSON (`--json --all`) says of a disk; `None` if it says nothing of its health, as of disks that are
    /// emulated.
    pub fn of_smartctl(json: &str) -> Option<Health> {
        let said: Value = serde_json::from_str(json).ok()?;
        let passed = said.pointer("/smart_status/passed").and_then(Value::as_bool)?;
        let number = |path: &str| said.pointer(path).and_then(Value::as_u64);
        let text = |path: &str| said.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Some(Health {
            model: text("/model_name").or_else(|| text("/scsi_model_name")),
            serial: text("/serial_number"),
            failing: match number("/nvme_smart_health_information_log/critical_warning") {
                Some(bits) => nvme_failing(bits),
                None => (!passed).then(|| "it does not pass its own test".to_owned()),
            },
            worn: number("/endurance_used/current_percent")
                .or_else(|| number("/nvme_smart_health_information_log/percentage_used")),
            media_errors: number("/nvme_smart_health_information_log/media_errors")
                .or_else(|| ata_lost(&said)),
            temperature: number("/temperature/current"),
            hours: number("/power_on_time/hours"),
        })
    }

    /// Whether this is worth telling after that.
    pub fn is_news(old: Option<&Health>, new: Option<&Health>) -> bool {
        let (Some(old), Some(new)) = (old, new) else { return old != new };
        let far = |a: Option<u64>, b: Option<u64>, step| match (a, b) {
            (Some(a), Some(b)) => a.abs_diff(b) >= step,
            (a, b) => a != b,
        };
        let same = Health { temperature: new.temperature, hours: new.hours, ..old.clone() };
        same != *new || far(old.temperature, new.temperature, WARMER) || far(old.hours, new.hours, LATER)
    }

    /// For people, in a few words.
    pub fn told(&self) -> String {
        let state = if self.failing.is_some() { "failing" } else { "well" };
        let worn = self.worn.map(|percent| format!("{percent} % worn"));
        let errors = self.media_errors.filter(|n| *n > 0).map(|n| format!("{n} bad blocks"));
        let warm = self.temperature.map(|degrees| format!("{degrees} °C"));
        [Some(state.to_owned()), worn, errors, warm].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What was last said of the disk with this id, if that is not long ago.
    pub fn read(directory: &Path, disk: &str) -> Option<Health> {
        let path = file(directory, disk)?;
        let age = path.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
        (age < BELIEVED)
            .then(|| std::fs::read(path).ok())
            .flatten()
            .and_then(|b| serde_json::from_slice(&b).ok())
    }

    /// Leaves this for [`Health::read`].
    pub fn write(&self, directory: &Path, disk: &str) -> io::Result<()> {
        let path = file(directory, disk).ok_or(io::ErrorKind::InvalidInput)?;
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }
}

/// Where a disk's is; ids are never paths.
fn file(directory: &Path, disk: &str) -> Option<PathBuf> {
    let plain = !disk.is_empty() && disk.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then(|| directory.join(format!("{disk}.json")))
}

fn nvme_failing(bits: u64) -> Option<String> {
    let set = NVME_FAILING.iter().filter(|(bit, _)| bits >> bit & 1 == 1);
    let words: Vec<&str> = set.map(|(_, words)| *words).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn ata_lost(said: &Value) -> Option<u64> {
    let table = said.pointer("/ata_smart_attributes/table")?.as_array()?;
    let is_one =
        |row: &&Value| row.get("id").and_then(Value::as_u64).is_some_and(|id| ATA_LOST.contains(&id));
    // Some makers keep other counts in the upper half.
    let raw = |row: &Value| row.pointer("/raw/value").and_then(Value::as_u64).map(|n| n & 0xffff_ffff);
    table.iter().filter(is_one).map(raw).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvme(warning: u64) -> String {
        format!(
            r#"{{"model_name":"QEMU NVMe Ctrl","serial_number":"data1","smart_status":{{"passed":{},"nvme":{{"value":{warning}}}}},
            "nvme_smart_health_information_log":{{"critical_warning":{warning},"temperature":50,"percentage_used":7,"media_errors":0}},
            "temperature":{{"current":50}},"power_on_time":{{"hours":12}}}}"#,
            warning == 0
        )
    }

    #[test]
    fn an_nvme_disk_is_failing_by_its_warnings_but_not_by_its_temperature() {
        let health = |warning| Health::of_smartctl(&nvme(warning)).unwrap();
        assert_eq!(health(0).told(), "well, 7 % worn, 50 °C");
        assert_eq!((health(0).serial.as_deref(), health(0).hours), (Some("data1"), Some(12)));
        assert_eq!(health(0b10).failing, None, "too warm");
        let both = health(0b101).failing.unwrap();
        assert!(both.contains("spare blocks") && both.contains("not reliable"), "{both}");
        assert_eq!(health(0b101).told(), "failing, 7 % worn, 50 °C");
    }

    #[test]
    fn an_ata_disk_is_failing_by_its_own_test() {
        let said = |passed| {
            let json = format!(
                r#"{{"model_name":"X","smart_status":{{"passed":{passed}}},"temperature":{{"current":31}},
                "ata_smart_attributes":{{"table":[{{"id":5,"raw":{{"value":8}}}},{{"id":9,"raw":{{"value":900}}}},
                {{"id":197,"raw":{{"value":4294967298}}}}]}}}}"#
            );
            Health::of_smartctl(&json).unwrap()
        };
        assert_eq!(said(true).told(), "well, 10 bad blocks, 31 °C");
        assert!(said(false).failing.is_some());
    }

    #[test]
    fn who_says_nothing_is_not_believed() {
        for json in
            ["", "{}", r#"{"smartctl":{"exit_status":1}}"#, "[1]", r#"{"smart_status":{"passed":"yes"}}"#]
        {
            assert_eq!(Health::of_smartctl(json), None, "{json}");
        }
        let directory = tempfile::tempdir().unwrap();
        let health = Health { hours: Some(3), ..Health::default() };
        assert_eq!(Health::read(directory.path(), "d1"), None);
        health.write(directory.path(), "d1").unwrap();
        assert_eq!(Health::read(directory.path(), "d1"), Some(health.clone()));
        let old = std::time::SystemTime::now() - BELIEVED * 2;
        std::fs::File::open(directory.path().join("d1.json")).unwrap().set_modified(old).unwrap();
        assert_eq!(Health::read(directory.path(), "d1"), None);
        assert!(health.write(directory.path(), "../d1").is_err());
    }

    #[test]
    fn an_hour_or_a_degree_is_no_news() {
        let health = |temperature, hours, worn| Health { temperature, hours, worn, ..Health::default() };
        let old = health(Some(40), Some(100), Some(3));
        let news = |new: &Health| Health::is_news(Some(&old), Some(new));
        assert!(!news(&health(Some(44), Some(101), Some(3))));
        assert!(news(&health(Some(55), Some(101), Some(3))) && news(&health(Some(40), Some(130), Some(3))));
        assert!(news(&health(Some(40), Some(100), Some(4))) && news(&health(None, Some(100), Some(3))));
        assert!(Health::is_news(None, Some(&old)) && !Health::is_news(None, None));
    }
}
