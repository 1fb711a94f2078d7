//! What a node offers to the others, by name.
//!
//! Each service says who may call it, how many calls it does at a time, how long a message may be and how long it
//! may take to answer; [`Services`] holds it to that before the service sees anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::error::{Code, Error, Refusal};
use super::message::{Messages, Outgoing};
use super::peer::{Peer, Standing};

/// Who may call a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only the cloud's own.
    Cloud,
    /// The cloud's own, and its witness.
    Voters,
    /// Whoever holds a key that was not removed.
    Anyone,
}

impl Access {
    /// Whether a peer of this standing may call.
    fn admits(self, standing: Standing) -> bool {
        match self {
            Access::Cloud => standing.belongs(),
            Access::Voters => standing.belongs() || standing == Standing::Witness,
            Access::Anyone => true,
        }
    }
}

/// What a service bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many calls are done at a time; one more is refused as busy.
    pub calls: usize,
    /// How long one message may be.
    pub message_bytes: usize,
    /// How long it may take until the answer begins.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { calls: 256, message_bytes: 4 << 20, answer: Duration::from_secs(30) }
    }
}

/// A call to a service.
pub struct Call {
    /// Who calls.
    pub peer: Peer,
    /// What is called.
    pub method: String,
    /// The messages the caller sends.
    pub messages: Messages,
}

impl Call {
    /// The version of the protocol that this call and its answer are of.
    pub fn version(&self) -> u16 {
        self.messages.version()
    }

    /// The next message of the caller; `None` after the last.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Refusal> {
        self.messages.next().await.map_err(refused)
    }

    /// The one message that the call consists of.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        self.messages.only().await.map_err(refused)
    }

    /// The refusal of a method that the service does not have.
    pub fn unknown_method(&self) -> Refusal {
        Refusal::new(Code::NotFound, format!("no method {:?}", self.method))
    }
}

fn refused(e: Error) -> Refusal {
    match e {
        Error::Refused(refusal) => refusal,
        e => Refusal::invalid(e.to_string()),
    }
}

/// Something a node offers. A call whose caller goes away is dropped, so what must be whole is done in one
/// transaction or in a task of its own.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Who may call it.
    fn access(&self) -> Access {
        Access::Cloud
    }

    /// What it bears.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Does a call.
    async fn call(&self, call: Call) -> Result<Outgoing, Refusal>;
}

struct Offered {
    service: Arc<dyn Service>,
    limits: Limits,
    calls: Semaphore,
}

/// The services of a node, by name.
#[derive(Default)]
pub struct Services {
    offered: HashMap<&'static str, Offered>,
}

impl Services {
    /// None yet.
    pub fn new() -> Services {
        Services::default()
    }

    /// Offers a service under a name, in the place of whatever had it.
    #[must_use]
    pub fn with(mut self, name: &'static str, service: Arc<dyn Service>) -> Services {
        let limits = service.limits();
        let calls = Semaphore::new(limits.calls);
        self.offered.insert(name, Offered { service, limits, calls });
        self
    }

    /// How long a message to this service may be; `None` if there is no such service.
    pub(crate) fn message_bytes(&self, name: &str) -> Option<usize> {
        self.offered.get(name).map(|offered| offered.limits.message_bytes)
    }

    /// Does a call to the service of this name, within its limits.
    pub(crate) async fn call(&self, name: &str, call: Call) -> Result<Outgoing, Refusal> {
        let Some(offered) = self.offered.get(name) else {
            return Err(Refusal::new(Code::NotFound, format!("no service {name:?}")));
        };
        if !offered.service.access().admits(call.peer.standing) {
            return Err(Refusal::forbidden("only members of the cloud may call this"));
        }
        let Ok(_permit) = offered.calls.try_acquire() else {
            return Err(Refusal::busy(format!("{name} is busy")));
        };
        match tokio::time::timeout(offered.limits.answer, offered.service.call(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::new(Code::TooSlow, format!("{name} took too long"))),
        }
    }
}
