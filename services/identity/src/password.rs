//! Password hashing: argon2id, off the threads that serve requests, few at a time, and after all else that this process
//! has to do. It must never keep the store from being heard by other nodes, whoever tries passwords how often.
//!
//! Passwords are never logged or kept.

use std::num::NonZero;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use cairn_gateway::ApiError;
use tokio::sync::oneshot;

use crate::crypt;

/// Memory in KiB, passes and lanes: OWASP's first choice, about 18 ms.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// The most memory a hash from elsewhere may ask for, in KiB; and the length of a hash, in bytes.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const OUTPUT: usize = 32;
/// The most hashes that are computed at once, on however many processors: each thread keeps the memory of one.
const AT_ONCE_MAX: usize = 4;
/// How many may wait; whoever comes then is told to try again.
const WAITING_MAX: usize = 128;
/// How much nicer than the rest of the process the threads are that hash: they get a tenth of a processor where others
/// want all of it.
const NICER: i32 = 10;
/// The longest password, in bytes.
const LENGTH_MAX: usize = 4096;
/// A hash of the same cost that no password has, checked for users that do not exist.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Y2Fpcm4tbm8tc3VjaC11c2Vy$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A hash to be computed.
type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

/// The one place where passwords are hashed: a few threads of its own, each with the memory of one hash. (On the
/// runtime's many blocking threads, the allocator would keep those 19 MiB several times for each of them.)
pub struct Passwords {
    queue: SyncSender<Job>,
}

impl Default for Passwords {
    fn default() -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Passwords::new(at_once(processors), WAITING_MAX)
    }
}

/// How many hashes are computed at once: half of the processors is for everybody else.
fn at_once(processors: usize) -> usize {
    (processors / 2).clamp(1, AT_ONCE_MAX)
}

/// Does jobs until their sender is gone.
fn work(jobs: &Mutex<Receiver<Job>>) {
    // Of this thread alone, on Linux.
    if let Err(e) = rustix::process::nice(NICER) {
        tracing::warn!(error = %e, "passwords are hashed at the priority of everything else");
    }
    let mut memory = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(&mut memory),
            Err(_) => return,
        }
    }
}

impl Passwords {
    /// So many hashes at once; so many may wait for their turn, which comes in the order of asking.
    fn new(at_once: usize, waiting_max: usize) -> Passwords {
        let (queue, jobs) = mpsc::sync_channel::<Job>(waiting_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..at_once {
            let jobs = jobs.clone();
            let spawned =
                std::thread::Builder::new().name(format!("password-{n}")).spawn(move || work(&jobs));
            if let Err(e) = spawned {
                tracing::error!(error = %e, "no thread to hash passwords");
            }
        }
        Passwords { queue }
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: &str) -> Result<String, ApiError> {
        if password.len() > LENGTH_MAX {
            return Err(ApiError::bad_request(format!("A password may have {LENGTH_MAX} bytes.")));
        }
        let password = password.to_owned();
        self.run(move |memory| hash(&password, memory)).await?
    }

    /// Whether the password is the one of this hash. Without a hash (no such user, no password) it takes as long
    /// and is false.
    pub async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool, ApiError> {
        if password.len() > LENGTH_MAX {
            return Ok(false);
        }
        let password = password.to_owned();
        let (phc, exists) = (phc.unwrap_or(NOBODY).to_owned(), phc.is_some());
        Ok(self.run(move |memory| matches(&password, &phc, memory)).await? && exists)
    }

    async fn run<T: Send + 'static>(
        &self,
        hash: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let job = move |memory: &mut Vec<Block>| {
            // Nothing is computed for a client that has left.
            if !reply.is_closed() {
                let _ = reply.send(hash(memory));
            }
        };
        let busy = || ApiError::unavailable("Too many authentications at once; try again.");
        self.queue.try_send(Box::new(job)).map_err(|_| busy())?;
        answer.await.map_err(ApiError::internal)
    }
}

/// The hash itself.
fn derive(
    password: &str,
    salt: &[u8],
    params: Params,
    memory: &mut Vec<Block>,
) -> Result<[u8; OUTPUT], argon2::Error> {
    if memory.len() < params.block_count() {
        memory.resize(params.block_count(), Block::new());
    }
    let mut out = [0; OUTPUT];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut out, memory)?;
    Ok(out)
}

