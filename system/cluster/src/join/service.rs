//! The side that is asked: serves `join` on the wire, for strangers.
//!
//! It keeps handshakes in memory and everything else in the store, one transaction each. It must never tell a
//! stranger more than the cloud's id and certificate, before the policy has let it in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_state::{LocalStore, Tx};
use cairn_wire::remote::{Access, Call, Code, Limits, Outgoing, PeerId, Refusal, Service};
use jiff::Timestamp;

use super::desk::{Desk, Halt, Meeting};
use super::messages::{Answer, Application, Begin, Cloud, Offer, Reveal};
use super::policy::{Shown, Verdict, decide};
use crate::der::Der;
use crate::handshake::{Agreement, Bytes32, Side, TokenProof};
use crate::key;
use crate::membership::change::{self, Error};
use crate::membership::{JoinPolicy, Member, Request, RequestState};
use crate::token::{self, TokenRecord};

/// How many addresses an application may name.
const ADDRESSES_MAX: usize = 16;
/// How long the name of a release may be.
const RELEASE_BYTES_MAX: usize = 64;

/// Serves `join` from this node's store.
pub struct JoinService {
    store: LocalStore,
    id: PeerId,
    desk: Mutex<Desk>,
    started: Instant,
}

impl JoinService {
    /// The service of the node with this identity.
    pub fn new(store: LocalStore, id: PeerId) -> JoinService {
        JoinService { store, id, desk: Mutex::default(), started: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at_desk<T>(&self, act: impl FnOnce(&mut Desk) -> Result<T, Halt>) -> Result<T, Refusal> {
        act(&mut self.desk.lock().unwrap_or_else(PoisonError::into_inner)).map_err(halted)
    }

    async fn begin(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let begin: Begin = call.message().await?;
        application(&begin.application)?;
        let (applicant, version) = (call.peer.id, call.version());
        let authority = self.store.read(change::authority).map_err(refused)?;
        let cloud = Cloud { id: authority.cloud, authority: authority.certificate };
        let cloud = postcard::to_stdvec(&cloud).map_err(|e| Refusal::unavailable(e.to_string()))?;
        let nonce = token::nonce().map_err(|e| Refusal::unavailable(e.to_string()))?;
        let meeting = Meeting { version, applicant, acceptor: self.id };
        self.at_desk(|desk| desk.begin(self.now_ms(), meeting, begin, &cloud, nonce))?;
        Outgoing::message(&Offer { cloud, nonce })
    }

    async fn reveal(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let reveal: Reveal = call.message().await?;
        let now = Timestamp::now();
        let (agreement, said) =
            self.at_desk(|desk| desk.reveal(self.now_ms(), call.peer.id, &reveal.nonce))?;
        let application = application(&said)?;
        let public_key = call.peer.public_key;
        let request = Request {
            id: call.peer.id,
            name: key::name_of(&public_key).map_err(|e| Refusal::invalid(e.to_string()))?,
            public_key: Der(public_key),
            addresses: application.addresses,
            release: application.release,
            words: agreement.words(),
            asked: now,
            state: RequestState::Waiting,
        };
        let settled =
            self.store.transact(|tx| settle(tx, &request, reveal.token.as_ref(), &agreement, now)).await;
        let answer = settled.map_err(refused)?;
        tracing::info!(node = request.name, id = %request.id, outcome = outcome(&answer), "a node asked to join");
        Outgoing::message(&answer)
    }

    async fn status(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let () = call.message().await?;
        let now = Timestamp::now();
        let answer = self.store.read(|tx| status(tx, &call.peer.public_key, now)).map_err(refused)?;
        Outgoing::message(&answer)
    }
}

#[async_trait]
impl Service for JoinService {
    fn access(&self) -> Access {
        Access::Anyone
    }

    fn limits(&self) -> Limits {
        Limits { calls: 32, message_bytes: 4 << 10, answer: Duration::from_secs(10) }
    }

    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        match call.method.as_str() {
            "begin" => self.begin(call).await,
            "reveal" => self.reveal(call).await,
            "status" => self.status(call).await,
            _ => Err(call.unknown_method()),
        }
    }
}

/// What becomes of a request whose handshake is done.
fn settle(
    tx: &mut Tx,
    request: &Request,
    shown: Option<&TokenProof>,
    agreement: &Agreement,
    now: Timestamp,
) -> Result<Answer, Error> {
    let token = spent(tx, shown, agreement, now)?;
    let shown = match (shown, &token) {
        (None, _) => Shown::Nothing,
        (Some(_), Some(_)) => Shown::Good,
        (Some(_), None) => Shown::Bad,
    };
    // Who belongs already has nothing to ask for: it shows that it is the same node.
    let known = tx.get::<Member>(&request.id.to_string())?;
    let policy = tx.get::<JoinPolicy>(JoinPolicy::ID)?.unwrap_or_default();
    let verdict = if known.is_some() { Verdict::Admit } else { decide(&policy, shown, now) };
    match verdict {
        Verdict::Admit => {
            change::admit(tx, request, now)?;
            let mut proof = None;
            if let Some((record, key)) = token {
                tx.put(&record)?;
                proof = Some(agreement.proof(&key, Side::Acceptor));
            }
            let belonging = Box::new(change::belonging(tx, &request.public_key.0, now)?);
            Ok(Answer::Admitted { belonging, proof })
        }
        Verdict::Ask => change::ask(tx, request).map(|()| Answer::Waiting),
        Verdict::Refuse(why) => Ok(Answer::Refused(why.into())),
    }
}

/// The token whose proof was shown, as it is after this use; `None` if there is none, or the proof is wrong.
fn spent(
    tx: &mut Tx,
    shown: Option<&TokenProof>,
    agreement: &Agreement,
    now: Timestamp,
) -> Result<Option<(TokenRecord, Bytes32)>, Error> {
    let Some(shown) = shown else { return Ok(None) };
    let record = tx.get::<TokenRecord>(&shown.token)?;
    let Some((mut record, key)) = record.and_then(|record| record.key().map(|key| (record, key))) else {
        return Ok(None);
    };
    if !record.is_good(now) || !agreement.proves(&key, Side::Applicant, &shown.proof) {
        return Ok(None);
    }
    record.uses_left = record.uses_left.map(|uses| uses.saturating_sub(1));
    Ok(Some((record, key)))
}

/// What has become of the node with this key.
fn status(tx: &mut Tx, public_key: &[u8], now: Timestamp) -> Result<Answer, Error> {
    let id = PeerId::of_key(public_key).to_string();
    if tx.get::<Member>(&id)?.is_some() {
        let belonging = Box::new(change::belonging(tx, public_key, now)?);
        return Ok(Answer::Admitted { belonging, proof: None });
    }
    Ok(match tx.get::<Request>(&id)?.map(|request| request.state) {
        Some(RequestState::Waiting) => Answer::Waiting,
        Some(RequestState::Refused { .. }) => Answer::Refused("a person refused it".into()),
        None => Answer::Refused("no request of this node is known: ask again".into()),
    })
}

fn application(bytes: &[u8]) -> Result<Application, Refusal> {
    let read = postcard::take_from_bytes::<Application>(bytes);
    let (application, _) = read.map_err(|e| Refusal::invalid(format!("not an application: {e}")))?;
    let fits = application.addresses.len() <= ADDRESSES_MAX && application.release.len() <= RELEASE_BYTES_MAX;
    // It is shown to people.
    let plain = application.release.chars().all(|c| c.is_ascii_graphic());
    if fits && plain { Ok(application) } else { Err(Refusal::invalid("an application that is not plain")) }
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Admitted { .. } => "admitted",
        Answer::Waiting => "waits for a person",
        Answer::Refused(_) => "refused",
    }
}

fn halted(halt: Halt) -> Refusal {
    let code = match halt {
        Halt::Busy => Code::Busy,
        Halt::NotBegun | Halt::Tampered(_) => Code::Invalid,
    };
    Refusal::new(code, halt.to_string())
}

fn refused(e: Error) -> Refusal {
    let code = match e {
        Error::Full(_) => Code::Busy,
        Error::Removed | Error::NameTaken(_) => Code::Forbidden,
        Error::Key(_) => Code::Invalid,
        _ => Code::Unavailable,
    };
    match e {
        Error::Store(e) => {
            tracing::warn!(error = %e, "the store failed while a node asked to join");
            Refusal::unavailable("the cloud's store does not answer just now")
        }
        e => Refusal::new(code, e.to_string()),
    }
}
