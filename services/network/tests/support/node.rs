//! A machine of its own for a test: network and mount namespaces in which the agent is "the node", and guests
//! that are namespaces whose interface is wired to the tap that the agent made, as QEMU's would be.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and says where it cannot go on"
)]
#![allow(unsafe_code, reason = "a tap is opened as QEMU would open it")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_network::agent;
use cairn_network::agent::mac::Mac;
use cairn_network::model::*;
use cairn_state::{AgentArgs, LocalStore, Reporter, RoleStatus, SharedStore, StoreExt};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Cloud, NODE};

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine.
pub struct Node {
    pub name: String,
    pub runtime: Runtime,
    pub store: LocalStore,
    /// How many seconds ago its place in the cloud was renewed, if it is not the only node.
    pub renewed: Option<Arc<AtomicU64>>,
    agent: Option<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

/// Runs a test on a machine of its own. Needs root; without, it fails and says so.
pub fn on_a_node(test: impl FnOnce(&mut Node) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let mut node = Node::set_up(NODE, LocalStore::in_memory().unwrap());
        test(&mut node);
        node.stop_agent();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Gives the calling thread, and those it starts, network and mount namespaces of their own.
pub fn leave_home() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces are needed");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    sh("ip link set lo up");
}

impl Node {
    /// Makes the calling thread's machine.
    pub fn set_up(name: &str, store: LocalStore) -> Node {
        leave_home();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        Node { name: name.to_owned(), runtime, store, renewed: None, agent: None, directory }
    }

    pub fn shared(&self) -> SharedStore {
        Arc::new(self.store.clone())
    }

    /// Starts the agent, on the store or on another (that cannot be reached, say).
    pub fn start_agent_on(&mut self, store: SharedStore) {
        let _in_runtime = self.runtime.enter();
        let args = AgentArgs {
            node: self.name.clone(),
            reporter: Reporter::new(store.clone(), self.name.clone(), "network"),
            store,
            state_dir: self.directory.path().join("state"),
            run_dir: PathBuf::from("/run/cairn"),
        };
        let since_renewal = self.renewed.clone().map(|renewed| -> agent::fence::SinceRenewal {
            Arc::new(move || Some(Duration::from_secs(renewed.load(Ordering::SeqCst))))
        });
        let options = agent::Options { since_renewal, ..agent::Options::default() };
        self.agent = Some(self.runtime.spawn(agent::run_with(args, options)));
    }

    pub fn start_agent(&mut self) {
        self.start_agent_on(self.shared());
    }

    /// Ends the agent at whatever it is doing.
    pub fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
            let _ = self.runtime.block_on(agent);
        }
    }

    pub fn put(&self, cloud: &Cloud) {
        self.runtime.block_on(cloud.put(&self.store));
    }

    pub fn port_status(&self, port: &str) -> Option<PortStatus> {
        self.runtime.block_on(self.store.get_record::<PortStatus>(port)).unwrap()
    }

    pub fn get<R: cairn_state::Record>(&self, id: &str) -> Option<R> {
        self.runtime.block_on(self.store.get_record::<R>(id)).unwrap()
    }

    pub fn role_status(&self) -> Option<RoleStatus> {
        self.get::<RoleStatus>(&format!("{}/network", self.name))
    }

    /// Puts the cloud and waits until every port of this node is reported as of its generation.
    pub fn settle(&self, cloud: &Cloud) {
        self.put(cloud);
        self.settled(cloud);
    }

    /// Waits until every port of this node is reported as of its generation.
    pub fn settled(&self, cloud: &Cloud) {
        let bound: Vec<_> = cloud.ports.iter().filter(|p| p.host.as_ref() == Some(&self.name)).collect();
        let faults =
            || format!("ports are reported; faults: {:?}", self.role_status().map(|s| s.reconcilers));
        eventually_or(&faults, || {
            bound.iter().all(|p| {
                let wanted = if p.deleted { Phase::Gone } else { Phase::Ready };
                self.port_status(&p.id).is_some_and(|s| s.generation == p.generation() && s.phase == wanted)
            })
        });
    }

    /// Makes a guest for a port: a namespace with the port's MAC behind the port's tap.
    pub fn guest(&self, cloud: &Cloud, port: &str) -> Guest {
        let port = cloud.ports.iter().find(|p| p.id == port).unwrap();
        let name = format!("guest-{}", port.dns_name);
        sh(&format!("ip netns add {name}"));
        let outer = open_tap(&tap_name(&port.id));
        let inner = in_space(&name, || open_tap("eth0"));
        wire(outer.try_clone().unwrap(), inner.try_clone().unwrap());
        wire(inner, outer);
        let guest = Guest { name };
        guest.sh(&format!("ip link set eth0 address {} up; ip link set lo up", port.mac));
        guest
    }
}

