//! Several machines on one wire, each with the agent of its own over the one store; and what passes on the wire.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and says where it cannot go on"
)]

use std::os::fd::AsRawFd;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use cairn_state::LocalStore;

use super::node::{Guest, Node, leave_home, sh};
use super::support::Cloud;

type Job = Box<dyn FnOnce(&mut Node) + Send>;

/// A machine on the wire; what it does is done in its own thread, for its namespaces are that thread's.
pub struct Machine {
    pub name: String,
    /// How many seconds ago its place in the cloud was renewed.
    pub renewed: Arc<AtomicU64>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Runs a test with so many machines. Their names are `cairn-00000N`, their addresses on the LAN `203.0.113.N`; the
/// calling thread is on the wire itself, and has a guest `outside` there at `.200`.
pub fn on_machines(count: u8, test: impl FnOnce(&[Machine], &Guest) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        leave_home();
        sh("ip link add wire type bridge; ip link set wire up");
        sh(
            "ip netns add outside; ip link add o0 type veth peer name eth0 netns outside; ip link set o0 master wire up",
        );
        let outside = Guest { name: "outside".into() };
        outside.sh("ip addr add 203.0.113.200/24 dev eth0; ip link set eth0 up; ip link set lo up");
        let store = LocalStore::in_memory().unwrap();
        let machines: Vec<_> = (1..=count).map(|number| Machine::start(number, store.clone())).collect();
        test(&machines, &outside);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    fn start(number: u8, store: LocalStore) -> Machine {
        let name = format!("cairn-00000{number}");
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let renewed = Arc::new(AtomicU64::new(0));
        let (its_name, its_renewed) = (name.clone(), renewed.clone());
        let thread = std::thread::spawn(move || {
            let mut node = Node::set_up(&its_name, store);
            node.renewed = Some(its_renewed);
            tell.send(nix::unistd::gettid()).unwrap();
            while let Ok(job) = todo.recv() {
                job(&mut node);
            }
            node.stop_agent();
        });
        let tid = told.recv().unwrap();
        sh(&format!(
            "ip link add w{number} type veth peer name eth0 netns {tid}; ip link set w{number} master wire up"
        ));
        let machine = Machine { name, renewed, jobs: Some(jobs), thread: Some(thread) };
        machine.with(move |node| {
            sh("mkdir -p /run/netns; ip link add lan0 type bridge; ip link set eth0 master lan0 up; ip link set lan0 up");
            sh(&format!("ip addr add 203.0.113.{number}/24 dev lan0"));
            node.start_agent();
        });
        machine
    }

    /// Does something on the machine, and fails as it fails.
    pub fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Node) -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move |node: &mut Node| {
            let _ = tell.send(std::panic::catch_unwind(AssertUnwindSafe(|| f(node))));
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        told.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.with(move |_| sh(&command))
    }

    pub fn guest(&self, cloud: &Cloud, port: &str) -> Inside<'_> {
        let (cloud, port) = (cloud.clone(), port.to_owned());
        Inside { on: self, guest: self.with(move |node| node.guest(&cloud, &port)) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A guest on one of the machines.
pub struct Inside<'a> {
    pub on: &'a Machine,
    guest: Guest,
}

impl Inside<'_> {
    fn its(&self) -> Guest {
        Guest { name: self.guest.name.clone() }
    }

    pub fn sh(&self, command: &str) -> String {
        let (guest, command) = (self.its(), command.to_owned());
        self.on.with(move |_| guest.sh(&command))
    }

    pub fn dhcp(&self) -> String {
        let guest = self.its();
        self.on.with(move |_| guest.dhcp())
    }

    pub fn pings(&self, to: &str) -> bool {
        let (guest, to) = (self.its(), to.to_owned());
        self.on.with(move |_| guest.pings(&to))
    }

    /// Starts pings every 50 ms.
    pub fn background_pings(&self, to: &str, count: u32) -> std::process::Child {
        let (guest, to) = (self.its(), to.to_owned());
        self.on.with(move |_| crate::background_pings(&guest, &to, count))
    }
}

/// Puts the cloud and waits until every machine has made its part of it.
pub fn settle(machines: &[Machine], cloud: &Cloud) {
    for (at, machine) in machines.iter().enumerate() {
        let cloud = cloud.clone();
        machine.with(move |node| {
            if at == 0 {
                node.put(&cloud)
            }
        });
    }
    for machine in machines {
        let cloud = cloud.clone();
        machine.with(move |node| node.settled(&cloud));
    }
}

/// What was seen in tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// All frames.
    pub frames: u32,
    /// ARP to all.
    pub arp: u32,
    /// Neighbour solicitations to many.
    pub solicitations: u32,
    /// DHCP, from or to either side.
    pub dhcp: u32,
}

/// Listens to what goes through tunnels on a machine's wire.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Capture {
    pub fn start(machine: &Machine) -> Capture {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (ready, is_ready) = mpsc::channel();
        let thread = machine.with(move |_| std::thread::spawn(move || listen(&stopped, &ready)));
        is_ready.recv().unwrap();
        Capture { stop, thread }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn listen(stopped: &AtomicBool, ready: &mpsc::Sender<()>) -> Seen {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
    };
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll).unwrap();
    setsockopt(&fd, sockopt::BindToDevice, &"eth0".into()).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 100_000)).unwrap();
    ready.send(()).unwrap();
    let mut seen = Seen::default();
    let mut frame = vec![0; 65_536];
    while !stopped.load(Ordering::SeqCst) {
        if let Ok(length) = recv(fd.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            look(&frame[..length], &mut seen);
        }
    }
    seen
}

/// Counts a frame if it is of a tunnel over IPv4: Ethernet, IP, UDP, VXLAN, and then the one inside.
fn look(frame: &[u8], seen: &mut Seen) {
    let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
    if !(is(12, &[8, 0, 0x45]) && is(23, &[17]) && is(36, &4789u16.to_be_bytes())) {
        return;
    }
    seen.frames += 1;
    let inner = 50;
    // To one alone (a neighbour that is looked after) is no flooding.
    let to_all = frame.get(inner).is_some_and(|first| first & 1 == 1);
    seen.arp += u32::from(to_all && is(inner + 12, &[8, 6]));
    let icmpv6 = is(inner + 12, &[0x86, 0xdd]) && is(inner + 20, &[58]);
    seen.solicitations += u32::from(to_all && icmpv6 && is(inner + 54, &[135]));
    let udp = is(inner + 12, &[8, 0]) && is(inner + 23, &[17]);
    let dhcp = [67u16, 68].iter().any(|port| is(inner + 36, &port.to_be_bytes()));
    seen.dhcp += u32::from(udp && dhcp);
}
