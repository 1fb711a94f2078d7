//! The test LAN: a network namespace with a bridge, a DHCP server, a port for each node, and a link to the host's own
//! namespace, so that a person on this host reaches the cloud's API and floating IPs.
//!
//! Everything here is found by its name, so that it can be taken down by another process than the one that made it.
//! Nothing is routed: no packet leaves the namespace but to the host's end of the link.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::exec;
use crate::process::{self, Known};

/// The bridge within the namespace.
const BRIDGE: &str = "lan";
/// How long the DHCP server may take to end.
const DHCP_END: Duration = Duration::from_secs(3);

/// One test LAN, a /24.
#[derive(Clone, Debug)]
pub struct Lan {
    name: String,
    prefix: String,
    dir: PathBuf,
}

impl Lan {
    /// The LAN of an instance (a short word, as `dev`), with its /24 given by the first three bytes (`10.213.0`); its
    /// files are kept in `dir`. Nothing is made yet.
    pub fn new(instance: &str, prefix: &str, dir: &Path) -> Lan {
        Lan { name: format!("cairn-{instance}"), prefix: prefix.to_owned(), dir: dir.to_owned() }
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// Where its files are: the DHCP server's.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first three bytes of every address here, as `10.213.0`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// An address on the LAN. 1 is the host's end and the gateway, 2 the DHCP server, 10 to 99 are leased,
    /// 100 to 250 are left for floating IPs.
    pub fn address(&self, last: u8) -> String {
        format!("{}.{last}", self.prefix)
    }

    /// The host's end of the link.
    fn host_link(&self) -> String {
        format!("{}0", self.name)
    }

    /// Makes the LAN, or what is missing of it.
    pub fn up(&self) -> Result<()> {
        if !Path::new("/run/netns").join(&self.name).exists() {
            ip(&["netns", "add", &self.name])?;
        }
        self.inside(&["link", "set", "lo", "up"])?;
        if self.inside(&["link", "show", BRIDGE]).is_err() {
            self.inside(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
        }
        self.inside(&["address", "replace", &format!("{}/24", self.address(2)), "dev", BRIDGE])?;
        self.inside(&["link", "set", BRIDGE, "up"])?;
        let link = self.host_link();
        if ip(&["link", "show", &link]).is_err() {
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "host", "netns", &self.name])?;
        }
        self.inside(&["link", "set", "host", "master", BRIDGE, "up"])?;
        ip(&["address", "replace", &format!("{}/24", self.address(1)), "dev", &link])?;
        ip(&["link", "set", &link, "up"])?;
        // Even where the host routes: what comes from the LAN goes no further than the host itself.
        let forwarding = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
        fs::write(&forwarding, "0").with_context(|| format!("cannot write {forwarding}"))
    }

    /// Starts the DHCP server, if it does not run yet.
    pub fn serve_dhcp(&self) -> Result<()> {
        if Known::load(&self.dhcp_file()).is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        let range = format!("--dhcp-range={},{},12h", self.address(10), self.address(99));
        let child = Command::new("ip")
            .args(["netns", "exec", &self.name, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"])
            .args(["--port=0", "--bind-interfaces", "--leasefile-ro", "--pid-file=", "--user=root", &range])
            .arg(format!("--interface={BRIDGE}"))
            .arg(format!("--dhcp-option=option:router,{}", self.address(1)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.dir.join("dhcp.log"))?)
            // A Ctrl-C in the terminal is not meant for it.
            .process_group(0)
            .spawn()
            .context("cannot start dnsmasq")?;
        Known::started(child.id()).context("no dnsmasq")?.save(&self.dhcp_file())
    }

    /// By which a later run finds the DHCP server's process.
    fn dhcp_file(&self) -> PathBuf {
        self.dir.join("dhcp.json")
    }

    /// Plugs another namespace in: it gets an interface of this name, up.
    pub fn plug_namespace(&self, namespace: &str, interface: &str) -> Result<()> {
        let port = port_name(namespace);
        if self.inside(&["link", "show", &port]).is_err() {
            self.inside(&[
                "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", namespace,
            ])?;
        }
        ip(&["-netns", namespace, "link", "set", interface, "up"])?;
        self.inside(&["link", "set", &port, "master", BRIDGE, "up"])
    }

    /// Takes the port of a plugged namespace away; one that is gone is no error.
    pub fn unplug_namespace(&self, namespace: &str) -> Result<()> {
        let port = port_name(namespace);
        if self.inside(&["link", "show", &port]).is_ok() {
            self.inside(&["link", "delete", &port])?;
        }
        Ok(())
    }

    /// Whether anything is plugged in beside the host.
    pub fn in_use(&self) -> bool {
        let mut links = Command::new("ip");
        links.args(["-netns", &self.name, "-oneline", "link", "show", "master", BRIDGE]);
        exec::output(&mut links).is_ok_and(|ports| ports.lines().any(|port| !port.contains(": host@")))
    }

    /// Makes a tap port for an emulated machine that is run within the namespace.
    pub fn plug_tap(&self, tap: &str) -> Result<()> {
        if self.inside(&["link", "show", tap]).is_err() {
            self.inside(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
        }
        self.inside(&["link", "set", tap, "master", BRIDGE, "up"])
    }

    /// Cuts (or mends) the port of a plugged namespace.
    pub fn set_port(&self, namespace: &str, up: bool) -> Result<()> {
        self.inside(&["link", "set", &port_name(namespace), if up { "up" } else { "down" }])
    }

    /// A command that will run within the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Takes all of it down; what is already gone is no error.
    pub fn down(&self) -> Result<()> {
        if let Some(server) = Known::load(&self.dhcp_file()) {
            process::end(server.pid(), DHCP_END).context("cannot stop dnsmasq")?;
        }
        let _ = fs::remove_file(self.dhcp_file());
        if ip(&["link", "show", &self.host_link()]).is_ok() {
            ip(&["link", "delete", &self.host_link()])?;
        }
        if Path::new("/run/netns").join(&self.name).exists() {
            ip(&["netns", "delete", &self.name])?;
        }
        Ok(())
    }

    fn inside(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-netns", &self.name], args].concat())
    }
}

/// The LAN's port of a namespace: interface names have at most 15 bytes.
fn port_name(namespace: &str) -> String {
    let short: String = namespace.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
    format!("p-{short}")
}

fn ip(args: &[&str]) -> Result<()> {
    exec::run(Command::new("ip").args(args))
}
