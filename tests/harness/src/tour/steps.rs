//! The steps of the tour, each a few commands as a person would type them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use image_builder::{Paths, exec};

use super::guest::{Guest, Login};
use crate::client::Client;

/// The names of what the tour makes.
pub mod names {
    /// The external network on the LAN.
    pub const PUBLIC: &str = "public";
    /// The image.
    pub const IMAGE: &str = "tour-image";
    /// The tenant network, its subnet and router.
    pub const NETWORK: &str = "tour-net";
    /// The subnet.
    pub const SUBNET: &str = "tour-subnet";
    /// The router.
    pub const ROUTER: &str = "tour-router";
    /// The security group.
    pub const GROUP: &str = "tour-group";
    /// The keypair.
    pub const KEY: &str = "tour-key";
    /// The flavor.
    pub const FLAVOR: &str = "tour-flavor";
    /// The volume.
    pub const VOLUME: &str = "tour-volume";
    /// The first server.
    pub const SERVER_A: &str = "tour-a";
    /// The second server.
    pub const SERVER_B: &str = "tour-b";
}
use names::{FLAVOR, GROUP, IMAGE, KEY, NETWORK, PUBLIC, ROUTER, SERVER_A, SERVER_B, SUBNET, VOLUME};

/// What the addresses of the tenant network, a /24, begin with.
const SUBNET_PREFIX: &str = "10.77.0.";
/// How long an attach or detach may take.
const ATTACH_MAX: Duration = Duration::from_secs(90);

/// A tour under way: what was made so far.
pub struct Scene<'a> {
    client: &'a Client,
    guest: Guest,
    image_file: PathBuf,
    key_file: PathBuf,
    addresses: BTreeMap<String, String>,
    written: String,
    undo: Vec<Vec<String>>,
}

