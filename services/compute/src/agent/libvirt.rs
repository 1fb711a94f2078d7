//! The node's libvirt: thin, blocking calls on one shared connection that is opened anew when it breaks.
//!
//! Nothing is decided here. Every call may block for as long as libvirt pleases, so callers run it on a
//! thread of its own. It never undefines or destroys but by a given server's id.

use std::sync::{Mutex, PoisonError};

use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::error::{Error, ErrorNumber};

use super::domain_xml::{domain_name, server_of};
use super::observe::DomainState;
use crate::model::Progress;

/// A call to libvirt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libvirt: {0}")]
pub struct LibvirtError(String);

impl From<Error> for LibvirtError {
    fn from(e: Error) -> Self {
        LibvirtError(e.message().to_owned())
    }
}

type Result<T> = std::result::Result<T, LibvirtError>;

/// A domain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSeen {
    /// The server.
    pub server_id: String,
    /// How it stands.
    pub state: DomainState,
    /// Whether it is here to stay: one that comes from another node is so only when all of it is here.
    pub whole: bool,
}

/// What libvirt knows of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// The hypervisor's version number.
    pub hypervisor_version: u64,
    /// The CPU's architecture.
    pub arch: String,
    /// The kind of machine to give to guests.
    pub machine: String,
}

/// What a running guest has used, for its diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Time its CPUs have run, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Its memory in KiB.
    pub memory_kib: u64,
}

/// The connection.
pub struct Libvirt {
    uri: String,
    connection: Mutex<Option<Connect>>,
}

impl Libvirt {
    /// A connection to this URI; nothing is opened yet.
    pub fn new(uri: impl Into<String>) -> Libvirt {
        // Else libvirt writes each error to standard error by itself.
        virt::error::clear_error_callback();
        Libvirt { uri: uri.into(), connection: Mutex::new(None) }
    }

