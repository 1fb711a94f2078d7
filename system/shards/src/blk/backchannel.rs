//! The socket by which a front-end is told that the configuration space is not what it was: the volume has grown
//! (`VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`).
//!
//! The library reads the message that brings it and checks it, but keeps the socket to itself and has no such word. So
//! the message is looked at before the library takes it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, send};
use vhost::vhost_user::message::{BackendReq, FrontendReq};

use crate::sys;

/// The version of the protocol, in a message's flags.
const VERSION: u32 = 1;

/// A way back to the front-end.
pub struct Backchannel(OwnedFd);

impl Backchannel {
    /// Waits for the next message on the connection. `Some` if it brings a way back; it stays to be read.
    pub fn look(connection: &UnixStream) -> io::Result<Option<Backchannel>> {
        let mut code = [0; 4];
        let (read, _) = sys::peek(connection, &mut code, false)?;
        if read < code.len() || u32::from_le_bytes(code) != u32::from(FrontendReq::SET_BACKEND_REQ_FD) {
            return Ok(None);
        }
        Ok(sys::peek(connection, &mut code, true)?.1.map(Backchannel))
    }

    /// Says that the configuration space has changed. Waits for nothing: a front-end that leaves so many of these
    /// unread that one more does not fit will look when it reads them.
    pub fn config_changed(&self) -> io::Result<()> {
        let header = [u32::from(BackendReq::CONFIG_CHANGE_MSG), VERSION, 0];
        let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sent = send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        match sent {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(e) => Err(e.into()),
        }
    }
}