impl<'a> Scene<'a> {
    /// A scene with nothing in it but a fresh ssh key.
    pub fn new(paths: &Paths, client: &'a Client, guest: Guest) -> Result<Scene<'a>> {
        // A folder of its own: two tours of two clouds may be under way.
        let dir = paths.workspace().join(format!("target/tour/{}", std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let key_file = dir.join("id_ed25519");
        exec::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key_file))?;
        Ok(Scene {
            client,
            guest,
            image_file: guest.image(paths),
            key_file,
            addresses: BTreeMap::new(),
            written: String::new(),
            undo: Vec::new(),
        })
    }

    /// Runs a command that makes something, and remembers the one that undoes it.
    fn make(&mut self, args: &[&str], undo: &[&str]) -> Result<()> {
        self.client.run(args)?;
        self.undo.push(undo.iter().map(|s| (*s).to_owned()).collect());
        Ok(())
    }

    /// Uploads the guest's image.
    pub fn image(&mut self) -> Result<()> {
        let file = self.image_file.to_string_lossy().into_owned();
        let create = [
            "image",
            "create",
            "--disk-format",
            "qcow2",
            "--container-format",
            "bare",
            "--file",
            &file,
            IMAGE,
        ];
        self.make(&create, &["image", "delete", IMAGE])?;
        self.client.wait_field(&["image", "show", IMAGE], "status", "active", Duration::from_secs(60))
    }

    /// The external network (if the cloud has none yet), a tenant network, and a router between them.
    pub fn networks(&mut self) -> Result<()> {
        if self.client.json(&["network", "list", "--external"])?.as_array().is_none_or(Vec::is_empty) {
            self.public()?;
        }
        self.make(&["network", "create", NETWORK], &["network", "delete", NETWORK])?;
        let subnet = [
            "subnet",
            "create",
            "--network",
            NETWORK,
            "--subnet-range",
            &format!("{SUBNET_PREFIX}0/24"),
            SUBNET,
        ];
        self.make(&subnet, &["subnet", "delete", SUBNET])?;
        self.make(&["router", "create", ROUTER], &["router", "delete", ROUTER])?;
        let gateway = ["router", "set", "--external-gateway", PUBLIC, ROUTER];
        self.make(&gateway, &["router", "unset", "--external-gateway", ROUTER])?;
        let add = ["router", "add", "subnet", ROUTER, SUBNET];
        self.make(&add, &["router", "remove", "subnet", ROUTER, SUBNET])
    }

    fn public(&mut self) -> Result<()> {
        let network = [
            "network",
            "create",
            "--external",
            "--provider-network-type",
            "flat",
            "--provider-physical-network",
            "lan",
            PUBLIC,
        ];
        self.make(&network, &["network", "delete", PUBLIC])?;
        let lan = self.client.access().get("CAIRN_LAN").to_owned();
        let (range, gateway) = (format!("{lan}.0/24"), format!("{lan}.1"));
        let pool = format!("start={lan}.100,end={lan}.250");
        let subnet = [
            "subnet",
            "create",
            "--network",
            PUBLIC,
            "--no-dhcp",
            "--subnet-range",
            &range,
            "--gateway",
            &gateway,
            "--allocation-pool",
            &pool,
            "public-subnet",
        ];
        self.make(&subnet, &["subnet", "delete", "public-subnet"])
    }

    /// A security group that lets ping and ssh in, the keypair, and a flavor that fits the guest.
    pub fn rules_and_key(&mut self) -> Result<()> {
        self.make(&["security", "group", "create", GROUP], &["security", "group", "delete", GROUP])?;
        self.client.run(&["security", "group", "rule", "create", "--protocol", "icmp", GROUP])?;
        self.client.run(&[
            "security",
            "group",
            "rule",
            "create",
            "--protocol",
            "tcp",
            "--dst-port",
            "22",
            GROUP,
        ])?;
        let public = self.key_file.with_extension("pub").to_string_lossy().into_owned();
        self.make(&["keypair", "create", "--public-key", &public, KEY], &["keypair", "delete", KEY])?;
        let (ram, disk) = self.guest.size();
        let flavor = ["flavor", "create", "--vcpus", "1", "--ram", ram, "--disk", disk, FLAVOR];
        self.make(&flavor, &["flavor", "delete", FLAVOR])
    }

    /// Starts a server and waits until it is active.
    pub fn server(&mut self, name: &str) -> Result<()> {
        self.undo.push(["server", "delete", "--wait", name].map(str::to_owned).to_vec());
        self.client.run(&[
            "server",
            "create",
            "--image",
            IMAGE,
            "--flavor",
            FLAVOR,
            "--network",
            NETWORK,
            "--security-group",
            GROUP,
            "--key-name",
            KEY,
            "--wait",
            name,
        ])?;
        let status = self.client.field(&["server", "show", name], "status")?;
        ensure!(status == "ACTIVE", "the server is {status}");
        Ok(())
    }

    /// Gives a server an address on the LAN.
    pub fn floating_ip(&mut self, server: &str) -> Result<()> {
        let address = self.client.field(&["floating", "ip", "create", PUBLIC], "floating_ip_address")?;
        self.undo.push(["floating", "ip", "delete", &address].map(str::to_owned).to_vec());
        self.client.run(&["server", "add", "floating", "ip", server, &address])?;
        self.addresses.insert(server.to_owned(), address);
        Ok(())
    }

    /// The login to a server that has its floating IP.
    pub fn login_to(&self, server: &str) -> Result<Login> {
        let Some(address) = self.addresses.get(server) else { bail!("{server} has no floating IP") };
        Ok(Login::new(&self.key_file, self.guest, address))
    }

    /// The floating IP of a server.
    pub fn address(&self, server: &str) -> &str {
        self.addresses.get(server).map_or("", String::as_str)
    }

    /// A server's address on the tenant network.
    pub fn fixed_address(&self, server: &str) -> Result<String> {
        let shown = self.client.json(&["server", "show", server])?;
        let addresses = shown["addresses"][NETWORK].as_array();
        let own = |a: &&str| a.starts_with(SUBNET_PREFIX);
        let found = addresses.into_iter().flatten().filter_map(|a| a.as_str()).find(own);
        found.map(str::to_owned).with_context(|| format!("{server} has no address on {NETWORK}: {shown}"))
    }

    /// Logs in from outside; the guest must know its own name.
    pub fn login(&mut self, server: &str) -> Result<()> {
        let login = self.login_to(server)?;
        login.wait(self.guest.boot_max())?;
        let name = login.run("hostname")?;
        ensure!(name.trim() == server, "the guest calls itself {:?}", name.trim());
        Ok(())
    }

    /// The console log shows that the guest has booted.
    pub fn console(&mut self, server: &str) -> Result<()> {
        let log = self.client.run(&["console", "log", "show", server])?;
        ensure!(
            log.contains(self.guest.console_marker()),
            "the console log does not show the end of the boot"
        );
        Ok(())
    }

    /// A volume on a server, with nothing on it.
    pub fn volume_attach(&mut self, server: &str) -> Result<()> {
        self.volume()?;
        self.undo.push(["server", "remove", "volume", server, VOLUME].map(str::to_owned).to_vec());
        self.attach(server)
    }

    fn volume(&mut self) -> Result<()> {
        self.make(&["volume", "create", "--size", "1", VOLUME], &["volume", "delete", VOLUME])?;
        self.client.wait_field(&["volume", "show", VOLUME], "status", "available", ATTACH_MAX)
    }

    fn attach(&self, server: &str) -> Result<()> {
        self.client.run(&["server", "add", "volume", server, VOLUME])?;
        self.client.wait_field(&["volume", "show", VOLUME], "status", "in-use", ATTACH_MAX)?;
        self.login_to(server)?
            .run("for i in $(seq 60); do [ -b /dev/vdb ] && exit 0; sleep 1; done; exit 1")
            .map(drop)
    }

    fn detach(&self, server: &str) -> Result<()> {
        self.client.run(&["server", "remove", "volume", server, VOLUME])?;
        self.client.wait_field(&["volume", "show", VOLUME], "status", "available", ATTACH_MAX)
    }

    /// A volume with a file written in the first guest.
    pub fn volume_write(&mut self) -> Result<()> {
        self.volume()?;
        self.attach(SERVER_A)?;
        let script = "mkfs.ext4 -q -F /dev/vdb && mkdir -p /mnt/v && mount -t ext4 /dev/vdb /mnt/v && \
            dd if=/dev/urandom of=/mnt/v/file bs=65536 count=64 2>/dev/null && \
            sha256sum /mnt/v/file && umount /mnt/v";
        self.written = self.login_to(SERVER_A)?.run(script)?;
        self.detach(SERVER_A)
    }

    /// The same file, read in the second guest.
    pub fn volume_read(&mut self) -> Result<()> {
        self.attach(SERVER_B)?;
        let script =
            "mkdir -p /mnt/v && mount -t ext4 /dev/vdb /mnt/v && sha256sum /mnt/v/file && umount /mnt/v";
        let read = self.login_to(SERVER_B)?.run(script)?;
        ensure!(!read.is_empty() && read == self.written, "wrote {:?}, read {read:?}", self.written);
        self.detach(SERVER_B)
    }

    /// The first server with its floating IP and an empty volume, once its guest lets us in. Needs the image.
    pub fn server_with_volume(&mut self) -> Result<()> {
        self.networks()?;
        self.rules_and_key()?;
        self.server(SERVER_A)?;
        self.floating_ip(SERVER_A)?;
        self.login(SERVER_A)?;
        self.volume_attach(SERVER_A)
    }

    /// Deletes all that was made, newest first; goes on after a failure and tells the first.
    pub fn tear_down(&mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(args) = self.undo.pop() {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let done = self.client.run(&args).map(drop);
            if first.is_ok() {
                first = done;
            }
        }
        if let Some(dir) = self.key_file.parent() {
            fs::remove_dir_all(dir)?;
        }
        first
    }
}
