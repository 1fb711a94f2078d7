//! What needs the kernel's raw interface: making a tap device, putting a frame on a wire, two socket options.
//!
//! The only `unsafe` of this crate lives here, behind safe functions. It decides nothing.
#![expect(unsafe_code, reason = "system calls that no dependency wraps")]

use std::fs::OpenOptions;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// The node's own tun device.
const TUN: &str = "/dev/net/tun";

/// The requests of `linux/if_tun.h`.
mod tun {
    use nix::libc;
    use nix::request_code_write as code;

    nix::ioctl_write_ptr_bad!(set_iff, code!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, code!(b'T', 203, size_of::<libc::c_int>()));
    nix::ioctl_write_int_bad!(set_owner, code!(b'T', 204, size_of::<libc::c_int>()));
}

/// How a tap is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapOptions {
    /// The user that may open it (QEMU's, if QEMU opens it itself); without, root only.
    pub owner: Option<u32>,
    /// Several queues. The one who opens it must ask for the same.
    pub multi_queue: bool,
}

/// Makes a persistent tap (with `vnet_hdr`, as virtio wants it) in the calling thread's network namespace.
/// It stays when the process ends. It is not up.
pub fn create_tap(name: &str, options: TapOptions) -> io::Result<()> {
    let tun = OpenOptions::new().read(true).write(true).open(TUN)?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if options.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let fd = tun.as_raw_fd();
    // SAFETY: `fd` is open for the whole call; the kernel reads one `ifreq`, which lives on this stack.
    unsafe { tun::set_iff(fd, &request) }?;
    if let Some(owner) = options.owner {
        // SAFETY: passes an integer, no memory.
        unsafe { tun::set_owner(fd, owner as libc::c_int) }?;
    }
    // SAFETY: passes an integer, no memory.
    unsafe { tun::set_persist(fd, 1) }?;
    Ok(())
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface name")));
    }
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Sends whole Ethernet frames out of the interface with this index, in the calling thread's namespace.
pub fn send_frames(index: u32, frames: &[Vec<u8>]) -> io::Result<()> {
    // SAFETY: makes a descriptor from integers; it is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: `sockaddr_ll` is plain data for which all zeroes is valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    for frame in frames {
        // SAFETY: pointer and length are of the live slice; the address is a whole `sockaddr_ll` on this stack.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the hop limit of all that an IPv6 socket sends.
pub fn set_hop_limit(socket: RawFd, limit: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, limit)?;
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, limit)
}

/// Sends UDP over IPv4 with "no checksum": some DHCP clients look at a packet before its checksum, which a virtual
/// wire may leave to the receiver, has been filled in.
pub fn without_checksum(socket: RawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and length are of `value`, which lives on this stack; the kernel checks the descriptor.
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
