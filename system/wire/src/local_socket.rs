//! Unix sockets of a role: bound where an old one may still lie, and peers named by the kernel.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

/// Who is at the other end of a socket, as the kernel says (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The user it ran as when it connected.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Its process, as seen from here; 0 if it is in a process namespace that is not.
    pub pid: i32,
}

impl Peer {
    /// The peer of a connection.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
        let cred = stream.peer_cred()?;
        Ok(Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid().unwrap_or(0) })
    }
}

/// Listens at `path` with these permissions, in the place of whatever socket was there.
///
/// It is made beside and renamed, so that nobody ever finds it absent, or with other permissions.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match std::fs::remove_file(beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(beside)?;
    std::fs::set_permissions(beside, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(beside, path)?;
    Ok(listener)
}