/// The PHC string of a password.
fn hash(password: &str, memory: &mut Vec<Block>) -> Result<String, ApiError> {
    let (memory_kib, passes, lanes) = COST;
    let params = Params::new(memory_kib, passes, lanes, None).map_err(ApiError::internal)?;
    let salt = crypt::random::<16>()?;
    let out = derive(password, &salt, params.clone(), memory).map_err(ApiError::internal)?;
    let phc = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(ApiError::internal)?,
        salt: Some(Salt::new(&salt).map_err(ApiError::internal)?),
        hash: Some(Output::new(&out).map_err(ApiError::internal)?),
    };
    Ok(phc.to_string())
}

fn matches(password: &str, phc: &str, memory: &mut Vec<Block>) -> bool {
    let Some((params, salt, expected)) = parse(phc) else {
        tracing::error!("a stored password hash is damaged");
        return false;
    };
    derive(password, &salt, params, memory).is_ok_and(|out| crypt::same(&out, expected.as_bytes()))
}

/// What a PHC string of ours says; `None` if it is not one.
fn parse(phc: &str) -> Option<(Params, Salt, Output)> {
    let hash = PasswordHash::new(phc).ok()?;
    let is_ours =
        hash.algorithm == Algorithm::Argon2id.ident() && hash.version == Some(Version::V0x13.into());
    let params = Params::try_from(&hash).ok().filter(|p| is_ours && p.m_cost() <= MEMORY_KIB_MAX)?;
    Some((params, hash.salt?, hash.hash.filter(|h| h.len() == OUTPUT)?))
}

/// Whether this is a PHC string that [`Passwords::verify`] can check.
pub fn is_phc(text: &str) -> bool {
    parse(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_real_user_is_accepted() {
        let passwords = Passwords::default();
        let phc = passwords.hash("open sesame").await.unwrap();
        assert!(is_phc(&phc) && is_phc(NOBODY) && !is_phc("sesame"));
        assert!(passwords.verify("open sesame", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("open", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("open sesame", None).await.unwrap());
        assert!(!passwords.verify("open sesame", Some("damaged")).await.unwrap());
        let again = passwords.hash("open sesame").await.unwrap();
        assert_ne!(phc, again, "each has its own salt");
        let small = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let small = argon2::PasswordHasher::<PasswordHash>::hash_password(&small, b"x").unwrap().to_string();
        assert!(passwords.verify("x", Some(&small)).await.unwrap(), "the hash's own parameters count");
    }

    #[test]
    fn half_of_the_processors_hash_at_the_most() {
        assert_eq!([1, 2, 3, 4, 8, 64].map(at_once), [1, 1, 1, 2, 4, 4]);
    }

    /// The nice value of this thread: field 19, of which the second may contain anything but a last parenthesis.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[16].parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_threads_that_hash_are_nicer() {
        let passwords = Passwords::new(1, 1);
        let before = nice();
        let theirs = passwords.run(|_| nice()).await.unwrap();
        assert_eq!((theirs, nice()), ((before + NICER).min(19), before));
    }

    #[tokio::test]
    async fn who_waits_has_a_turn_in_order_and_who_finds_too_many_is_told_to_come_again() {
        let passwords = Arc::new(Passwords::new(1, 2));
        let ((begun, has_begun), (go_on, goes_on)) = (oneshot::channel(), mpsc::channel::<()>());
        let busy = passwords.clone();
        let first = tokio::spawn(async move {
            busy.run(move |_| (begun.send(()).unwrap(), goes_on.recv().unwrap())).await
        });
        has_begun.await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = [1, 2].map(|n| {
            let order = order.clone();
            // What is asked for waits from when it is first polled.
            let mut waits = Box::pin(passwords.run(move |_| order.lock().unwrap().push(n)));
            assert!(poll_once(&mut waits).is_pending());
            waits
        });
        let refused = passwords.verify("x", None).await.unwrap_err();
        assert_eq!(refused.status, http::StatusCode::SERVICE_UNAVAILABLE);
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        for waits in waiting {
            waits.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [1, 2]);
        passwords.verify("x", None).await.unwrap();
    }

    /// Polls once.
    fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
