//! Which cloud this machine's disks belong to: an id of its own until it has entered a cloud, that cloud's from then
//! on.
//!
//! The own id is made with the state partition, since data disks are marked before there is a cloud. A node that
//! founds gives it to its cloud; one that joins marks its disks anew, once, and only those without a volume.
//! [`decide`] says which, and the steps may be cut short anywhere. It must never let go of a disk that holds data.

use std::fs;
use std::io;
use std::path::Path;

use crate::disks::act::MARKER;
use crate::paths::{self, Paths};

/// The id that disks are marked with now.
const OWN: &str = "cloud";
/// The id that they are being marked with anew.
const NEXT: &str = "cloud.next";
/// The cloud that was entered.
const ENTERED: &str = "entered";
/// Where a disk's volumes are, each in a folder of its own.
const VOLUMES: &str = "volumes";

/// The id that disks are marked with; made on the first boot.
pub fn own(paths: &Paths) -> io::Result<String> {
    let dir = paths.node();
    paths::make_dir(&dir, 0o700)?;
    if !dir.join(OWN).exists() {
        paths::write_file(&dir.join(OWN), uuid::Uuid::new_v4().to_string().as_bytes(), 0o644)?;
    }
    Ok(fs::read_to_string(dir.join(OWN))?.trim().to_owned())
}

/// The ids whose disks are this node's: two while they are marked anew, the one that new disks get first.
pub fn accepted(paths: &Paths) -> io::Result<Vec<String>> {
    let mut ids = vec![own(paths)?];
    ids.extend(read(&paths.node().join(NEXT))?);
    Ok(ids)
}

/// The cloud that this node has entered, if it has.
pub fn entered(paths: &Paths) -> io::Result<Option<String>> {
    read(&paths.node().join(ENTERED))
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What to do about the cloud that the controller names.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is entered.
    Keep,
    /// Note that it is entered: the disks are its own.
    Enter,
    /// Mark the disks anew, then enter.
    Adopt,
    /// It is another than the one that was entered.
    Refuse,
}

/// `given_up` is the cloud that was given up, if one was: its disks may go to another.
fn decide(own: &str, entered: Option<&str>, given_up: Option<&str>, told: &str) -> Step {
    match entered.filter(|entered| Some(*entered) != given_up || *entered == told) {
        Some(entered) if entered == told && own == told => Step::Keep,
        Some(entered) if entered != told => Step::Refuse,
        _ if own == told => Step::Enter,
        _ => Step::Adopt,
    }
}

/// Enters this cloud, be it after another that was given up; does nothing if that is done. The error is for a person.
pub fn enter(paths: &Paths, told: &str, given_up: Option<&str>) -> Result<(), String> {
    let failed = |e: io::Error| format!("the cloud cannot be entered: {e}");
    let own = own(paths).map_err(failed)?;
    let entered = entered(paths).map_err(failed)?;
    match decide(&own, entered.as_deref(), given_up, told) {
        Step::Keep => Ok(()),
        Step::Refuse => Err(format!(
            "this node is of cloud {}, and its controller says {told}: its disks are not given to another cloud",
            entered.unwrap_or_default()
        )),
        Step::Enter => note(paths, told).map_err(failed),
        Step::Adopt => adopt(paths, &own, told).and_then(|()| note(paths, told)).map_err(failed),
    }
}

fn note(paths: &Paths, told: &str) -> io::Result<()> {
    paths::write_file(&paths.node().join(ENTERED), told.as_bytes(), 0o644)
}