    /// Runs a call; if it fails because libvirt went away, the next one opens a new connection.
    fn with<T>(&self, call: impl FnOnce(&Connect) -> std::result::Result<T, Error>) -> Result<T> {
        let connection = self.open()?;
        call(&connection).map_err(|e| {
            if !connection.is_alive().unwrap_or(false) {
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            e.into()
        })
    }

    fn open(&self) -> Result<Connect> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let connection = Connect::open(Some(&self.uri))?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    /// Every domain of ours.
    pub fn domains(&self) -> Result<Vec<DomainSeen>> {
        self.with(|c| {
            let mut seen = Vec::new();
            for domain in c.list_all_domains(0)? {
                let Ok(name) = domain.get_name() else { continue };
                let Some(server_id) = server_of(&name) else { continue };
                // One that vanished meanwhile is absent.
                let Ok((state, reason)) = domain.get_state() else { continue };
                let state = DomainState::from_libvirt(state, reason);
                let whole = domain.is_persistent().unwrap_or(false);
                seen.push(DomainSeen { server_id: server_id.to_owned(), state, whole });
            }
            Ok(seen)
        })
    }

    /// The XML of a domain as it stands.
    pub fn xml(&self, server_id: &str) -> Result<String> {
        self.with(|c| find(c, server_id)?.get_xml_desc(0))
    }

    /// Defines a domain and starts it; one of the same name that is off is replaced.
    pub fn start(&self, xml: &str) -> Result<()> {
        self.with(|c| {
            let domain = Domain::define_xml(c, xml)?;
            match domain.is_active()? {
                true => Ok(()),
                false => domain.create().map(drop),
            }
        })
    }

    /// Presses the power button.
    pub fn ask_shutdown(&self, server_id: &str) -> Result<()> {
        self.with(|c| {
            find(c, server_id)?.shutdown_flags(virt::sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN).map(drop)
        })
    }

    /// Turns a guest off by force; one that is off already is fine.
    pub fn destroy(&self, server_id: &str) -> Result<()> {
        self.with(|c| {
            unless_absent(find(c, server_id).and_then(|d| if d.is_active()? { d.destroy() } else { Ok(()) }))
        })
    }

    /// Forgets a domain that is off, with its firmware variables.
    pub fn undefine(&self, server_id: &str) -> Result<()> {
        let flags = virt::sys::VIR_DOMAIN_UNDEFINE_NVRAM | virt::sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
        self.with(|c| unless_absent(find(c, server_id).and_then(|d| d.undefine_flags(flags))))
    }

    /// Stops a guest's CPUs.
    pub fn pause(&self, server_id: &str) -> Result<()> {
        self.with(|c| find(c, server_id)?.suspend().map(drop))
    }

    /// Lets them go on.
    pub fn resume(&self, server_id: &str) -> Result<()> {
        self.with(|c| find(c, server_id)?.resume().map(drop))
    }

    /// Gives a running guest a device. (The definition is made anew at each start, so only the guest is changed.)
    pub fn attach(&self, server_id: &str, device_xml: &str) -> Result<()> {
        self.with(|c| find(c, server_id)?.attach_device_flags(device_xml, LIVE).map(drop))
    }

    /// Asks a running guest to give a device back; it may do so later, or not at all.
    pub fn detach(&self, server_id: &str, device_xml: &str) -> Result<()> {
        self.with(|c| find(c, server_id)?.detach_device_flags(device_xml, LIVE).map(drop))
    }

    /// What a guest has used; none if it is not there.
    pub fn load(&self, server_id: &str) -> Result<Load> {
        self.with(|c| {
            let info = find(c, server_id)?.get_info()?;
            Ok(Load { cpu_time_ns: info.cpu_time, memory_kib: info.memory })
        })
    }

    /// Sends a running guest to another libvirt, and returns when it is there, whole and paused: it goes on only when
    /// its server is that node's. `there` is that libvirt's URI, `through` where its memory goes.
    pub fn migrate(&self, server_id: &str, there: &str, through: &str) -> Result<()> {
        let parameters = MigrateParameters { uri: Some(through.to_owned()), ..MigrateParameters::default() };
        self.with(|c| find(c, server_id)?.migrate_to_uri3(Some(there), parameters, MIGRATE))
    }

    /// How much of a guest's memory has been sent.
    pub fn progress(&self, server_id: &str) -> Result<Progress> {
        self.with(|c| {
            let job = find(c, server_id)?.get_job_info()?;
            Ok(Progress {
                total: job.mem_total.unwrap_or_default(),
                processed: job.mem_processed.unwrap_or_default(),
                remaining: job.mem_remaining.unwrap_or_default(),
            })
        })
    }

    /// What the node has.
    pub fn facts(&self) -> Result<NodeFacts> {
        self.with(|c| {
            let info = c.get_node_info()?;
            let machine = super::observe::q35_machine(&c.get_capabilities()?);
            Ok(NodeFacts {
                vcpus: info.cpus,
                memory_mb: info.memory / 1024,
                hypervisor_version: u64::from(c.get_hyp_version()?),
                arch: info.model,
                machine: machine.unwrap_or_else(|| "q35".into()),
            })
        })
    }
}

/// From libvirt to libvirt, the guest running meanwhile (slowed down if it writes faster than it can be sent); in the
/// end it is the other's alone, paused.
const MIGRATE: u32 = virt::sys::VIR_MIGRATE_LIVE
    | virt::sys::VIR_MIGRATE_PEER2PEER
    | virt::sys::VIR_MIGRATE_PERSIST_DEST
    | virt::sys::VIR_MIGRATE_UNDEFINE_SOURCE
    | virt::sys::VIR_MIGRATE_PAUSED
    | virt::sys::VIR_MIGRATE_AUTO_CONVERGE;
const LIVE: u32 = virt::sys::VIR_DOMAIN_AFFECT_LIVE;

fn find(connection: &Connect, server_id: &str) -> std::result::Result<Domain, Error> {
    Domain::lookup_by_name(connection, &domain_name(server_id))
}

fn unless_absent(result: std::result::Result<(), Error>) -> std::result::Result<(), Error> {
    match result {
        Err(e) if e.code() == ErrorNumber::NoDomain => Ok(()),
        other => other,
    }
}