/// A guest.
pub struct Guest {
    pub name: String,
}

impl Guest {
    /// Runs a command in the guest; fails the test if it fails.
    pub fn sh(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{}: {command}: {}", self.name, text(&output));
        text(&output)
    }

    /// Runs a command in the guest.
    pub fn run(&self, command: &str) -> Output {
        run(&format!("ip netns exec {} sh -c '{command}'", self.name))
    }

    /// Takes an address by DHCP, as busybox's client does with the usual script; returns what it was told.
    pub fn dhcp(&self) -> String {
        let script = "/run/udhcpc.sh";
        let lines = [
            "#!/bin/sh",
            "[ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0",
            "env | grep -E \"^(ip|mask|router|dns|mtu|hostname|domain|staticroutes|lease|serverid)=\"",
            "ip addr replace $ip/$mask dev $interface",
            "ip link set $interface mtu $mtu",
            "set -- $staticroutes",
            "while [ $# -gt 1 ]; do ip route replace $1 via $2; shift 2; done",
        ];
        std::fs::write(script, lines.join("\n")).unwrap();
        sh(&format!("chmod +x {script}"));
        self.sh(&format!(
            "busybox udhcpc -i eth0 -f -q -n -t 8 -T 1 -O staticroutes -O mtu -O search -s {script} 2>&1"
        ))
    }

    /// Whether a ping is answered.
    pub fn pings(&self, to: &str) -> bool {
        self.run(&format!("ping -n -c 1 -W 1 {to}")).status.success()
    }

    /// Whether a TCP connection is taken.
    pub fn connects(&self, to: &str, port: u16) -> bool {
        self.run(&format!("echo hello | busybox nc -w 1 {to} {port}")).status.success()
    }

    /// Whether a frame that this guest sends arrives at another.
    pub fn reaches(&self, other: &Guest, frame: &[u8]) -> bool {
        let (wanted, name) = (frame.to_vec(), other.name.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let listener = std::thread::spawn(move || in_space(&name, move || hear(&wanted, &ready)));
        is_ready.recv().unwrap();
        let frames = vec![frame.to_vec()];
        in_space(&self.name, move || {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            cairn_network::agent::sys::send_frames(index, &frames).unwrap();
        });
        listener.join().unwrap()
    }

    /// Its own MAC.
    pub fn mac(&self) -> Mac {
        self.sh("ip -o link show eth0").split("link/ether ").nth(1).unwrap()[..17].parse().unwrap()
    }

    /// Takes TCP connections on a port, of both families, until the test ends.
    pub fn listen(&self, port: u16) {
        let listener = in_space(&self.name, move || std::net::TcpListener::bind(("::", port)).unwrap());
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
}

/// Runs a command; fails the test if it fails.
pub fn sh(command: &str) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command}: {}", text(&output));
    text(&output)
}

pub fn run(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Waits until something is so.
pub fn eventually(what: &str, is: impl FnMut() -> bool) {
    eventually_or(&|| what.to_owned(), is);
}

fn eventually_or(what: &dyn Fn() -> String, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(
            Instant::now() < until,
            "not in {PATIENCE:?}: {}\n{}",
            what(),
            text(&run("ip -br link; ls /run/netns"))
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this very frame comes in on any interface within a short time.
fn hear(wanted: &[u8], ready: &std::sync::mpsc::Sender<()>) -> bool {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
    };
    let kind = SockType::Raw;
    let fd = socket(AddressFamily::Packet, kind, SockFlag::empty(), SockProtocol::EthAll).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 300_000)).unwrap();
    ready.send(()).unwrap();
    let mut frame = vec![0; 2048];
    while let Ok(length) = recv(fd.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::empty()) {
        if frame[..length] == *wanted {
            return true;
        }
    }
    false
}

/// Runs `f` in a namespace, in a thread of its own.
pub fn in_space<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    let thread = std::thread::spawn(move || {
        nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        f()
    });
    thread.join().unwrap()
}

/// Opens a tap as QEMU does, making it if it is not there.
fn open_tap(name: &str) -> File {
    nix::ioctl_write_ptr_bad!(
        set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open and the request lives on this stack.
    unsafe { set_iff(tun.as_raw_fd(), &request) }.unwrap();
    tun
}

/// Carries frames from one tap to another until one is gone.
fn wire(mut from: File, mut to: File) {
    std::thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        while let Ok(length) = from.read(&mut frame) {
            // A frame for an interface that is down is lost, as on any wire.
            let _ = to.write(&frame[..length]);
        }
    });
}