/// Marks the disks anew. The new id is accepted beside the old one until all are done.
fn adopt(paths: &Paths, own: &str, told: &str) -> io::Result<()> {
    let dir = paths.node();
    paths::write_file(&dir.join(NEXT), told.as_bytes(), 0o644)?;
    for disk in fs::read_dir(paths.disks()).into_iter().flatten() {
        mark(&disk?.path(), own, told)?;
    }
    paths::write_file(&dir.join(OWN), told.as_bytes(), 0o644)?;
    match fs::remove_file(dir.join(NEXT)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Marks one disk, if it carries the old id and no volume.
fn mark(disk: &Path, own: &str, told: &str) -> io::Result<()> {
    let Some(text) = read(&disk.join(MARKER))? else { return Ok(()) };
    let mut marker: serde_json::Value = serde_json::from_str(&text)?;
    if marker["cloud"] != own {
        return Ok(());
    }
    if holds_volumes(disk)? {
        tracing::error!(disk = %disk.display(), cloud = own, "the disk holds volumes and stays with its cloud");
        return Ok(());
    }
    marker["cloud"] = told.into();
    paths::write_file(&disk.join(MARKER), marker.to_string().as_bytes(), 0o644)
}

fn holds_volumes(disk: &Path) -> io::Result<bool> {
    match fs::read_dir(disk.join(VOLUMES)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        (dir, paths)
    }

    fn disk(paths: &Paths, name: &str, cloud: &str, volume: bool) {
        let dir = paths.disks().join(name);
        fs::create_dir_all(dir.join(VOLUMES)).unwrap();
        let marker = serde_json::json!({"format": 1, "disk": name, "cloud": cloud}).to_string();
        fs::write(dir.join(MARKER), marker).unwrap();
        if volume {
            fs::create_dir(dir.join(VOLUMES).join("v1")).unwrap();
        }
    }

    fn marked(paths: &Paths, name: &str) -> String {
        let text = fs::read(paths.disks().join(name).join(MARKER)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["cloud"].as_str().unwrap().to_owned()
    }

    #[test]
    fn every_case() {
        assert_eq!(decide("a", None, None, "a"), Step::Enter);
        assert_eq!(decide("a", None, None, "b"), Step::Adopt);
        assert_eq!(decide("b", Some("b"), None, "b"), Step::Keep);
        assert_eq!(decide("a", Some("a"), None, "b"), Step::Refuse);
        assert_eq!(decide("a", Some("b"), None, "b"), Step::Adopt, "what was cut short is finished");
        assert_eq!(decide("a", Some("a"), Some("a"), "b"), Step::Adopt, "a cloud that was given up");
        assert_eq!(decide("a", Some("a"), Some("x"), "b"), Step::Refuse);
        assert_eq!(decide("a", Some("a"), Some("a"), "a"), Step::Keep);
        assert_eq!(decide("b", Some("a"), Some("a"), "b"), Step::Enter, "cut short");
    }

    #[test]
    fn a_founder_keeps_its_id_and_never_enters_another_cloud() {
        let (_dir, paths) = node();
        let own = own(&paths).unwrap();
        disk(&paths, "d", &own, true);
        assert_eq!(entered(&paths).unwrap(), None);
        enter(&paths, &own, None).unwrap();
        enter(&paths, &own, None).unwrap();
        assert_eq!(entered(&paths).unwrap(), Some(own.clone()));
        assert!(enter(&paths, "other", None).unwrap_err().contains("not given to another"));
        assert_eq!((marked(&paths, "d"), accepted(&paths).unwrap()), (own.clone(), vec![own]));
    }

    #[test]
    fn empty_disks_follow_a_node_that_joins_and_others_stay() {
        let (_dir, paths) = node();
        let own = own(&paths).unwrap();
        disk(&paths, "empty", &own, false);
        disk(&paths, "full", &own, true);
        disk(&paths, "foreign", "x", false);
        // Cut short after the first disk.
        paths::write_file(&paths.node().join(NEXT), b"c", 0o644).unwrap();
        mark(&paths.disks().join("empty"), &own, "c").unwrap();
        assert_eq!(accepted(&paths).unwrap(), [own.clone(), "c".into()]);
        enter(&paths, "c", None).unwrap();
        assert_eq!(marked(&paths, "empty"), "c");
        assert_eq!((marked(&paths, "full"), marked(&paths, "foreign")), (own, "x".into()));
        assert_eq!(accepted(&paths).unwrap(), ["c"]);
        assert_eq!(entered(&paths).unwrap().as_deref(), Some("c"));
    }
}
