//! What the controller tells the node role and the operator's commands, by small files in its folder: the cloud, how
//! this node came to it, the fingerprint to compare, who waits to be let in.
//!
//! The controller is not root and talks to strangers, so what it says is taken for what it is: short, of the form
//! expected, and never followed to another place.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::paths::{self, Paths};

/// The longest file that is read.
const BYTES_MAX: u64 = 64 << 10;
/// The longest text that is shown, in characters.
const SHOWN_MAX: usize = 200;
/// The most nodes that are shown waiting.
const WAITING_MAX: usize = 64;

const CLOUD: &str = "cloud";
const GAVE_UP: &str = "gave-up";
const STANDING: &str = "standing";
const FINGERPRINT: &str = "ca.sha256";
const JOINING: &str = "join.json";

/// How this node came to its cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It founded it: the first administrator's secret is this node's.
    Founded,
    /// It was let in by others.
    Joined,
}

/// How joining stands: this node's own, or that of others who ask here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// What this node waits for, for a person; empty once it is of a cloud.
    pub state: String,
    /// The words that its screen shows.
    pub words: Option<String>,
    /// Who waits to be let in by this node's cloud.
    pub waiting: Vec<Waiting>,
}

/// A node that waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its name.
    pub name: String,
    /// The words that its screen shows if nobody is in the middle.
    pub words: String,
}

/// The id of the cloud that this node is of.
pub fn cloud(paths: &Paths) -> Option<String> {
    id(paths, CLOUD)
}

/// The id of the cloud that this node was of before, and that was given up because it held nothing of a user's.
pub fn gave_up(paths: &Paths) -> Option<String> {
    id(paths, GAVE_UP)
}

fn id(paths: &Paths, name: &str) -> Option<String> {
    let text = read(paths, name)?;
    uuid::Uuid::parse_str(text.trim()).ok().map(|id| id.to_string())
}

/// How this node came to it.
pub fn standing(paths: &Paths) -> Option<Standing> {
    match read(paths, STANDING)?.trim() {
        "founded" => Some(Standing::Founded),
        "joined" => Some(Standing::Joined),
        _ => None,
    }
}

/// SHA-256 of the API's authority, in hex.
pub fn fingerprint(paths: &Paths) -> Option<String> {
    let text = read(paths, FINGERPRINT)?.trim().to_owned();
    let fits = text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
    fits.then_some(text)
}

/// How joining stands.
pub fn joining(paths: &Paths) -> Option<Joining> {
    let mut joining: Joining = serde_json::from_str(&read(paths, JOINING)?).ok()?;
    joining.waiting.truncate(WAITING_MAX);
    let of_others = joining.waiting.iter_mut().flat_map(|w| [&mut w.name, &mut w.words]);
    for text in of_others.chain([&mut joining.state]).chain(&mut joining.words) {
        *text = plain(text);
    }
    Some(joining)
}

/// Says of which cloud this node is, and how it came to it. Said by the controller, as all below.
pub fn tell_cloud(paths: &Paths, cloud: &str, standing: Standing) -> std::io::Result<()> {
    let word = match standing {
        Standing::Founded => "founded",
        Standing::Joined => "joined",
    };
    paths::write_file(&paths.handover().join(STANDING), word.as_bytes(), 0o640)?;
    paths::write_file(&paths.handover().join(CLOUD), cloud.as_bytes(), 0o640)
}

/// Says which cloud was given up.
pub fn tell_gave_up(paths: &Paths, cloud: &str) -> std::io::Result<()> {
    paths::write_file(&paths.handover().join(GAVE_UP), cloud.as_bytes(), 0o640)
}

/// Says what the certificate of the API's authority is.
pub fn tell_authority(paths: &Paths, pem: &str, fingerprint: &str) -> std::io::Result<()> {
    paths::write_file(&paths.handover().join("ca.pem"), pem.as_bytes(), 0o644)?;
    paths::write_file(&paths.handover().join(FINGERPRINT), fingerprint.as_bytes(), 0o644)
}

/// Says how joining stands.
pub fn tell_joining(paths: &Paths, joining: &Joining) -> std::io::Result<()> {
    paths::write_file(&paths.handover().join(JOINING), &serde_json::to_vec(joining)?, 0o640)
}

fn read(paths: &Paths, name: &str) -> Option<String> {
    // A link is not followed, and a pipe is not waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(paths.handover().join(name));
    let file = file.ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file()))?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What can be shown on a terminal: no control characters, and not too much.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        paths::make_dir(&paths.handover(), 0o750).unwrap();
        (dir, paths)
    }

    #[test]
    fn what_is_told_is_heard() {
        let (_dir, paths) = node();
        assert_eq!((cloud(&paths), standing(&paths), fingerprint(&paths)), (None, None, None));
        let id = uuid::Uuid::new_v4().to_string();
        tell_cloud(&paths, &id, Standing::Joined).unwrap();
        assert_eq!((cloud(&paths), standing(&paths)), (Some(id), Some(Standing::Joined)));
        tell_authority(&paths, "pem", &"0f".repeat(32)).unwrap();
        assert_eq!(fingerprint(&paths), Some("0f".repeat(32)));
    }

    #[test]
    fn what_is_not_of_the_form_is_not_taken() {
        let (dir, paths) = node();
        let put = |name, text: &str| std::fs::write(paths.handover().join(name), text).unwrap();
        for text in ["", "../../etc", "0123", "\u{1b}[2J"] {
            put(CLOUD, text);
            put(STANDING, text);
            put(FINGERPRINT, text);
            assert_eq!((cloud(&paths), standing(&paths), fingerprint(&paths)), (None, None, None));
        }
        let joining_of = |state: &str| Joining { state: state.into(), ..Joining::default() };
        tell_joining(&paths, &joining_of("wait\u{1b}[2J\nhere")).unwrap();
        assert_eq!(joining(&paths).unwrap().state, "wait[2Jhere");
        std::fs::remove_file(paths.handover().join(CLOUD)).unwrap();
        std::fs::write(dir.path().join("elsewhere"), uuid::Uuid::new_v4().to_string()).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), paths.handover().join(CLOUD)).unwrap();
        assert_eq!(cloud(&paths), None, "a link is not followed");
    }
}
